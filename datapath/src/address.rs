//! Addresses on links.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::Batch;

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

impl Batch {
    /// Gives a link an address. IPv6 addresses skip duplicate detection (`nodad`). An address that is there already is
    /// refused with `EEXIST`.
    pub fn add_address(&mut self, step: &'static str, link: u32, address: IpNet, prefix_route: PrefixRoute) {
        let mut message = message(link, address);
        let mut flags = AddressFlags::empty();
        if prefix_route == PrefixRoute::Omit {
            flags |= AddressFlags::Noprefixroute;
        }
        if address.addr().is_ipv6() {
            flags |= AddressFlags::Nodad;
        }
        message.attributes.push(AddressAttribute::Flags(flags));
        self.push(step, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL);
    }

    /// Takes an address from a link. One that is not there is refused with `EADDRNOTAVAIL`.
    pub fn delete_address(&mut self, step: &'static str, link: u32, address: IpNet) {
        self.push(step, RouteNetlinkMessage::DelAddress(message(link, address)), 0);
    }
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
