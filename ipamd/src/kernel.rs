//! What the node's network looks like: dumps, taken at the start and when a source is read, never on a pod's path.

use std::collections::HashMap;
use std::net::IpAddr;

use dotfour_datapath::link::{Link, read_link};
use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};

/// The node's links, their addresses, and where its default route leads.
#[derive(Debug, Clone, Default)]
pub struct NodeView {
    /// All links of the node's namespace.
    pub links: Vec<Link>,
    /// The addresses of each link, by its index.
    pub addresses: HashMap<u32, Vec<IpNet>>,
    /// The link of the IPv4 default route with the lowest metric.
    pub default_route_link: Option<u32>,
    /// Routes of the main table that lead to one address.
    pub host_routes: Vec<HostRoute>,
}

/// A route to one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoute {
    /// The address.
    pub address: IpAddr,
    /// Index of the link it leads to.
    pub link: u32,
    /// The route protocol number of whoever made it.
    pub protocol: u8,
}

impl NodeView {
    /// A link's name, or a word for one that is gone.
    pub fn link_name(&self, index: u32) -> &str {
        self.links.iter().find(|link| link.index == index).map_or("a link that is gone", |link| link.name.as_str())
    }

    /// All addresses on the node's links, with the link's name.
    pub fn all_addresses(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        self.links.iter().flat_map(|link| {
            self.addresses.get(&link.index).into_iter().flatten().map(|net| (net.addr(), link.name.as_str()))
        })
    }
}

/// The node's network cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// A dump failed.
    #[error("cannot list the node's {what}")]
    Dump {
        /// Links, addresses or routes.
        what: &'static str,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
}

/// Reads the calling thread's namespace.
pub async fn observe() -> Result<NodeView, ObserveError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(ObserveError::Socket)?;
    let connection = tokio::spawn(connection);
    let view = dump(&handle).await;
    connection.abort();
    view
}

async fn dump(handle: &rtnetlink::Handle) -> Result<NodeView, ObserveError> {
    let failed = |what| move |source| ObserveError::Dump { what, source };
    let mut view = NodeView::default();
    let mut links = handle.link().get().execute();
    while let Some(message) = links.try_next().await.map_err(failed("links"))? {
        view.links.extend(read_link(RouteNetlinkMessage::NewLink(message)));
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await.map_err(failed("addresses"))? {
        // Local differs from Address only on point-to-point links, where Address is the peer's.
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let either = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        if let Some(net) = local.or(either).and_then(|a| IpNet::new(a, message.header.prefix_len).ok()) {
            view.addresses.entry(message.header.index).or_default().push(net);
        }
    }
    let mut routes = handle.route().get(rtnetlink::RouteMessageBuilder::<std::net::Ipv4Addr>::new().build()).execute();
    let mut best = None;
    while let Some(route) = routes.try_next().await.map_err(failed("routes"))? {
        let Some(route) = read_route(&route) else { continue };
        match route.destination.map(|net| (net.prefix_len(), net.addr())) {
            None | Some((0, _)) if best.is_none_or(|(lowest, _)| route.metric < lowest) => {
                best = Some((route.metric, route.link));
            }
            Some((32 | 128, address)) => {
                view.host_routes.push(HostRoute { address, link: route.link, protocol: route.protocol });
            }
            _ => {}
        }
    }
    view.default_route_link = best.map(|(_, link)| link);
    Ok(view)
}

struct Route {
    /// Absent for a default route.
    destination: Option<IpNet>,
    metric: u32,
    link: u32,
    protocol: u8,
}

/// A unicast route of the main table with a link of its own.
fn read_route(message: &RouteMessage) -> Option<Route> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN || message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route { destination: None, metric: 0, link: 0, protocol: message.header.protocol.into() };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Oif(index) => route.link = *index,
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => {
                route.destination = IpNet::new((*v4).into(), message.header.destination_prefix_length).ok();
            }
            _ => {}
        }
    }
    (route.link != 0).then_some(route)
}
