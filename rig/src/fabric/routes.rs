//! Where addresses lead.

use std::net::{IpAddr, Ipv4Addr};

use dotfour_datapath::address::PrefixRoute;
use dotfour_datapath::route::{IfPresent, Route};
use dotfour_datapath::{Batch, Mac};
use ipnet::{IpNet, Ipv4Net};

/// Interface index of `lo` in every namespace.
const LOOPBACK: u32 = 1;
/// `RTPROT_STATIC`.
const STATIC: u8 = 4;

/// Everything leads to the sink, unless a longer prefix says otherwise.
pub(super) fn lead_nowhere(batch: &mut Batch, sink: u32) {
    batch.add_route("lead everything nowhere", &route(Ipv4Net::default(), sink), IfPresent::Refuse);
}

/// Makes addresses the fabric's own, for the platform's services.
pub(super) fn add_services(batch: &mut Batch, addresses: &[Ipv4Addr]) {
    for address in addresses {
        batch.add_address("add a service's address", LOOPBACK, single(*address).into(), PrefixRoute::Omit);
    }
}

/// Leads an address to a NIC. The fabric delivers by the NIC's MAC and never asks: a node does not answer ARP for the
/// addresses of its pods.
pub(super) fn lead_to_nic(batch: &mut Batch, nic: u32, mac: Mac, address: Ipv4Addr) {
    batch.add_route("lead an address to its NIC", &route(single(address), nic), IfPresent::Refuse);
    batch.set_neighbour("deliver to the NIC's MAC", nic, IpAddr::V4(address), mac);
}

/// Undoes [`lead_to_nic`]. The neighbour entry stays, unused without the route.
pub(super) fn stop_leading_to_nic(batch: &mut Batch, nic: u32, address: Ipv4Addr) {
    batch.delete_route("stop leading an address to its NIC", &route(single(address), nic));
}

fn single(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::from(address)
}

fn route(destination: Ipv4Net, link: u32) -> Route {
    Route { destination: IpNet::V4(destination), gateway: None, link, preferred_source: None, protocol: STATIC }
}
