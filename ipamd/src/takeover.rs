//! Who else uses the pool's addresses on this node. Pure.
//!
//! A node that ran another network plugin before has pods of that one; a careless cloud-init puts every address of the NIC
//! on the NIC itself. Such addresses are kept out of use until their other use ends.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::kernel::NodeView;
use crate::lease::recover;
use crate::wiring::names::ROUTE_PROTOCOL;

/// The addresses that somebody else uses, each with who does. May hold addresses that are not the pool's.
pub fn foreign_uses(view: &NodeView) -> Vec<(IpAddr, String)> {
    let on_links = view.all_addresses().map(|(address, link)| (address, format!("found on {link}")));
    // A pod of ours whose link does not say so any more has its address all the same, and our route in the next pod's way.
    let unreadable = recover::find(&view.links).foreign;
    let routed = view
        .host_routes
        .iter()
        .map(|route| (route, view.link_name(route.link)))
        .filter(|(route, link)| route.protocol != ROUTE_PROTOCOL || unreadable.iter().any(|name| name == link))
        .map(|(route, link)| (route.address, format!("routed to {link}")));
    on_links.chain(routed).collect()
}

/// The pool's addresses that are on the NIC itself, with their prefix lengths.
pub fn on_nic(view: &NodeView, nic: u32, in_pool: impl Fn(IpAddr) -> bool) -> Vec<IpNet> {
    let addresses = view.addresses.get(&nic).into_iter().flatten();
    addresses.copied().filter(|net| in_pool(net.addr())).collect()
}

/// One finding for all of them, with its usual cause.
pub fn describe(on_nic: &[IpNet], nic: &str) -> String {
    format!(
        "{} pool addresses are on {nic} itself and so not for pods; cloud-init puts them there unless its datasource says \
         apply_network_config_for_secondary_ips: false; set that and remove them, or set reclaimNicAddresses: true",
        on_nic.len()
    )
}

#[cfg(test)]
mod tests {
    use dotfour_datapath::link::Link;

    use super::*;
    use crate::kernel::HostRoute;

    #[test]
    fn addresses_on_links_and_on_foreign_routes_are_in_use_and_our_own_routes_are_not() {
        let tag = "dotfour/1 eth0 10.240.0.7 azure c1";
        let route = |address: &str, link, protocol| HostRoute { address: address.parse().unwrap(), link, protocol };
        let view = NodeView {
            links: vec![
                Link { index: 2, name: "eth0".into(), ..Link::default() },
                Link { index: 9, name: "azvold".into(), ..Link::default() },
                Link { index: 10, name: "azvours".into(), alias: Some(tag.to_owned()), ..Link::default() },
                Link {
                    index: 11,
                    name: "azvnew".into(),
                    alias: Some("dotfour/9 of a later release".into()),
                    ..Link::default()
                },
            ],
            addresses: [(2, vec!["10.240.0.4/16".parse().unwrap(), "10.240.0.5/16".parse().unwrap()])].into(),
            default_route_link: None,
            host_routes: vec![
                route("10.240.0.6", 9, 4),
                route("10.240.0.7", 10, ROUTE_PROTOCOL),
                route("10.240.0.8", 11, ROUTE_PROTOCOL),
            ],
        };
        let uses: Vec<String> = foreign_uses(&view).iter().map(|(a, reason)| format!("{a} {reason}")).collect();
        let routed = ["10.240.0.6 routed to azvold", "10.240.0.8 routed to azvnew"];
        assert_eq!(uses, [&["10.240.0.4 found on eth0", "10.240.0.5 found on eth0"], &routed[..]].concat());
        let held = on_nic(&view, 2, |address| address != "10.240.0.4".parse::<IpAddr>().unwrap());
        assert_eq!(held, ["10.240.0.5/16".parse().unwrap()]);
        assert!(describe(&held, "eth0").contains("apply_network_config_for_secondary_ips"));
    }
}
