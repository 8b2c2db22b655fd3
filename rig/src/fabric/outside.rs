//! The fabric's links to hosts outside the VNet, and the subnet's route table.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};

use dotfour_datapath::address::PrefixRoute;
use dotfour_datapath::link::{LinkChange, LinkId, VethEnd, VethPair};
use dotfour_datapath::route::{IfPresent, Route};
use dotfour_datapath::{Batch, KernelError, Mac, Netns};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::filter::MARK;
use super::{FABRIC_MAC, Fabric, MTU, NicId, open_in, routes};
use crate::azure::GATEWAY_V6;
use crate::error::AddressError;
use crate::{RigError, program};

/// An outside host's next hop for IPv4, good on its one link only.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Far from the NICs' links.
const FIRST_LINK: u32 = 1_000_000;
/// The routing table with the user's routes, and what of Azure's own routes is more specific.
const TABLE: u32 = 100;
/// `RTPROT_STATIC`.
const STATIC: u8 = 4;

/// Which outside host is meant. Its link in the fabric is called `netN` if it is on the internet, otherwise `outN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutsideId {
    /// Its number.
    pub number: u32,
    /// Whether it is on the internet, where only a NIC's own address gets to.
    pub internet: bool,
}

impl std::fmt::Display for OutsideId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.internet { "net" } else { "out" }, self.number)
    }
}

/// A line of the route table, as the fabric needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TableRoute {
    /// To an outside host, by one of its addresses.
    To(IpNet, OutsideId, IpAddr),
    /// As if there were no table.
    Ordinary(IpNet),
}

impl Fabric {
    /// Makes the link to an outside host, gives the host its addresses and leads them to it.
    pub(crate) fn plug_outside(
        &self,
        id: OutsideId,
        host: &Netns,
        link_name: &str,
        addresses: &[IpAddr],
    ) -> Result<(), RigError> {
        let ipv6 = addresses.iter().any(IpAddr::is_ipv6);
        if ipv6 && self.discovery.is_none() {
            return Err(AddressError::NoIpv6.into());
        }
        let name = id.to_string();
        let index = FIRST_LINK.saturating_add(id.number);
        let mac = Mac([0x02, 0, 0, 0, 1, u8::try_from(id.number).unwrap_or(u8::MAX)]);
        let mut batch = Batch::new();
        let pair = VethPair {
            near: VethEnd { name: &name, mac: Some(FABRIC_MAC), index: Some(index) },
            far: VethEnd { name: link_name, mac: Some(mac), index: None },
            far_netns: Some(host.as_fd()),
            mtu: MTU,
        };
        batch.create_veth("make the link to an outside host", &pair);
        addresses.iter().for_each(|address| routes::lead_to_nic(&mut batch, index, mac, *address));
        self.run(batch)?;

        let failed = |source: KernelError| RigError::Kernel { subject: name.clone(), source };
        let mut socket = open_in(&name, host)?;
        let link = socket.link(LinkId::Name(link_name)).map_err(failed)?.ok_or(AddressError::NoNic)?.index;
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        let mut batch = Batch::new();
        batch.change_link("set up the loopback link", LinkId::Name("lo"), &up);
        batch.change_link("set up the link to the fabric", LinkId::Index(link), &up);
        for address in addresses {
            batch.add_address("give an outside host an address", link, (*address).into(), PrefixRoute::Omit);
        }
        let mut default = |everything: IpNet, gateway: IpAddr| {
            let route =
                |destination, gateway| Route { destination, gateway, link, preferred_source: None, protocol: STATIC };
            batch.add_route("lead to the gateway", &route(gateway.into(), None), IfPresent::Replace);
            batch.add_route("add the default route", &route(everything, Some(gateway)), IfPresent::Refuse);
            batch.set_neighbour("know the gateway", link, gateway, FABRIC_MAC);
        };
        default(Ipv4Net::default().into(), GATEWAY_V4.into());
        if ipv6 {
            default(Ipv6Net::default().into(), GATEWAY_V6.into());
        }
        socket.run(batch).map_err(failed)?;
        // Looking at a link puts its queue into service at once.
        self.lock().link(LinkId::Index(index)).map_err(failed)?;
        socket.link(LinkId::Index(link)).map_err(failed)?;
        Ok(())
    }

    /// Takes an outside host's link away.
    pub(crate) fn unplug_outside(&self, id: OutsideId) -> Result<(), RigError> {
        let mut batch = Batch::new();
        batch.delete_link("remove the link to an outside host", LinkId::Index(FIRST_LINK.saturating_add(id.number)));
        self.run(batch)
    }

    /// Puts a route table in the place of the one before, if there was any. It holds for what comes from NICs.
    pub(crate) fn set_route_table(&self, table: &[TableRoute]) -> Result<(), RigError> {
        let ip = program::find("ip", "iproute2")?;
        let families: &[&str] = if self.discovery.is_some() { &["-4", "-6"] } else { &["-4"] };
        for family in families {
            // What is not there cannot be removed: the first time, that is all of it.
            let clear = format!("rule del fwmark {MARK} lookup {TABLE}\nroute flush table {TABLE}\n");
            let _ = self.ip(&ip, family, &clear);
            self.ip(&ip, family, &lines(table, *family == "-6"))?;
        }
        Ok(())
    }

    fn ip(&self, program: &Path, family: &str, lines: &str) -> Result<(), RigError> {
        let failed = |reason: String| RigError::Program { program: "ip".to_owned(), reason };
        let run = || {
            let mut child = Command::new(program)
                .args([family, "-force", "-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(lines.as_bytes())?;
            }
            child.wait_with_output()
        };
        let output = self.netns.netns().run(run).flatten().map_err(|e| failed(e.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    /// The index of a NIC's link.
    pub(crate) fn link_of(&self, nic: NicId) -> u32 {
        nic.link()
    }
}

/// Lines for `ip -batch` with one family's routes, none if the table has none for it.
fn lines(table: &[TableRoute], ipv6: bool) -> String {
    let of_family = |prefix: &IpNet| prefix.addr().is_ipv6() == ipv6;
    let line = |route: &TableRoute| match route {
        TableRoute::To(prefix, id, by) if of_family(prefix) => {
            Some(format!("route add {prefix} via {by} dev {id} onlink table {TABLE}\n"))
        }
        TableRoute::Ordinary(prefix) if of_family(prefix) => Some(format!("route add throw {prefix} table {TABLE}\n")),
        _ => None,
    };
    let mut text: String = table.iter().filter_map(line).collect();
    if !text.is_empty() {
        text.push_str(&format!("rule add fwmark {MARK} lookup {TABLE}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_own_lines_and_an_empty_table_none() {
        let id = OutsideId { number: 3, internet: false };
        let by = IpAddr::from([172, 16, 0, 4]);
        let table = [
            TableRoute::To("0.0.0.0/0".parse().unwrap(), id, by),
            TableRoute::Ordinary("10.240.0.0/16".parse().unwrap()),
        ];
        let expected = "route add 0.0.0.0/0 via 172.16.0.4 dev out3 onlink table 100\n\
                        route add throw 10.240.0.0/16 table 100\nrule add fwmark 1 lookup 100\n";
        assert_eq!(lines(&table, false), expected);
        assert_eq!(lines(&table, true), "");
        assert_eq!(lines(&[], false), "");
    }
}
