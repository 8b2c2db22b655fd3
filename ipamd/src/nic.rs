//! Which link is the NIC whose addresses pods get. Pure: from what the source and the kernel say to a choice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dotfour_datapath::Mac;
use dotfour_datapath::link::Link;

use crate::kernel::NodeView;
use crate::source::NicView;
use crate::wiring::tag;

/// The NIC that carries the pods' addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// MTU in bytes, which the pods' links get too.
    pub mtu: u32,
    /// The node's own IPv4 address on it.
    pub address: Ipv4Addr,
    /// The node's own IPv6 address on it, where it has one.
    pub address_v6: Option<Ipv6Addr>,
}

impl Nic {
    /// The node's own addresses, which are no pod's.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(IpAddr::V4(self.address)).chain(self.address_v6.map(IpAddr::V6))
    }

    /// The address that the node speaks from to a pod's address.
    pub fn own_address_for(&self, pod: IpAddr) -> Option<IpAddr> {
        self.own_addresses().find(|own| own.is_ipv4() == pod.is_ipv4())
    }
}

/// Why no NIC can be chosen.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NicError {
    /// The configured NIC is not there.
    #[error("nic: there is no link {name:?} without a master on this machine; its links are {links}")]
    NoSuchLink {
        /// The configured name.
        name: String,
        /// The links there are.
        links: String,
    },
    /// No reported MAC is on this machine.
    #[error(
        "the source reports the MAC {reported}, and no link without a master has it; this machine's links are {links}"
    )]
    NoMatch {
        /// The reported MACs.
        reported: String,
        /// The links there are.
        links: String,
    },
    /// The source names no NIC, nor does the configuration or the default route.
    #[error("the source names no NIC and the node has no default route; set nic: to the NIC's name")]
    Unnamed,
    /// The NIC's name is no text.
    #[error("the NIC {name} has a name that is no UTF-8, with which no rules can be written; rename it")]
    Nameless {
        /// What can be read of its name.
        name: String,
    },
    /// The NIC has no address of the node's.
    #[error("the NIC {name} has no IPv4 address, which the node needs to reach its pods")]
    NoAddress {
        /// The NIC's name.
        name: String,
    },
}

/// Chooses the NIC, and the report that belongs to it.
///
/// A report is matched by MAC to a link that has no master: with accelerated networking the VF carries the same MAC and
/// has the synthetic NIC as its master. The VM's primary NIC is preferred, then the order of the report.
pub fn choose<'r>(
    reports: &'r [NicView],
    node: &NodeView,
    configured: Option<&str>,
) -> Result<(Nic, &'r NicView), NicError> {
    let candidates: Vec<&Link> = node
        .links
        .iter()
        .filter(|link| link.master.is_none() && !link.alias.as_deref().is_some_and(tag::is_ours))
        .filter(|link| configured.is_none_or(|name| link.name == name))
        .collect();
    if let Some(name) = configured
        && candidates.is_empty()
    {
        return Err(NicError::NoSuchLink { name: name.to_owned(), links: describe(node) });
    }

    let mut by_preference: Vec<&NicView> = reports.iter().collect();
    by_preference.sort_by_key(|report| !report.is_primary);
    for report in by_preference {
        let link = match report.mac {
            Some(mac) => with_mac(&candidates, mac, report, node),
            None if configured.is_some() => candidates.first().copied(),
            None => candidates.iter().copied().find(|link| Some(link.index) == node.default_route_link),
        };
        if let Some(link) = link {
            return Ok((nic(link, report, node)?, report));
        }
    }
    if reports.iter().any(|report| report.mac.is_none()) {
        return Err(NicError::Unnamed);
    }
    let reported: Vec<String> = reports.iter().filter_map(|report| report.mac).map(|mac| mac.to_string()).collect();
    Err(NicError::NoMatch { reported: reported.join(", "), links: describe(node) })
}

/// Of several links with the MAC (VLAN and macvlan links inherit it) the one that has the node's address.
fn with_mac<'l>(candidates: &[&'l Link], mac: Mac, report: &NicView, node: &NodeView) -> Option<&'l Link> {
    let mut matching: Vec<&Link> = candidates.iter().copied().filter(|link| link.mac == Some(mac)).collect();
    matching.sort_by_key(|link| (own_address(link, report, node).is_none(), link.index));
    matching.first().copied()
}

