//! The VNet: which address is on which NIC, and the fabric and services that obey it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net};

use crate::azure::nics::{Nic, Nics};
use crate::azure::{Subnet, Wireserver};
use crate::error::AddressError;
use crate::fabric::{Drops, Fabric, NicId};
use crate::node::{NicLease, Node, NodeConfig};
use crate::{Place, RigError};

/// How a VNet is built.
#[derive(Debug, Clone)]
pub struct VnetConfig {
    /// Its one subnet: `"10.240.0.0/16".parse()`, or `"10.240.0.0/16,fd00:10:240::/64".parse()` for both families.
    pub subnet: Subnet,
    /// Where its files and namespaces go.
    pub place: Place,
}

/// A virtual Azure VNet. Everything it made is gone once it and its nodes are dropped.
#[derive(Debug)]
pub struct Vnet {
    config: VnetConfig,
    // Stopped before the fabric, whose namespace it listens in.
    wireserver: Wireserver,
    fabric: Fabric,
    nics: Arc<Mutex<Nics>>,
}

impl Vnet {
    /// Builds a VNet without nodes. Needs the right to make network namespaces ([`crate::sandbox`]) and the program
    /// `nft`.
    pub fn build(config: VnetConfig) -> Result<Self, RigError> {
        let nics = Arc::new(Mutex::new(Nics::new(config.subnet)));
        let fabric = Fabric::build(&config.place, config.subnet.ipv6().is_some())?;
        let wireserver = Wireserver::start(&fabric, Arc::clone(&nics))?;
        Ok(Vnet { config, wireserver, fabric, nics })
    }

    /// Adds a node with a NIC that has the lowest free addresses of the subnet.
    pub fn add_node(&self, config: &NodeConfig) -> Result<Node, RigError> {
        let id = self.nics().create(config.secondaries, config.ipv6_secondaries, Instant::now())?;
        let lease = NicLease { id, nic: self.nic(id)?, subnet: self.subnet(), gateway: self.gateway() };
        let built = Node::build(&self.config.place, &self.fabric, config, &lease)
            .and_then(|node| self.fabric.attach(id, lease.nic.mac, &lease.nic.addresses).map(|()| node));
        if built.is_err() {
            let _ = self.nics().remove(id);
        }
        built
    }

    /// Takes a node's NIC away; its addresses are free again. What runs on the node keeps running, unplugged.
    pub fn remove_node(&self, node: &Node) -> Result<(), RigError> {
        self.nics().remove(node.nic())?;
        self.fabric.unplug(node.nic())
    }

    /// The subnet's IPv4 range.
    pub fn subnet(&self) -> Ipv4Net {
        self.config.subnet.ipv4()
    }

    /// The subnet with all its ranges.
    pub fn ranges(&self) -> Subnet {
        self.config.subnet
    }

    /// The subnet's IPv4 gateway, which never answers a ping.
    pub fn gateway(&self) -> Ipv4Addr {
        self.config.subnet.gateway()
    }

    /// Puts addresses of either family on a node's NIC, all of them or none.
    pub fn attach<A: Into<IpAddr> + Copy>(&self, node: &Node, addresses: &[A]) -> Result<(), RigError> {
        let addresses: Vec<IpAddr> = addresses.iter().copied().map(Into::into).collect();
        self.nics().attach(node.nic(), &addresses, Instant::now())?;
        let mac = self.nic(node.nic())?.mac;
        self.fabric.attach(node.nic(), mac, &addresses)
    }

    /// Puts the lowest free IPv4 addresses of the subnet on a node's NIC, and says which they are.
    pub fn attach_lowest_free(&self, node: &Node, count: usize) -> Result<Vec<Ipv4Addr>, RigError> {
        let addresses = self.nics().lowest_free(IpNet::V4(self.subnet()), count)?;
        self.attach(node, &addresses)?;
        Ok(addresses.into_iter().filter_map(ipv4).collect())
    }

    /// The same for IPv6.
    pub fn attach_lowest_free_ipv6(&self, node: &Node, count: usize) -> Result<Vec<Ipv6Addr>, RigError> {
        let range = self.config.subnet.ipv6().ok_or(AddressError::NoIpv6)?;
        let addresses = self.nics().lowest_free(IpNet::V6(range), count)?;
        self.attach(node, &addresses)?;
        Ok(addresses.into_iter().filter_map(ipv6).collect())
    }

    /// Takes addresses off a node's NIC, all of them or none. The primary one stays.
    pub fn detach<A: Into<IpAddr> + Copy>(&self, node: &Node, addresses: &[A]) -> Result<(), RigError> {
        let addresses: Vec<IpAddr> = addresses.iter().copied().map(Into::into).collect();
        self.nics().detach(node.nic(), &addresses, Instant::now())?;
        self.fabric.detach(node.nic(), &addresses)
    }

    /// The IPv4 addresses on a node's NIC, the primary one first.
    pub fn addresses(&self, node: &Node) -> Result<Vec<Ipv4Addr>, RigError> {
        Ok(self.nic(node.nic())?.ipv4().collect())
    }

    /// The IPv6 addresses on a node's NIC, the node's own first.
    pub fn ipv6_addresses(&self, node: &Node) -> Result<Vec<Ipv6Addr>, RigError> {
        Ok(self.nic(node.nic())?.ipv6().collect())
    }

    /// Sends a router advertisement to a node, as the gateway also does when it is asked, and every ten minutes.
    pub fn advertise_router(&self, node: &Node) -> Result<(), RigError> {
        self.fabric.advertise(node.nic())
    }

    /// Sets `enableIPForwarding` of a node's NIC: with it, the NIC may send from any address.
    pub fn set_ip_forwarding(&self, node: &Node, enabled: bool) -> Result<(), RigError> {
        self.fabric.set_ip_forwarding(node.nic(), node.address(), enabled)
    }

    /// Packets the fabric has dropped so far.
    pub fn drops(&self) -> Result<Drops, RigError> {
        self.fabric.drops()
    }

    /// The wireserver, to make it misbehave.
    pub fn wireserver(&self) -> &Wireserver {
        &self.wireserver
    }

    /// The fabric, for its namespace.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    fn nic(&self, id: NicId) -> Result<Nic, RigError> {
        Ok(self.nics().get(id)?.clone())
    }

    /// Guards what is on the NICs; held for look-ups and changes in memory only.
    fn nics(&self) -> MutexGuard<'_, Nics> {
        self.nics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

fn ipv6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(v6),
    }
}
