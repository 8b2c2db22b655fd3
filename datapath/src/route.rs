//! Unicast routes of the main table.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use crate::Batch;
use crate::address::family;

/// A unicast route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// The next hop; none for a route to the link itself.
    pub gateway: Option<IpAddr>,
    /// Index of the link it leaves by.
    pub link: u32,
    /// The source address for the node's own packets on this route.
    pub preferred_source: Option<IpAddr>,
    /// Who owns the route (`/etc/iproute2/rt_protos`).
    pub protocol: u8,
}

/// What to do about a route to the same destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfPresent {
    /// Refuse with `EEXIST`.
    Refuse,
    /// Take its place.
    Replace,
}

impl Batch {
    /// Adds a route.
    pub fn add_route(&mut self, step: &'static str, route: &Route, if_present: IfPresent) {
        let flags = match if_present {
            IfPresent::Refuse => NLM_F_CREATE | NLM_F_EXCL,
            IfPresent::Replace => NLM_F_CREATE | NLM_F_REPLACE,
        };
        self.push(step, RouteNetlinkMessage::NewRoute(message(route)), flags);
    }

    /// Deletes exactly this route: destination, link and protocol must all match, so that nobody else's route to the
    /// same destination goes. One that is not there is refused with `ESRCH`.
    pub fn delete_route(&mut self, step: &'static str, route: &Route) {
        self.push(step, RouteNetlinkMessage::DelRoute(message(route)), 0);
    }
}

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.destination.addr());
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.kind = RouteType::Unicast;
    // IPv6 has no scopes; the kernel overwrites what is said there.
    message.header.scope = match route.gateway {
        Some(_) => RouteScope::Universe,
        None => RouteScope::Link,
    };
    message.attributes.push(RouteAttribute::Destination(address(route.destination.addr())));
    message.attributes.push(RouteAttribute::Oif(route.link));
    message.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(address(gateway))));
    message.attributes.extend(route.preferred_source.map(|source| RouteAttribute::PrefSource(address(source))));
    message
}

fn address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}
