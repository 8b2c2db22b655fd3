//! What a pod holds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dotfour_protocol::PodName;

use super::Moment;

/// The addresses of one pod: at most one of each family, and at least one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PodAddresses {
    /// The IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl PodAddresses {
    /// The addresses, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// With one more address, in the place of another of its family.
    #[must_use]
    pub fn with(mut self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.v4 = Some(v4),
            IpAddr::V6(v6) => self.v6 = Some(v6),
        }
        self
    }
}

impl From<IpAddr> for PodAddresses {
    fn from(address: IpAddr) -> Self {
        PodAddresses::default().with(address)
    }
}

impl FromIterator<IpAddr> for PodAddresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        addresses.into_iter().fold(PodAddresses::default(), PodAddresses::with)
    }
}

/// What a pod holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The pod's name, where it is known.
    pub pod: Option<Arc<PodName>>,
    /// The pod's addresses.
    pub addresses: PodAddresses,
    /// The pod's link on the node, once it is wired.
    pub link: Option<HostLink>,
    /// When the ADD was started that made it; zero where that is not known.
    pub started: Moment,
    /// Whether another plugin wires the pod, so that there never is a link.
    pub delegated: bool,
}

impl Lease {
    /// The index of the pod's link on the node, once it is wired. It stays when the link is renamed.
    pub fn link_index(&self) -> Option<u32> {
        self.link.as_ref().map(|link| link.index)
    }
}

/// A pod's link on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLink {
    /// Interface index. The pod's end has the same one.
    pub index: u32,
    /// Interface name.
    pub name: String,
}