fn nic(link: &Link, report: &NicView, node: &NodeView) -> Result<Nic, NicError> {
    if link.name.contains(char::REPLACEMENT_CHARACTER) {
        return Err(NicError::Nameless { name: link.name.clone() });
    }
    let address = own_address(link, report, node).ok_or_else(|| NicError::NoAddress { name: link.name.clone() })?;
    let address_v6 = own_address_v6(link, report, node);
    Ok(Nic { index: link.index, name: link.name.clone(), mtu: link.mtu, address, address_v6 })
}

/// The node's IPv6 address. Azure marks none as primary. It is the first that the source lists of those that are on the
/// link: a careless cloud-init puts the others there too. Where the link has none of them yet, because DHCPv6 is slower
/// than this program, it is the first that is listed, for pods must not get it; a list that an operator wrote for pods
/// does not name it.
fn own_address_v6(link: &Link, report: &NicView, node: &NodeView) -> Option<Ipv6Addr> {
    let global = |address: &IpAddr| match address {
        IpAddr::V6(v6) if !v6.is_unicast_link_local() => Some(*v6),
        _ => None,
    };
    let on_link: Vec<Ipv6Addr> =
        node.addresses.get(&link.index).into_iter().flatten().filter_map(|net| global(&net.addr())).collect();
    let listed: Vec<Ipv6Addr> = report
        .subnets
        .iter()
        .flat_map(|subnet| subnet.primaries.iter().chain(&subnet.secondaries))
        .filter_map(global)
        .collect();
    let unlisted = || on_link.iter().find(|address| !listed.contains(address));
    if report.mac.is_none() {
        return unlisted().copied();
    }
    listed.iter().find(|address| on_link.contains(address)).or_else(unlisted).or(listed.first()).copied()
}

/// The node's address on a link: the one the source calls primary, or else the first that is not one of the pool's.
fn own_address(link: &Link, report: &NicView, node: &NodeView) -> Option<Ipv4Addr> {
    let on_link: Vec<IpAddr> = node.addresses.get(&link.index)?.iter().map(|net| net.addr()).collect();
    let primary = on_link.iter().find(|address| report.subnets.iter().any(|s| s.primaries.contains(address)));
    let other = on_link.iter().find(|address| {
        matches!(address, IpAddr::V4(v4) if !v4.is_link_local())
            && !report.subnets.iter().any(|subnet| subnet.secondaries.contains(address))
    });
    let first = on_link.iter().find(|address| address.is_ipv4());
    match primary.filter(|address| address.is_ipv4()).or(other).or(first) {
        Some(IpAddr::V4(v4)) => Some(*v4),
        _ => None,
    }
}

