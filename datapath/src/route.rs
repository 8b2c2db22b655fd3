//! Unicast routes, of the main table where nothing else is said.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::address::family;
use crate::{Batch, KernelError, Socket};

/// The table of what is local to a namespace (rtnetlink(7), `RT_TABLE_LOCAL`).
const LOCAL_TABLE: u8 = 255;

/// A unicast route.
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

    /// Adds a route to a table of its own; one to the same destination in there is refused with `EEXIST`. The table is made
    /// by its first route.
    pub fn add_route_to_table(&mut self, step: &'static str, route: &Route, table: u32) {
        let mut message = message(route);
        // What does not fit into the header's byte is in the attribute alone.
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.attributes.push(RouteAttribute::Table(table));
        self.push(step, RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL);
    }

    /// Makes an address local to this namespace, as the kernel does by itself a moment after an IPv6 address was given to a
    /// link: until then what is sent to it is lost. One that is local already is refused with `EEXIST`, or is there twice.
    pub fn add_local_route(&mut self, step: &'static str, address_of: u32, local: IpAddr) {
        let route =
            Route { destination: local.into(), gateway: None, link: address_of, preferred_source: None, protocol: 0 };
        let mut message = message(&route);
        message.header.table = LOCAL_TABLE;
        message.header.protocol = RouteProtocol::Kernel;
        message.header.kind = RouteType::Local;
        message.header.scope = RouteScope::Host;
        self.push(step, RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL);
    }

    /// Deletes exactly this route: destination, link and protocol must all match, so that nobody else's route to the
    /// same destination goes. One that is not there is refused with `ESRCH`.
    pub fn delete_route(&mut self, step: &'static str, route: &Route) {
        self.push(step, RouteNetlinkMessage::DelRoute(message(route)), 0);
    }
}

impl Socket {
    /// The unicast routes of the main table that leave by a link of their own, of both families. Its cost grows with their
    /// number: not for the path of a pod.
    pub fn routes(&mut self) -> Result<Vec<Route>, KernelError> {
        self.dump("list the routes", RouteNetlinkMessage::GetRoute(RouteMessage::default()), read_route)
    }

    /// As [`Socket::routes`], of another table.
    pub fn routes_of_table(&mut self, table: u32) -> Result<Vec<Route>, KernelError> {
        let read = |message| read_route_of(table, message);
        self.dump("list the routes of a table", RouteNetlinkMessage::GetRoute(RouteMessage::default()), read)
    }
}

/// Reads a route out of a netlink message; `None` if it is not one of those that [`Route`] describes.
pub fn read_route(message: RouteNetlinkMessage) -> Option<Route> {
    read_route_of(u32::from(RouteHeader::RT_TABLE_MAIN), message)
}

fn read_route_of(wanted: u32, message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    if table.unwrap_or(header.table.into()) != wanted || header.kind != RouteType::Unicast {
        return None;
    }
    let everything: IpNet = match header.address_family {
        AddressFamily::Inet6 => Ipv6Net::default().into(),
        _ => Ipv4Net::default().into(),
    };
    let protocol = header.protocol.into();
    let mut route = Route { destination: everything, gateway: None, link: 0, preferred_source: None, protocol };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => route.link = *index,
            RouteAttribute::Gateway(gateway) => route.gateway = ip(gateway),
            RouteAttribute::PrefSource(source) => route.preferred_source = ip(source),
            RouteAttribute::Destination(to) => {
                route.destination = IpNet::new(ip(to)?, header.destination_prefix_length).ok()?;
            }
            _ => {}
        }
    }
    (route.link != 0).then_some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
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
