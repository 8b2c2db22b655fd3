//! Where addresses lead.

use std::net::{IpAddr, Ipv4Addr};

use dotfour_datapath::address::PrefixRoute;
use dotfour_datapath::route::{IfPresent, Route};
use dotfour_datapath::{Batch, Mac};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::azure::GATEWAY_V6;

/// Interface index of `lo` in every namespace.
const LOOPBACK: u32 = 1;
/// `RTPROT_STATIC`.
const STATIC: u8 = 4;

/// Everything leads to the sink, unless a longer prefix says otherwise.
pub(super) fn lead_nowhere(batch: &mut Batch, sink: u32, ipv6: bool) {
    batch.add_route("lead everything nowhere", &route(Ipv4Net::default().into(), sink), IfPresent::Refuse);
    if ipv6 {
        batch.add_route("lead all IPv6 nowhere", &route(Ipv6Net::default().into(), sink), IfPresent::Refuse);
    }
}

/// Makes addresses the fabric's own, for the platform's services.
pub(super) fn add_services(batch: &mut Batch, addresses: &[Ipv4Addr]) {
    for address in addresses {
        batch.add_address("add a service's address", LOOPBACK, IpAddr::V4(*address).into(), PrefixRoute::Omit);
    }
}

/// Leads an address to a NIC. The fabric delivers by the NIC's MAC and never asks: a node does not answer ARP for the
/// addresses of its pods.
pub(super) fn lead_to_nic(batch: &mut Batch, nic: u32, mac: Mac, address: IpAddr) {
    batch.add_route("lead an address to its NIC", &route(address.into(), nic), IfPresent::Refuse);
    batch.set_neighbour("deliver to the NIC's MAC", nic, address, mac);
}

/// Makes the fabric a NIC's IPv6 gateway. Every NIC has the same one, so the address is on every link.
pub(super) fn add_gateway(batch: &mut Batch, nic: u32) {
    let address = Ipv6Net::new_assert(GATEWAY_V6, 64);
    batch.add_address("give the link the gateway's address", nic, address.into(), PrefixRoute::Add);
}

/// Undoes [`lead_to_nic`]. The neighbour entry stays, unused without the route.
pub(super) fn stop_leading_to_nic(batch: &mut Batch, nic: u32, address: IpAddr) {
    batch.delete_route("stop leading an address to its NIC", &route(address.into(), nic));
}

fn route(destination: IpNet, link: u32) -> Route {
    Route { destination, gateway: None, link, preferred_source: None, protocol: STATIC }
}