fn describe(node: &NodeView) -> String {
    let links: Vec<String> = node
        .links
        .iter()
        .filter(|link| !link.alias.as_deref().is_some_and(tag::is_ours))
        .filter_map(|link| {
            let mac = link.mac.filter(|mac| mac.0 != [0; 6])?;
            let master = if link.master.is_some() { ", has a master" } else { "" };
            Some(format!("{} ({mac}{master})", link.name))
        })
        .collect();
    if links.is_empty() { "none".into() } else { links.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SubnetView;

    const MAC: &str = "00:22:48:26:3d:bd";

    fn link(index: u32, name: &str, mac: &str) -> Link {
        Link { index, name: name.into(), mac: Some(mac.parse().unwrap()), mtu: 1500, up: true, ..Link::default() }
    }

    fn report(mac: Option<&str>) -> NicView {
        NicView {
            mac: mac.map(|mac| mac.parse().unwrap()),
            is_primary: true,
            subnets: vec![SubnetView {
                prefix: "10.240.0.0/16".parse().unwrap(),
                primaries: vec!["10.240.0.4".parse().unwrap()],
                secondaries: vec!["10.240.0.5".parse().unwrap()],
            }],
        }
    }

    fn node() -> NodeView {
        NodeView {
            links: vec![link(1, "lo", "00:00:00:00:00:00"), link(2, "eth0", MAC)],
            addresses: [(2, vec!["10.240.0.4/16".parse().unwrap()])].into(),
            default_route_link: Some(2),
            host_routes: vec![],
        }
    }

    #[test]
    fn an_accelerated_networking_twin_changes_nothing() {
        let alone = node();
        let mut with_twin = node();
        // In front of the NIC in every order there is, and with its address, as a careless network manager leaves it.
        with_twin.links.insert(0, Link { master: Some(2), ..link(1, "enP1s1", MAC) });
        with_twin.addresses.insert(1, vec!["10.240.0.4/16".parse().unwrap()]);
        let reports = [report(Some(MAC))];
        assert_eq!(choose(&reports, &with_twin, None), choose(&reports, &alone, None));
        assert_eq!(choose(&reports, &with_twin, None).unwrap().0.name, "eth0");
    }

    #[test]
    fn of_links_that_share_the_mac_the_one_with_the_node_s_address_is_the_nic() {
        let mut node = node();
        node.links.insert(0, link(9, "macvlan0", MAC));
        assert_eq!(choose(&[report(Some(MAC))], &node, None).unwrap().0.name, "eth0");
    }

    #[test]
    fn the_primary_nic_is_preferred() {
        let mut node = node();
        node.links.push(link(4, "eth1", "00:22:48:00:00:01"));
        let second = NicView { is_primary: false, ..report(Some("00:22:48:00:00:01")) };
        assert_eq!(choose(&[second, report(Some(MAC))], &node, None).unwrap().0.name, "eth0");
    }

    #[test]
    fn a_mac_that_is_not_on_the_machine_is_an_error_with_both_sides() {
        let e = choose(&[report(Some("00:00:5e:00:00:01"))], &node(), None).unwrap_err().to_string();
        assert!(e.contains("00:00:5e:00:00:01") && e.contains("eth0 (00:22:48:26:3d:bd)"), "{e}");
    }

    #[test]
    fn a_report_without_mac_means_the_configured_nic_or_the_default_route_s() {
        assert_eq!(choose(&[report(None)], &node(), None).unwrap().0.name, "eth0");
        assert_eq!(choose(&[report(None)], &node(), Some("eth0")).unwrap().0.name, "eth0");
        let no_route = NodeView { default_route_link: None, ..node() };
        assert_eq!(choose(&[report(None)], &no_route, None), Err(NicError::Unnamed));
        assert!(matches!(choose(&[report(None)], &node(), Some("eth7")), Err(NicError::NoSuchLink { .. })));
    }

    #[test]
    fn a_nic_without_an_address_is_an_error() {
        let node = NodeView { addresses: [].into(), ..node() };
        assert_eq!(choose(&[report(Some(MAC))], &node, None), Err(NicError::NoAddress { name: "eth0".into() }));
    }

    #[test]
    fn a_nic_whose_name_is_no_text_is_an_error() {
        let node = NodeView { links: vec![link(2, "eth\u{fffd}", MAC)], ..node() };
        assert_eq!(choose(&[report(Some(MAC))], &node, None), Err(NicError::Nameless { name: "eth\u{fffd}".into() }));
    }

    #[test]
    fn the_node_s_ipv6_address_is_the_first_listed_that_is_on_the_link() {
        let listed = |mac: Option<&str>, addresses: &[&str]| {
            let mut report = report(mac);
            report.subnets.push(SubnetView {
                prefix: "fd00::/64".parse().unwrap(),
                primaries: vec![],
                secondaries: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            });
            report
        };
        let own = |report: NicView, on_link: &[&str]| {
            let mut node = node();
            let more = on_link.iter().map(|net| net.parse::<ipnet::IpNet>().unwrap());
            node.addresses.get_mut(&2).unwrap().extend(more);
            choose(&[report], &node, None).unwrap().0.address_v6.map(|address| address.to_string())
        };
        let pods = &["fd00::4", "fd00::5", "fd00::6"];
        assert_eq!(own(listed(Some(MAC), pods), &["fe80::1/64", "fd00::4/128"]).as_deref(), Some("fd00::4"));
        // cloud-init puts them on the NIC in any order.
        assert_eq!(own(listed(Some(MAC), pods), &["fd00::6/128", "fd00::4/128"]).as_deref(), Some("fd00::4"));
        assert_eq!(own(listed(Some(MAC), &["fd00::5"]), &["fd00::4/128"]).as_deref(), Some("fd00::4"));
        // DHCPv6 has not answered yet.
        assert_eq!(own(listed(Some(MAC), pods), &["fe80::1/64"]).as_deref(), Some("fd00::4"));
        // An operator's list is for pods, all of it.
        assert_eq!(own(listed(None, pods), &["fe80::1/64"]), None);
        assert_eq!(own(listed(None, pods), &["fd00::6/128", "fd00::9/128"]).as_deref(), Some("fd00::9"));
        assert_eq!(own(report(Some(MAC)), &["fe80::1/64"]), None);
    }

    #[test]
    fn the_node_s_address_is_not_a_pool_address_that_cloud_init_put_there() {
        let mut node = node();
        node.addresses = [(2, vec!["10.240.0.5/16".parse().unwrap(), "10.240.0.4/16".parse().unwrap()])].into();
        assert_eq!(choose(&[report(Some(MAC))], &node, None).unwrap().0.address.to_string(), "10.240.0.4");
    }
}
