//! What the kernel has for pods: dumps of the node's namespace, and a look into each pod's.

use std::io;
use std::net::IpAddr;

use dotfour_datapath::link::{Link, LinkId};
use dotfour_datapath::netns::open_socket_in;
use dotfour_datapath::{Batch, KernelError, Mac, Netns, Socket};
use dotfour_ipamd::wiring::names::{CONDEMNED_GROUPS, LINK_PREFIX, ROUTE_PROTOCOL};
use dotfour_ipamd::wiring::tag::{Tag, is_ours};
use dotfour_rig::Pod;
use ipnet::IpNet;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rustix::fd::AsFd as _;

/// What a node's namespace holds of Dotfour's.
#[derive(Debug, Default)]
pub struct KernelView {
    /// Links of live pods, with what their alias says.
    pub pods: Vec<(Link, Tag)>,
    /// Links that wait for the janitor.
    pub condemned: Vec<Link>,
    /// Links that have our prefix or mark and cannot be read.
    pub unreadable: Vec<Link>,
    /// Our routes.
    pub routes: Vec<HostRoute>,
    /// Neighbour entries on the links of live pods.
    pub neighbours: Vec<Neighbour>,
}

/// A route of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoute {
    /// Where it leads.
    pub destination: IpNet,
    /// Index of the link it leaves by.
    pub link: u32,
}

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

/// What is in a pod's namespace under the name of its interface.
#[derive(Debug, Default)]
pub struct PodLook {
    /// The interface.
    pub link: Option<Link>,
    /// Its addresses, but for those that the kernel makes itself.
    pub addresses: Vec<IpAddr>,
}

/// Why the kernel's view is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A namespace cannot be entered.
    #[error("cannot enter {of}'s network namespace")]
    Enter {
        /// The node's or which pod's.
        of: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not answer.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl KernelView {
    /// Reads a node's namespace.
    pub fn read(node: &Netns) -> Result<Self, ReadError> {
        let mut socket = socket_in(node, "the node")?;
        let mut view = KernelView::default();
        // Neighbours before links and routes last: a link that vanishes in between leaves nothing behind that looks wrong.
        let neighbours = neighbours(&mut socket)?;
        for link in socket.links()? {
            let alias = link.alias.as_deref().unwrap_or_default();
            if CONDEMNED_GROUPS.contains(&link.group) && is_ours(alias) {
                view.condemned.push(link);
            } else if let Ok(tag) = alias.parse() {
                view.pods.push((link, tag));
            } else if is_ours(alias) || link.name.starts_with(LINK_PREFIX) {
                view.unreadable.push(link);
            }
        }
        let is_pods = |index| view.pods.iter().any(|(link, _)| link.index == index);
        view.neighbours = neighbours.into_iter().filter(|neighbour| is_pods(neighbour.link)).collect();
        view.routes = routes(&mut socket)?;
        Ok(view)
    }
}

impl PodLook {
    /// Looks into a pod.
    pub fn read(pod: &Pod) -> Result<Self, ReadError> {
        let mut socket = socket_in(pod.netns(), &pod.container_id)?;
        let link = socket.link(LinkId::Name(&pod.ifname))?;
        let addresses = match &link {
            Some(link) => addresses(&mut socket, link.index)?,
            None => Vec::new(),
        };
        Ok(PodLook { link, addresses })
    }
}

fn socket_in(netns: &Netns, of: &str) -> Result<Socket, ReadError> {
    Netns::current()
        .and_then(|home| open_socket_in(netns.as_fd(), &home))
        .map_err(|source| ReadError::Enter { of: of.to_owned(), source })
}

fn dump(
    socket: &mut Socket,
    what: &'static str,
    question: RouteNetlinkMessage,
) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
    let mut batch = Batch::new();
    batch.push(what, question, NLM_F_DUMP);
    let mut found = Vec::new();
    socket.exchange(batch, |object| found.push(object))?;
    Ok(found)
}

fn routes(socket: &mut Socket) -> Result<Vec<HostRoute>, KernelError> {
    let all = dump(socket, "list the routes", RouteNetlinkMessage::GetRoute(RouteMessage::default()))?;
    Ok(all.into_iter().filter_map(read_route).collect())
}

fn read_route(message: RouteNetlinkMessage) -> Option<HostRoute> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    if u8::from(message.header.protocol) != ROUTE_PROTOCOL {
        return None;
    }
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })?;
    let link = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    Some(HostRoute { destination: IpNet::new(address, message.header.destination_prefix_length).ok()?, link })
}

fn neighbours(socket: &mut Socket) -> Result<Vec<Neighbour>, KernelError> {
    let all = dump(socket, "list the neighbours", RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))?;
    Ok(all.into_iter().filter_map(read_neighbour).collect())
}

fn read_neighbour(message: RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let mut found = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => found.0 = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => found.0 = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => found.1 = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    let permanent = message.header.state == NeighbourState::Permanent;
    Some(Neighbour { link: message.header.ifindex, address: found.0?, mac: found.1, permanent })
}

fn addresses(socket: &mut Socket, link: u32) -> Result<Vec<IpAddr>, KernelError> {
    let all = dump(socket, "list the addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let on_link = all.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewAddress(message) if message.header.index == link => Some(message),
        _ => None,
    });
    // Every link has a link-local IPv6 address that nobody gave it.
    let given = on_link.filter(|message| message.header.scope != AddressScope::Link);
    let address = |message: AddressMessage| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    };
    Ok(given.filter_map(address).collect())
}
