//! Hosts that are not in the VNet: in a peered VNet, on-prem, or on the internet.
//!
//! Each is a namespace of its own behind the fabric. Packets between NICs and them are routed and never translated, so a
//! host sees the source address that left the NIC. Two things are as in Azure:
//!
//! - to the internet only a NIC's own address gets out (IPv4: the primary one), because no other has outbound NAT; the
//!   fabric drops and counts the rest ([`crate::fabric::Drops::no_outbound`]). That the internet would see a public address in its
//!   place is left out, so that a test sees who it was.
//! - from the internet nobody opens a TCP connection to a private address.

use std::net::{IpAddr, SocketAddr};

use dotfour_datapath::Netns;
use ipnet::IpNet;

use crate::fabric::{Fabric, OutsideId};
use crate::place::PlacedNetns;
use crate::probe::{Responder, Seen};
use crate::{Place, RigError};

/// The name of an outside host's link to the fabric.
const LINK: &str = "eth0";

/// Where a host is, seen from the VNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// In a peered VNet.
    PeeredVnet,
    /// Behind a VPN or ExpressRoute gateway.
    OnPrem,
    /// Anywhere else.
    Internet,
}

/// What an outside host is like.
#[derive(Debug, Clone)]
pub struct OutsideConfig {
    /// Its name, which is also its namespace's.
    pub name: String,
    /// Where it is.
    pub place: Where,
    /// Its addresses, of either family. IPv6 needs a dual-stack VNet.
    pub addresses: Vec<IpAddr>,
    /// The ports, TCP and UDP, on which it says which source it sees ([`crate::probe::ask`]), on each of its addresses.
    pub ports: Vec<u16>,
    /// Whether it passes packets on that are for others, as a network appliance does ([`UserRoute`]).
    pub forwards: bool,
}

impl OutsideConfig {
    /// A host that answers on ports 80 and 8080 and forwards nothing.
    pub fn new(name: impl Into<String>, place: Where, addresses: &[IpAddr]) -> Self {
        OutsideConfig {
            name: name.into(),
            place,
            addresses: addresses.to_vec(),
            ports: vec![80, 8080],
            forwards: false,
        }
    }
}

/// A route of the subnet's route table: it wins over Azure's own routes to the same or a larger range.
#[derive(Debug)]
pub struct UserRoute<'a> {
    /// What it is for; `0.0.0.0/0` or `::/0` is forced tunnelling.
    pub prefix: IpNet,
    /// Who gets the packets.
    pub next_hop: &'a Outside,
}

/// An outside host. Its namespace lives as long as this; its link in the fabric as long as the fabric.
#[derive(Debug)]
pub struct Outside {
    name: String,
    id: OutsideId,
    addresses: Vec<IpAddr>,
    // Ends before the namespace.
    responder: Responder,
    netns: PlacedNetns,
}

impl Outside {
    pub(crate) fn build(
        place: &Place,
        fabric: &Fabric,
        id: OutsideId,
        config: &OutsideConfig,
    ) -> Result<Self, RigError> {
        let OutsideConfig { name, addresses, .. } = config;
        let netns = place.create_netns(name)?;
        for setting in ["all/rp_filter", "default/rp_filter", "all/send_redirects", "default/send_redirects"] {
            netns.set_sysctl(&format!("net/ipv4/conf/{setting}"), "0")?;
        }
        if config.forwards {
            netns.set_sysctl("net/ipv4/ip_forward", "1")?;
            // A kernel without IPv6 has no such setting, and needs none.
            let _ = netns.set_sysctl("net/ipv6/conf/all/forwarding", "1");
        }
        fabric.plug_outside(id, netns.netns(), LINK, addresses)?;
        let on = |address: &IpAddr| {
            let address = *address;
            config.ports.iter().map(move |port| SocketAddr::new(address, *port))
        };
        let places: Vec<SocketAddr> = addresses.iter().flat_map(on).collect();
        let responder = Responder::start(netns.netns(), &places, &places)
            .map_err(|source| RigError::Responder { subject: name.clone(), source })?;
        Ok(Outside { name: name.clone(), id, addresses: addresses.clone(), responder, netns })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        self.netns.netns()
    }

    /// Who came to its ports so far, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        self.responder.seen()
    }

    pub(crate) fn id(&self) -> OutsideId {
        self.id
    }

    /// The address by which packets of a family are led to it.
    pub(crate) fn address_for(&self, prefix: IpNet) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv6() == prefix.addr().is_ipv6())
    }
}
