//! Permanent neighbour entries.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};

use crate::address::family;
use crate::{Batch, Mac};

impl Batch {
    /// Makes a permanent neighbour entry, in the place of any other for this address on this link.
    pub fn set_neighbour(&mut self, step: &'static str, link: u32, address: IpAddr, mac: Mac) {
        let mut message = message(link, address);
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        self.push(step, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE);
    }

    /// Deletes a neighbour entry of a link, whatever its state. One that is not there is refused with `ENOENT`.
    pub fn delete_neighbour(&mut self, step: &'static str, link: u32, address: IpAddr) {
        self.push(step, RouteNetlinkMessage::DelNeighbour(message(link, address)), 0);
    }
}

fn message(link: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = link;
    message.attributes.push(NeighbourAttribute::Destination(match address {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    }));
    message
}
