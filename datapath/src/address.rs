//! Addresses on links.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::attributes::{address, attributes, number};
use crate::batch::Object;
use crate::request::{self, Kind, Request};
use crate::{Batch, KernelError, Socket};

// Attributes and their values, from linux/if_addr.h.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const RT_SCOPE_LINK: u8 = 253;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

pub(crate) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Whether the kernel adds the route of an address's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixRoute {
    /// As `ip address add` does.
    Add,
    /// `noprefixroute`: the caller adds the routes it wants.
    Omit,
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkAddress {
    /// Index of the link.
    pub link: u32,
    /// The address, with its prefix.
    pub address: IpNet,
    /// Whether it is good on this link alone, as those are that the kernel makes itself.
    pub link_scope: bool,
}

impl Batch {
    /// Gives a link an address. IPv6 addresses skip duplicate detection (`nodad`). An address that is there already is
    /// refused with `EEXIST`.
    pub fn add_address(&mut self, step: &'static str, link: u32, address: IpNet, prefix_route: PrefixRoute) {
        let mut flags = 0;
        if prefix_route == PrefixRoute::Omit {
            flags |= IFA_F_NOPREFIXROUTE;
        }
        if address.addr().is_ipv6() {
            flags |= IFA_F_NODAD;
        }
        // `struct ifaddrmsg`, with flags of old and the scope that is everywhere.
        let header = [request::family(address.addr()), address.prefix_len(), 0, 0];
        let fixed: [&[u8]; 2] = [&header, &link.to_ne_bytes()];
        let mut request = Request::begin(self, step, Kind::NewAddress, NLM_F_CREATE | NLM_F_EXCL, &fixed);
        request.address(IFA_ADDRESS, address.addr());
        request.address(IFA_LOCAL, address.addr());
        request.number(IFA_FLAGS, flags);
    }

    /// Takes an address from a link. One that is not there is refused with `EADDRNOTAVAIL`.
    pub fn delete_address(&mut self, step: &'static str, link: u32, address: IpNet) {
        self.push(step, RouteNetlinkMessage::DelAddress(message(link, address)), 0);
    }
}

impl Socket {
    /// The addresses of all links, of both families. Its cost grows with their number: not for the path of a pod.
    pub fn addresses(&mut self) -> Result<Vec<LinkAddress>, KernelError> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump_objects("list the addresses", question, |object| Ok(read_address(object)))
    }
}

/// Reads an address out of an object; `None` if the object is about something else.
fn read_address(object: &Object<'_>) -> Option<LinkAddress> {
    if object.kind() != Some(Kind::NewAddress as u16) {
        return None;
    }
    // `struct ifaddrmsg`.
    let ([_family, prefix, _flags, scope, link @ ..], rest) = object.payload().split_first_chunk::<8>()?;
    let (mut local, mut of_peer) = (None, None);
    for (kind, value) in attributes(rest) {
        match kind {
            IFA_LOCAL => local = address(value),
            IFA_ADDRESS => of_peer = address(value),
            _ => {}
        }
    }
    // They differ only on point-to-point links, where the other one is the peer's.
    let address = IpNet::new(local.or(of_peer)?, *prefix).ok()?;
    Some(LinkAddress { link: number(link)?, address, link_scope: *scope == RT_SCOPE_LINK })
}

fn message(link: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = link;
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Address(address.addr()));
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message
}
