//! What the node's network looks like: dumps, taken at the start and when a source is read, never on a pod's path.

use std::collections::HashMap;
use std::net::IpAddr;

use dotfour_datapath::address::LinkAddress;
use dotfour_datapath::link::Link;
use dotfour_datapath::route::read_route;
use dotfour_datapath::{KernelError, Socket};
use futures_util::StreamExt;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::Handle;

/// How often to ask for objects that change all the time. What is listed last may lack some.
const DUMPS: usize = 8;

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
    /// Links or addresses cannot be listed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The routes cannot be listed.
    #[error("cannot list the node's routes")]
    Routes(#[source] rtnetlink::Error),
}

/// Reads the calling thread's namespace.
pub async fn observe() -> Result<NodeView, ObserveError> {
    // Not by rtnetlink, which passes over an object of which it cannot read all: what somebody uses would count as free.
    let mut socket = Socket::open().map_err(ObserveError::Socket)?;
    let (links, addresses) = (socket.links()?, socket.addresses()?);
    let (connection, mut handle, _) = rtnetlink::new_connection().map_err(ObserveError::Socket)?;
    let connection = tokio::spawn(connection);
    let routes = routes(&mut handle).await;
    connection.abort();
    Ok(view(links, addresses, routes.map_err(ObserveError::Routes)?))
}

/// All routes, of both families.
async fn routes(handle: &mut Handle) -> Result<Vec<RouteNetlinkMessage>, rtnetlink::Error> {
    let mut routes = Vec::new();
    for question in [
        rtnetlink::RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        rtnetlink::RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ] {
        routes.extend(list(handle, RouteNetlinkMessage::GetRoute(question)).await?);
    }
    Ok(routes)
}

fn view(links: Vec<Link>, addresses: Vec<LinkAddress>, routes: Vec<RouteNetlinkMessage>) -> NodeView {
    let mut view = NodeView { links, ..NodeView::default() };
    for found in addresses {
        view.addresses.entry(found.link).or_default().push(found.address);
    }
    let mut best = None;
    for message in routes {
        let metric = metric_of(&message);
        let Some(route) = read_route(message) else { continue };
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
    view
}

/// A route's metric; the lowest one is preferred.
fn metric_of(message: &RouteNetlinkMessage) -> u32 {
    let RouteNetlinkMessage::NewRoute(RouteMessage { attributes, .. }) = message else { return 0 };
    let metric = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    };
    attributes.iter().find_map(metric).unwrap_or_default()
}

/// All objects of a kind. Asks again where they changed meanwhile, for then one that was there all the time may be missing.
async fn list(
    handle: &mut Handle,
    question: RouteNetlinkMessage,
) -> Result<Vec<RouteNetlinkMessage>, rtnetlink::Error> {
    let mut found = Vec::new();
    for _ in 0..DUMPS {
        let interrupted;
        (found, interrupted) = dump(handle, question.clone()).await?;
        if !interrupted {
            break;
        }
    }
    Ok(found)
}

/// All objects of a kind, and whether they changed meanwhile.
async fn dump(
    handle: &mut Handle,
    question: RouteNetlinkMessage,
) -> Result<(Vec<RouteNetlinkMessage>, bool), rtnetlink::Error> {
    let mut message = NetlinkMessage::from(question);
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut answers = handle.request(message)?;
    let (mut found, mut interrupted) = (Vec::new(), false);
    while let Some(answer) = answers.next().await {
        interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(object) => found.push(object),
            NetlinkPayload::Error(e) => return Err(rtnetlink::Error::NetlinkError(e)),
            _ => {}
        }
    }
    Ok((found, interrupted))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    use dotfour_datapath::link::{LinkId, VethEnd, VethPair};
    use dotfour_datapath::{Batch, Netns};
    use netlink_packet_route::link::{LinkAttribute, LinkMessage};

    use super::*;

    fn pair(near: &str, far: &str) -> Batch {
        let end = |name| VethEnd { name, mac: None, index: None };
        let mut batch = Batch::new();
        batch.create_veth("make a pair", &VethPair { near: end(near), far: end(far), far_netns: None, mtu: 1500 });
        batch
    }

    fn is_near(object: &RouteNetlinkMessage) -> bool {
        let RouteNetlinkMessage::NewLink(LinkMessage { attributes, .. }) = object else { return false };
        attributes.iter().any(|of| matches!(of, LinkAttribute::IfName(name) if name.starts_with("near")))
    }

    /// Asks until a dump says so. The links that stay are in a list all the same.
    fn observed_while_links_come_and_go() -> bool {
        let mut socket = Socket::open().unwrap();
        for number in 0..40 {
            socket.run(pair(&format!("near{number}"), &format!("far{number}"))).unwrap();
        }
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    socket.run(pair("come", "go")).unwrap();
                    let mut batch = Batch::new();
                    batch.delete_link("delete a link", LinkId::Name("come"));
                    socket.run(batch).unwrap();
                }
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let seen = runtime.block_on(async {
                let (connection, mut handle, _) = rtnetlink::new_connection().unwrap();
                tokio::spawn(connection);
                for _ in 0..20_000 {
                    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
                    let (_, interrupted) = dump(&mut handle, question.clone()).await.unwrap();
                    if interrupted {
                        let links = list(&mut handle, question).await.unwrap();
                        return links.iter().filter(|link| is_near(link)).count() == 40;
                    }
                }
                false
            });
            over.store(true, Ordering::Relaxed);
            seen
        })
    }

    #[test]
    fn a_list_that_was_interrupted_says_so_and_is_asked_for_again() {
        assert!(Netns::create().unwrap().run(observed_while_links_come_and_go).unwrap());
    }

    #[test]
    fn a_link_whose_name_and_alias_are_no_text_is_seen_with_its_addresses() {
        let view = Netns::create().unwrap().run(|| {
            Socket::open().unwrap().run(pair("near", "far")).unwrap();
            let ip = |arguments: &[&[u8]]| {
                let arguments = arguments.iter().map(|argument| OsStr::from_bytes(argument));
                assert!(Command::new("ip").args(arguments).status().unwrap().success());
            };
            ip(&[b"link", b"set", b"near", b"alias", b"B\xfcro"]);
            ip(&[b"address", b"add", b"10.240.0.7/32", b"dev", b"near", b"label", b"near:\xfc"]);
            ip(&[b"address", b"add", b"fd00::7/128", b"dev", b"near"]);
            ip(&[b"link", b"set", b"far", b"name", b"f\xe4r"]);
            ip(&[b"address", b"add", b"10.240.0.8/32", b"dev", b"f\xe4r"]);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(observe()).unwrap()
        });
        let view = view.unwrap();
        for (address, name) in [("10.240.0.7", "near"), ("fd00::7", "near"), ("10.240.0.8", "f\u{fffd}r")] {
            assert!(view.all_addresses().any(|found| found == (address.parse().unwrap(), name)), "{address}: {view:?}");
        }
        assert!(view.links.iter().any(|link| link.alias.as_deref() == Some("B\u{fffd}ro")), "{:?}", view.links);
    }
}
