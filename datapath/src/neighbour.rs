//! Neighbour entries.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};

use crate::address::family;
use crate::request::{self, Kind, Request};
use crate::{Batch, KernelError, Mac, Socket};

// Attributes and their values, from linux/neighbour.h.
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

/// A neighbour entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of its link.
    pub link: u32,
    /// Whose it is.
    pub address: IpAddr,
    /// The MAC it names, if it has one.
    pub mac: Option<Mac>,
    /// Whether it stays for ever.
    pub permanent: bool,
}

impl Batch {
    /// Makes a permanent neighbour entry, in the place of any other for this address on this link.
    pub fn set_neighbour(&mut self, step: &'static str, link: u32, address: IpAddr, mac: Mac) {
        // `struct ndmsg`, whose last two bytes are flags and type.
        let family = [request::family(address), 0, 0, 0];
        let fixed: [&[u8]; 4] = [&family, &link.to_ne_bytes(), &NUD_PERMANENT.to_ne_bytes(), &[0, 0]];
        let mut request = Request::begin(self, step, Kind::NewNeighbour, NLM_F_CREATE | NLM_F_REPLACE, &fixed);
        request.address(NDA_DST, address);
        request.attribute(NDA_LLADDR, &mac.0);
    }

    /// Deletes a neighbour entry of a link, whatever its state. One that is not there is refused with `ENOENT`.
    pub fn delete_neighbour(&mut self, step: &'static str, link: u32, address: IpAddr) {
        self.push(step, RouteNetlinkMessage::DelNeighbour(message(link, address)), 0);
    }
}

impl Socket {
    /// The neighbour entries of all links, of both families. Its cost grows with their number: not for the path of a pod.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, KernelError> {
        let question = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        self.dump("list the neighbours", question, read_neighbour)
    }
}

/// Reads a neighbour entry out of a netlink message; `None` if the message is about something else.
pub fn read_neighbour(message: RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    let permanent = message.header.state == NeighbourState::Permanent;
    Some(Neighbour { link: message.header.ifindex, address: address?, mac, permanent })
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
