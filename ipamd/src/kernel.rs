//! What the node's network looks like: dumps, taken at the start and when a source is read, never on a pod's path.

use std::collections::HashMap;
use std::net::IpAddr;

use dotfour_datapath::address::read_address;
use dotfour_datapath::link::{Link, read_link};
use dotfour_datapath::route::read_route;
use futures_util::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteAttribute;

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
        let Some(found) = read_address(RouteNetlinkMessage::NewAddress(message)) else { continue };
        view.addresses.entry(found.link).or_default().push(found.address);
    }
    let v4 = handle.route().get(rtnetlink::RouteMessageBuilder::<std::net::Ipv4Addr>::new().build()).execute();
    let v6 = handle.route().get(rtnetlink::RouteMessageBuilder::<std::net::Ipv6Addr>::new().build()).execute();
    let mut routes = std::pin::pin!(v4.chain(v6));
    let mut best = None;
    while let Some(message) = routes.try_next().await.map_err(failed("routes"))? {
        let metric = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        });
        let metric = metric.unwrap_or_default();
        let Some(route) = read_route(RouteNetlinkMessage::NewRoute(message)) else { continue };
        let (address, length) = (route.destination.addr(), route.destination.prefix_len());
        if length == 0 && address.is_ipv6() {
            continue;
        }
        if length == 0 && best.is_none_or(|(lowest, _)| metric < lowest) {
            best = Some((metric, route.link));
        } else if length == route.destination.max_prefix_len() {
            view.host_routes.push(HostRoute { address, link: route.link, protocol: route.protocol });
        }
    }
    view.default_route_link = best.map(|(_, link)| link);
    Ok(view)
}
