//! The fabric: a namespace that moves packets between NICs by Azure's rules.
//!
//! It is a router with one link per NIC. An address leads to a NIC only while it is on it, and leads nowhere otherwise
//! ([`routes`]); what a NIC may not send is dropped and counted ([`filter`]). All of its links have the same MAC and
//! answer every ARP request and neighbour solicitation with it, so a NIC never sees another one's MAC, as in Azure. It
//! forwards neither broadcast nor multicast, and answers no ping itself.
//!
//! In a dual-stack VNet every link has the same link-local address, [`azure::GATEWAY_V6`], which it advertises as router
//! (`discovery`). Its advertisements name no prefix: a NIC's IPv6 address is a /128 from DHCPv6, and all goes by the
//! gateway. A VNet without IPv6 has none on any link of the fabric.
//!
//! One difference from Azure remains: the fabric is a Linux router and takes one from a packet's TTL.
//!
//! The fabric obeys; which address may be on which NIC is for [`crate::vnet`] to decide.

mod discovery;
pub mod filter;
mod outside;
pub mod routes;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dotfour_datapath::link::{Ipv4Setting, LinkChange, LinkId, VethEnd, VethPair};
use dotfour_datapath::netns::open_socket_in;
use dotfour_datapath::{Batch, KernelError, Mac, Netns, Socket};

use self::discovery::Discovery;
pub(crate) use self::discovery::{ALL_NODES, router_advertisement};
pub use self::filter::{Drops, NicDrops};
use self::filter::{Filter, NicRules};
pub use self::outside::OutsideId;
pub(crate) use self::outside::TableRoute;
use crate::error::AddressError;
use crate::place::{Place, PlacedNetns};
use crate::{RigError, azure};

/// The MAC address that Azure's fabric shows to every NIC.
pub const FABRIC_MAC: Mac = Mac([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
/// MTU of every NIC, in bytes.
pub const MTU: u32 = 1500;
/// A link that leads nowhere. The kernel answers ARP on behalf of addresses it would route to another link, so
/// addresses nobody has are routed to this one.
const SINK: &str = "sink";
/// Not the next free one: the kernel would give that to the other end, which it makes first.
const SINK_INDEX: u32 = 99;
/// NIC number N has interface index `FIRST_NIC_INDEX + N` here.
const FIRST_NIC_INDEX: u32 = 100;

/// Which NIC of the VNet is meant. Its link in the fabric is called `nicN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NicId(pub u32);

impl std::fmt::Display for NicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "nic{}", self.0)
    }
}

impl NicId {
    fn link(self) -> u32 {
        FIRST_NIC_INDEX.saturating_add(self.0)
    }
}

/// A NIC to be plugged into the fabric.
#[derive(Debug)]
pub struct NicPlug<'a> {
    /// Which one.
    pub id: NicId,
    /// Its MAC address.
    pub mac: Mac,
    /// The node's namespace, in which the NIC is born.
    pub node: &'a Netns,
    /// The NIC's name in there.
    pub name: &'a str,
    /// The NIC's primary address: the only one to which wireserver and instance metadata answer.
    pub primary: Ipv4Addr,
    /// The node's own IPv6 address, if it has one.
    pub own_ipv6: Option<Ipv6Addr>,
}

/// The fabric of one VNet.
#[derive(Debug)]
pub struct Fabric {
    netns: PlacedNetns,
    /// Held only for one exchange with the kernel.
    socket: Mutex<Socket>,
    filter: Filter,
    /// Only in a dual-stack VNet.
    discovery: Option<Discovery>,
}

impl Fabric {
    /// Makes a fabric without NICs, for IPv4 alone or for both families.
    pub fn build(place: &Place, ipv6: bool) -> Result<Self, RigError> {
        let filter = Filter::new(ipv6)?;
        let netns = place.create_netns("fabric")?;
        // Before any link is there: new links take these over.
        netns.set_sysctl("net/ipv4/ip_forward", "1")?;
        for setting in ["all/rp_filter", "default/rp_filter", "all/send_redirects", "default/send_redirects"] {
            netns.set_sysctl(&format!("net/ipv4/conf/{setting}"), "0")?;
        }
        if ipv6 {
            netns.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
            // The links' only link-local address is the gateway's.
            netns.set_sysctl("net/ipv6/conf/default/addr_gen_mode", "1")?;
        } else {
            // A kernel without IPv6 has no such setting, and needs none.
            let _ = netns.set_sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        }

        let mut socket = open_in("fabric", netns.netns())?;
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        let mut batch = Batch::new();
        batch.change_link("set up the loopback link", LinkId::Name("lo"), &up);
        let sink = VethPair {
            near: VethEnd { name: SINK, mac: Some(FABRIC_MAC), index: Some(SINK_INDEX) },
            far: VethEnd { name: "sink-end", mac: None, index: None },
            far_netns: None,
            mtu: MTU,
        };
        batch.create_veth("make the link that leads nowhere", &sink);
        batch.change_link("set up its other end", LinkId::Name("sink-end"), &up);
        routes::lead_nowhere(&mut batch, SINK_INDEX, ipv6);
        routes::add_services(&mut batch, &[azure::WIRESERVER, azure::INSTANCE_METADATA]);
        socket.run(batch).map_err(fabric_error)?;
        filter.install(netns.netns())?;
        let discovery = if ipv6 { Some(Discovery::start(netns.netns()).map_err(RigError::Discovery)?) } else { None };
        Ok(Fabric { netns, socket: Mutex::new(socket), filter, discovery })
    }

