//! The result of an ADD, as the plugin prints it: that of each version of the specification. Pure.

use std::net::IpAddr;

use dotfour_protocol::{Assigned, Attachment, Cause, CniVersion, Failure, PodAddress, Reply, ResultFormat, Route};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Serialize, Serializer};

/// The result of ADD (SPEC.md 1.1.0, "Add Success", and the same of older versions). 1.0.0 dropped the addresses'
/// `version`, 1.1.0 brought the interfaces' `mtu`; `dns` has been there always, empty or not. An IPAM plugin's has no
/// interfaces ("Delegated Plugins (IPAM)").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AddResult<'a> {
    /// First, because a printed reply is known by it.
    cni_version: CniVersion,
    #[serde(skip_serializing_if = "Option::is_none")]
    interfaces: Option<[Interface<'a>; 2]>,
    ips: Addresses<'a>,
    routes: &'a [Route],
    /// Last and empty, because the plugin writes in what the configuration has.
    dns: NoDns,
}

#[derive(Serialize)]
struct Interface<'a> {
    name: &'a str,
    mac: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
}

/// The addresses of an interface, or of none. They are written from where they are: an ADD waits for each allocation.
struct Addresses<'a> {
    version: CniVersion,
    interface: Option<usize>,
    addresses: &'a [PodAddress],
}

#[derive(Serialize)]
struct Address {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    /// Index into the interfaces, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<usize>,
    address: IpNet,
    gateway: IpAddr,
}

#[derive(Serialize)]
struct NoDns {}

/// The pod's interface is the second one: the node's comes first, as it does in the results of other plugins.
const POD_INTERFACE: usize = 1;

/// More bytes than a result has with addresses of both families, so that its memory is asked for once.
const USUAL_LENGTH: usize = 1024;

/// The answer to an ADD for the pod's interface `ifname`: printed, if the caller gave a format.
pub fn attached(format: Option<&ResultFormat>, ifname: &str, attachment: &Attachment) -> Reply {
    let Some(ResultFormat { version, sandbox }) = format else { return Reply::Attached(attachment.clone()) };
    let mtu = (*version >= CniVersion::V1_1_0).then_some(attachment.mtu);
    printed(&AddResult {
        cni_version: *version,
        interfaces: Some([
            Interface { name: &attachment.host_ifname, mac: &attachment.host_mac, mtu, sandbox: None },
            Interface { name: ifname, mac: &attachment.pod_mac, mtu, sandbox: sandbox.as_deref() },
        ]),
        ips: Addresses { version: *version, interface: Some(POD_INTERFACE), addresses: &attachment.addresses },
        routes: &attachment.routes,
        dns: NoDns {},
    })
}

/// The answer to an ADD for a delegating plugin: everything that is not on the pod's link goes via the gateway.
pub fn assigned(format: Option<&ResultFormat>, assigned: Assigned) -> Reply {
    let Some(ResultFormat { version, .. }) = format else { return Reply::Assigned(assigned) };
    let default_route = |pod: &PodAddress| Route {
        dst: match pod.address {
            IpNet::V4(_) => Ipv4Net::default().into(),
            IpNet::V6(_) => Ipv6Net::default().into(),
        },
        gw: Some(pod.gateway),
    };
    let routes: Vec<Route> = assigned.addresses.iter().map(default_route).collect();
    printed(&AddResult {
        cni_version: *version,
        interfaces: None,
        ips: Addresses { version: *version, interface: None, addresses: &assigned.addresses },
        routes: &routes,
        dns: NoDns {},
    })
}

impl Serialize for Addresses<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.addresses.iter().map(|pod| Address {
            version: (self.version < CniVersion::V1_0_0).then_some(match pod.address {
                IpNet::V4(_) => "4",
                IpNet::V6(_) => "6",
            }),
            interface: self.interface,
            address: pod.address,
            gateway: pod.gateway,
        }))
    }
}

/// One line of JSON.
fn printed(result: &AddResult<'_>) -> Reply {
    let mut text = Vec::with_capacity(USUAL_LENGTH);
    let written = serde_json::to_writer(&mut text, result).map_err(|e| e.to_string());
    text.push(b'\n');
    match written.and_then(|()| String::from_utf8(text).map_err(|e| e.to_string())) {
        Ok(text) => Reply::Printed(text),
        // Texts and numbers always are JSON; should that ever change, the ADD fails and is undone.
        Err(e) => Reply::Failed(Failure::new(
            Cause::Internal,
            format!("cannot write the result: {e}"),
            "this is a defect in Dotfour: please report it with the daemon's log",
        )),
    }
}

#[cfg(test)]
mod tests;
