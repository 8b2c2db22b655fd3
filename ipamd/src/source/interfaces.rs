//! From the interface documents' words to a [`NicView`], for the wireserver's XML and Azure Stack's JSON alike.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{NicView, SubnetView};

/// One `Interface` element or object, as it is written.
#[derive(Debug, Default)]
pub(super) struct RawInterface<'a> {
    pub(super) mac: &'a str,
    pub(super) is_primary: bool,
    pub(super) subnets: Vec<RawSubnet<'a>>,
}

/// One `IPSubnet`.
#[derive(Debug, Default)]
pub(super) struct RawSubnet<'a> {
    pub(super) prefix: &'a str,
    /// Address and `IsPrimary`.
    pub(super) addresses: Vec<(&'a str, bool)>,
}

/// Checks a document's interfaces. The error says which word is wrong.
pub(super) fn read(interfaces: Vec<RawInterface<'_>>) -> Result<Vec<NicView>, String> {
    if interfaces.is_empty() {
        return Err("it lists no interface".into());
    }
    interfaces.into_iter().map(read_interface).collect()
}

fn read_interface(interface: RawInterface<'_>) -> Result<NicView, String> {
    // azure-vnet-ipam takes "*" for any NIC, and so do the documents written for it.
    let mac = match interface.mac {
        "*" => None,
        text => Some(text.parse().map_err(|e| format!("MacAddress: {e}"))?),
    };
    let subnets = interface.subnets.into_iter().map(read_subnet).collect::<Result<_, _>>()?;
    Ok(NicView { mac, is_primary: interface.is_primary, subnets })
}

fn read_subnet(subnet: RawSubnet<'_>) -> Result<SubnetView, String> {
    let prefix: IpNet =
        subnet.prefix.parse().map_err(|_| format!("Prefix {:?} is not a network in CIDR form", subnet.prefix))?;
    let mut view = SubnetView { prefix: prefix.trunc(), primaries: Vec::new(), secondaries: Vec::new() };
    for (text, is_primary) in subnet.addresses {
        let address: IpAddr = text.parse().map_err(|_| format!("Address {text:?} is not an IP address"))?;
        if is_primary { view.primaries.push(address) } else { view.secondaries.push(address) }
    }
    Ok(view)
}