    /// The fabric's namespace: what listens in there is a service of the platform.
    pub fn netns(&self) -> &PlacedNetns {
        &self.netns
    }

    /// Makes a NIC: one end in the fabric, up, the other in the node, down. It has no address yet.
    pub fn plug(&self, nic: &NicPlug<'_>) -> Result<(), RigError> {
        let name = nic.id.to_string();
        let index = nic.id.link();
        let mut batch = Batch::new();
        let pair = VethPair {
            near: VethEnd { name: &name, mac: Some(FABRIC_MAC), index: Some(index) },
            far: VethEnd { name: nic.name, mac: Some(nic.mac), index: None },
            far_netns: Some(nic.node.as_fd()),
            mtu: MTU,
        };
        batch.create_veth("make the NIC", &pair);
        // The second answers for addresses that lead back to the same NIC.
        let proxy = [(Ipv4Setting::ProxyArp, 1), (Ipv4Setting::ProxyArpPvlan, 1)];
        let answer_arp = LinkChange { ipv4: &proxy, ..LinkChange::default() };
        batch.change_link("make the fabric answer ARP", LinkId::Index(index), &answer_arp);
        if self.discovery.is_some() {
            routes::add_gateway(&mut batch, index);
        }
        self.run(batch)?;
        // Otherwise the answer comes after a random part of 0.8 seconds.
        self.netns.set_sysctl(&format!("net/ipv4/neigh/{name}/proxy_delay"), "0")?;
        let rules = NicRules { id: nic.id, primary: nic.primary, own_ipv6: nic.own_ipv6, ip_forwarding: false };
        self.filter.add_nic(self.netns.netns(), &rules)
    }

    /// Makes sure that a NIC carries packets both ways, once the node has set its end up. The kernel puts a link's queue
    /// into service up to a second after its carrier came, but at once if somebody looks at the link.
    pub fn settle(&self, nic: &NicPlug<'_>) -> Result<(), RigError> {
        let seen = self.lock().link(LinkId::Index(nic.id.link())).map_err(fabric_error)?;
        let inside = open_in(nic.name, nic.node)?.link(LinkId::Name(nic.name)).map_err(fabric_error)?;
        match (seen, inside) {
            (Some(_), Some(_)) => Ok(()),
            _ => Err(RigError::Address(AddressError::NoNic)),
        }
    }

    /// Takes a NIC away with all its addresses.
    pub fn unplug(&self, nic: NicId) -> Result<(), RigError> {
        self.filter.remove_nic(self.netns.netns(), nic)?;
        if let Some(discovery) = &self.discovery {
            discovery.forget(nic.link());
        }
        let mut batch = Batch::new();
        batch.delete_link("remove the NIC", LinkId::Index(nic.link()));
        self.run(batch)
    }

    /// Leads addresses to a NIC, and lets the NIC send from them.
    pub fn attach(&self, nic: NicId, mac: Mac, addresses: &[IpAddr]) -> Result<(), RigError> {
        let mut batch = Batch::new();
        addresses.iter().for_each(|address| routes::lead_to_nic(&mut batch, nic.link(), mac, *address));
        self.run(batch)?;
        self.filter.allow_sources(self.netns.netns(), nic, addresses)
    }

    /// Undoes [`Fabric::attach`].
    pub fn detach(&self, nic: NicId, addresses: &[IpAddr]) -> Result<(), RigError> {
        let mut batch = Batch::new();
        addresses.iter().for_each(|address| routes::stop_leading_to_nic(&mut batch, nic.link(), *address));
        self.run(batch)?;
        self.filter.forbid_sources(self.netns.netns(), nic, addresses)
    }

    /// Sends a router advertisement to a NIC, as is also done when it asks for one.
    pub fn advertise(&self, nic: NicId) -> Result<(), RigError> {
        let discovery = self.discovery.as_ref().ok_or(AddressError::NoIpv6)?;
        discovery.advertise(nic.link()).map_err(RigError::Discovery)
    }

    /// Lets a NIC send from any address (`enableIPForwarding`), or not.
    pub fn set_ip_forwarding(&self, nic: NicId, enabled: bool) -> Result<(), RigError> {
        self.filter.set_ip_forwarding(self.netns.netns(), nic, enabled)
    }

    /// How many packets have been dropped, and why.
    pub fn drops(&self) -> Result<Drops, RigError> {
        self.filter.drops(self.netns.netns())
    }

    fn run(&self, batch: Batch) -> Result<(), RigError> {
        self.lock().run(batch).map_err(fabric_error)
    }

    fn lock(&self) -> MutexGuard<'_, Socket> {
        // Nothing is left half-changed by a panic elsewhere: each exchange stands alone.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fabric_error(source: KernelError) -> RigError {
    RigError::Kernel { subject: "fabric".to_owned(), source }
}

/// A netlink socket in a namespace of the rig's.
pub(crate) fn open_in(name: &str, netns: &Netns) -> Result<Socket, RigError> {
    let opened = Netns::current().and_then(|home| open_socket_in(netns.as_fd(), &home));
    opened.map_err(|source| RigError::Netns { name: name.to_owned(), source })
}
