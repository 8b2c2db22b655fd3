//! Unicast routes, of the main table where nothing else is said.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::request::{self, Kind, Request};
use crate::{Batch, KernelError, Socket};

// Attributes and their values, from linux/rtnetlink.h.
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RT_TABLE_UNSPEC: u8 = 0;
const RT_TABLE_MAIN: u8 = 254;
/// What is local to a namespace.
const RT_TABLE_LOCAL: u8 = 255;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_HOST: u8 = 254;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_MULTICAST: u8 = 5;
const RTPROT_KERNEL: u8 = 2;

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
        write(self, step, Kind::NewRoute, flags, route, RT_TABLE_MAIN);
    }

    /// Adds a route to a table of its own; one to the same destination in there is refused with `EEXIST`. The table is made
    /// by its first route.
    pub fn add_route_to_table(&mut self, step: &'static str, route: &Route, table: u32) {
        // What does not fit into the header's byte is in the attribute alone.
        write(self, step, Kind::NewRoute, NLM_F_CREATE | NLM_F_EXCL, route, RT_TABLE_UNSPEC).number(RTA_TABLE, table);
    }

    /// Makes an address local to this namespace, as the kernel does by itself a moment after an IPv6 address was given to a
    /// link: until then what is sent to it is lost. One that is local already is refused with `EEXIST`, or is there twice.
    pub fn add_local_route(&mut self, step: &'static str, address_of: u32, local: IpAddr) {
        let local = IpNet::from(local);
        let scope_and_kind = [RT_SCOPE_HOST, RTN_LOCAL];
        let header = header(local, [RT_TABLE_LOCAL, RTPROT_KERNEL], scope_and_kind);
        let mut request = Request::begin(self, step, Kind::NewRoute, NLM_F_CREATE | NLM_F_EXCL, &[&header]);
        request.address(RTA_DST, local.addr());
        request.number(RTA_OIF, address_of);
    }

    /// Deletes the IPv6 multicast route that the kernel gives to each link that has come up. One that is not there is refused with
    /// `ESRCH`.
    pub fn delete_multicast_route(&mut self, step: &'static str, link: u32) {
        let multicast = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8));
        let header = header(multicast, [RT_TABLE_LOCAL, RTPROT_KERNEL], [RT_SCOPE_UNIVERSE, RTN_MULTICAST]);
        let mut request = Request::begin(self, step, Kind::DelRoute, 0, &[&header]);
        request.address(RTA_DST, multicast.addr());
        request.number(RTA_OIF, link);
    }

    /// Deletes exactly this route: destination, link and protocol must all match, so that nobody else's route to the
    /// same destination goes. One that is not there is refused with `ESRCH`.
    pub fn delete_route(&mut self, step: &'static str, route: &Route) {
        write(self, step, Kind::DelRoute, 0, route, RT_TABLE_MAIN);
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

/// A request about a route.
fn write<'b>(
    batch: &'b mut Batch,
    step: &'static str,
    kind: Kind,
    flags: u16,
    route: &Route,
    table: u8,
) -> Request<'b> {
    // IPv6 has no scopes; the kernel overwrites what is said there.
    let scope = if route.gateway.is_some() { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
    let header = header(route.destination, [table, route.protocol], [scope, RTN_UNICAST]);
    let mut request = Request::begin(batch, step, kind, flags, &[&header]);
    request.address(RTA_DST, route.destination.addr());
    request.number(RTA_OIF, route.link);
    if let Some(gateway) = route.gateway {
        request.address(RTA_GATEWAY, gateway);
    }
    if let Some(source) = route.preferred_source {
        request.address(RTA_PREFSRC, source);
    }
    request
}

/// `struct rtmsg`.
fn header(destination: IpNet, table_and_protocol: [u8; 2], scope_and_kind: [u8; 2]) -> [u8; 12] {
    let ([table, protocol], [scope, kind]) = (table_and_protocol, scope_and_kind);
    let family = request::family(destination.addr());
    // The zeros are the source's length, the type of service, and flags.
    [family, destination.prefix_len(), 0, 0, table, protocol, scope, kind, 0, 0, 0, 0]
}
