//! What the kernel has for pods: dumps of the node's namespace, and a look into each pod's.

use std::io;
use std::net::IpAddr;

use dotfour_datapath::link::{Link, LinkId};
use dotfour_datapath::neighbour::Neighbour;
use dotfour_datapath::netns::open_socket_in;
use dotfour_datapath::{KernelError, Netns, Socket};
use dotfour_ipamd::wiring::names::{CONDEMNED_GROUPS, LINK_PREFIX, ROUTE_PROTOCOL};
use dotfour_ipamd::wiring::tag::{Tag, is_ours};
use dotfour_rig::Pod;
use ipnet::IpNet;
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
        let neighbours = socket.neighbours()?;
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
        let ours = socket.routes()?.into_iter().filter(|route| route.protocol == ROUTE_PROTOCOL);
        view.routes = ours.map(|route| HostRoute { destination: route.destination, link: route.link }).collect();
        Ok(view)
    }
}

impl PodLook {
    /// Looks into a pod.
    pub fn read(pod: &Pod) -> Result<Self, ReadError> {
        let mut socket = socket_in(pod.netns(), &pod.container_id)?;
        let link = socket.link(LinkId::Name(&pod.ifname))?;
        let addresses = match &link {
            // Every link has a link-local IPv6 address that nobody gave it.
            Some(link) => (socket.addresses()?.into_iter())
                .filter(|found| found.link == link.index && !found.link_scope)
                .map(|found| found.address.addr())
                .collect(),
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
