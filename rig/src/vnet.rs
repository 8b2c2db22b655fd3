//! The VNet: which address is on which NIC, and the fabric and services that obey it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};

use crate::azure::nics::{Nic, Nics};
use crate::azure::{Metadata, ProbeAnswer, Subnet, WIRESERVER, Wireserver, balancer};
use crate::error::AddressError;
use crate::fabric::{Drops, Fabric, NicId, OutsideId, TableRoute};
use crate::node::{NicLease, Node, NodeConfig};
use crate::outside::{Outside, OutsideConfig, UserRoute, Where};
use crate::probe::{Responder, Seen};
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
    // Stopped before the fabric, whose namespace they listen in.
    wireserver: Wireserver,
    metadata: Metadata,
    ports: Responder,
    fabric: Fabric,
    nics: Arc<Mutex<Nics>>,
    /// What is outside, in the order of the hosts' numbers.
    outside: Mutex<Vec<(Where, Vec<IpAddr>)>>,
}

impl Vnet {
    /// Builds a VNet without nodes. Needs the right to make network namespaces ([`crate::sandbox`]) and the program
    /// `nft`.
    pub fn build(config: VnetConfig) -> Result<Self, RigError> {
        let nics = Arc::new(Mutex::new(Nics::new(config.subnet)));
        let fabric = Fabric::build(&config.place, config.subnet.ipv6().is_some())?;
        let wireserver = Wireserver::start(&fabric, Arc::clone(&nics))?;
        let metadata = Metadata::start(&fabric, Arc::clone(&nics))?;
        let tcp = [53, 32526].map(|port| SocketAddr::from((WIRESERVER, port)));
        let udp = [SocketAddr::from((WIRESERVER, 53))];
        let ports = Responder::start(fabric.netns().netns(), &tcp, &udp).map_err(RigError::Wireserver)?;
        Ok(Vnet { config, wireserver, metadata, ports, fabric, nics, outside: Mutex::default() })
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
        self.fabric.set_ip_forwarding(node.nic(), enabled)
    }

    /// Adds a host outside the VNet.
    pub fn add_outside(&self, config: &OutsideConfig) -> Result<Outside, RigError> {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        let number = u32::try_from(outside.len()).unwrap_or(u32::MAX);
        let id = OutsideId { number, internet: config.place == Where::Internet };
        let host = Outside::build(&self.config.place, &self.fabric, id, config)?;
        outside.push((config.place, config.addresses.clone()));
        Ok(host)
    }

    /// Takes an outside host's link away. What runs there keeps running, unplugged.
    pub fn remove_outside(&self, host: &Outside) -> Result<(), RigError> {
        self.fabric.unplug_outside(host.id())
    }

    /// Puts a route table in the place of the subnet's one before; an empty one is none. It holds for what NICs send, and
    /// as in Azure the longest prefix wins: the subnet, peered and on-prem hosts are still reached directly, unless a route
    /// of the table is as long. The platform's addresses are always reached directly.
    pub fn set_route_table(&self, routes: &[UserRoute<'_>]) -> Result<(), RigError> {
        let mut table = Vec::new();
        for UserRoute { prefix, next_hop } in routes {
            let by = next_hop.address_for(*prefix).ok_or(AddressError::NextHop(*prefix))?;
            table.push(TableRoute::To(*prefix, next_hop.id(), by));
        }
        if !table.is_empty() {
            let outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
            let near = outside.iter().filter(|(place, _)| *place != Where::Internet);
            let hosts = near.flat_map(|(_, addresses)| addresses.iter().map(|address| IpNet::from(*address)));
            let own = self.config.subnet.ranges().chain(hosts);
            let beaten = |range: &IpNet| routes.iter().any(|route| route.prefix.trunc() == range.trunc());
            table.extend(own.filter(|range| !beaten(range)).map(TableRoute::Ordinary));
        }
        self.fabric.set_route_table(&table)
    }

    /// Probes a NIC's address and port as Azure's load balancer does: a TCP connection from 168.63.129.16, or for IPv6
    /// from fe80::1234:5678:9abc.
    pub fn balancer_probe(&self, target: SocketAddr, timeout: Duration) -> Result<ProbeAnswer, RigError> {
        let nic = self.nics().with_address(target.ip()).ok_or(AddressError::OnNoNic(target.ip()))?;
        let link = self.fabric.link_of(nic);
        balancer::probe(self.fabric.netns().netns(), target, link, timeout).map_err(RigError::Probe)
    }

    /// Who came to the platform's other ports on 168.63.129.16, 53 (TCP and UDP) and 32526 (TCP), where nothing is but
    /// an answer with the source seen ([`crate::probe::ask`]). For port 80 see [`Wireserver::asked`].
    pub fn platform_seen(&self) -> Vec<Seen> {
        self.ports.seen()
    }

    /// Packets the fabric has dropped so far.
    pub fn drops(&self) -> Result<Drops, RigError> {
        self.fabric.drops()
    }

    /// The wireserver, to make it misbehave.
    pub fn wireserver(&self) -> &Wireserver {
        &self.wireserver
    }

    /// The instance metadata service, for who asked.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
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
