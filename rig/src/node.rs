//! A node: a virtual machine's namespace with its NIC.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dotfour_datapath::address::PrefixRoute;
use dotfour_datapath::link::{Link, LinkChange, LinkId, VethEnd, VethPair};
use dotfour_datapath::route::{IfPresent, Route};
use dotfour_datapath::{Batch, KernelError, Mac, Netns};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::azure::GATEWAY_V6;
use crate::azure::nics::Nic;
use crate::fabric::{Fabric, MTU, NicId, NicPlug, open_in};
use crate::place::PlacedNetns;
use crate::{Place, RigError};

/// The NIC's name on every node, as in Azure.
pub const NIC: &str = "eth0";
/// The name of the accelerated-networking twin, like those Azure's virtual functions get.
pub const TWIN: &str = "enP1s1";
/// `RTPROT_DHCP`: Azure's nodes have their default route from DHCP.
const DHCP: u8 = 16;
/// How long a node may take to make a default route of a router advertisement.
const ROUTER_WITHIN: Duration = Duration::from_secs(5);

/// What a node is like.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its name, which is also its namespace's and its directory's.
    pub name: String,
    /// How many IPv4 addresses its NIC has beside the primary one.
    pub secondaries: usize,
    /// How many IPv6 addresses its NIC has beside the node's own; `None`: no IPv6 at all. Needs a dual-stack subnet.
    pub ipv6_secondaries: Option<usize>,
    /// Whether it has a second link with the NIC's MAC and a master, as accelerated networking makes one. (In Azure the
    /// master is the NIC itself; here it is a bridge, because a veth can be nobody's master.)
    pub accelerated_networking: bool,
}

impl NodeConfig {
    /// A node without IPv6 and accelerated networking.
    pub fn new(name: impl Into<String>, secondaries: usize) -> Self {
        NodeConfig { name: name.into(), secondaries, ipv6_secondaries: None, accelerated_networking: false }
    }

    /// A node with as many IPv6 as IPv4 addresses, and without accelerated networking.
    pub fn dual_stack(name: impl Into<String>, secondaries: usize) -> Self {
        NodeConfig { ipv6_secondaries: Some(secondaries), ..NodeConfig::new(name, secondaries) }
    }
}

/// What Azure's DHCP tells a node about its NIC.
#[derive(Debug)]
pub(crate) struct NicLease {
    pub(crate) id: NicId,
    pub(crate) nic: Nic,
    pub(crate) subnet: Ipv4Net,
    pub(crate) gateway: Ipv4Addr,
}

/// A node. Its namespace lives as long as this and what runs in it.
#[derive(Debug)]
pub struct Node {
    name: String,
    place: Place,
    netns: PlacedNetns,
    nic: NicId,
    mac: Mac,
    address: Ipv4Addr,
    ipv6: Option<Ipv6Addr>,
    state_dir: PathBuf,
}

impl Node {
    /// Makes the namespace, plugs the NIC and configures it as DHCP would: primary address with the subnet's prefix
    /// length, default route via the gateway. With IPv6, the node's own address is a /128 as from DHCPv6, and the default
    /// route is learnt from the fabric's router advertisement. Forwards IPv4, as a Kubernetes node must; IPv6 forwarding
    /// is off and `accept_ra` on, as on a new machine.
    pub(crate) fn build(
        place: &Place,
        fabric: &Fabric,
        config: &NodeConfig,
        lease: &NicLease,
    ) -> Result<Self, RigError> {
        let NicLease { id, nic, subnet, gateway } = lease;
        let id = *id;
        let name = config.name.clone();
        let netns = place.create_netns(&name)?;
        let state_dir = place.state_dir().join(&name);
        fs::create_dir_all(&state_dir).map_err(|source| RigError::File { path: state_dir.clone(), source })?;
        netns.set_sysctl("net/ipv4/ip_forward", "1")?;
        let address = nic.primary().ok_or(crate::error::AddressError::NoNic)?;
        let plug =
            NicPlug { id, mac: nic.mac, node: netns.netns(), name: NIC, primary: address, own_ipv6: nic.own_ipv6() };
        fabric.plug(&plug)?;

        let failed = |source: KernelError| RigError::Kernel { subject: name.clone(), source };
        let mut socket = open_in(&name, netns.netns())?;
        let link = socket.link(LinkId::Name(NIC)).map_err(failed)?.map(|link| link.index).unwrap_or_default();
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        let mut batch = Batch::new();
        batch.change_link("set up the loopback link", LinkId::Name("lo"), &up);
        batch.change_link("set up the NIC", LinkId::Index(link), &up);
        let own = Ipv4Net::new_assert(address, subnet.prefix_len());
        batch.add_address("give the NIC its primary address", link, IpNet::V4(own), PrefixRoute::Add);
        let default = Route {
            destination: IpNet::V4(Ipv4Net::default()),
            gateway: Some(IpAddr::V4(*gateway)),
            link,
            preferred_source: None,
            protocol: DHCP,
        };
        batch.add_route("add the default route", &default, IfPresent::Refuse);
        let ipv6 = nic.own_ipv6();
        if let Some(own) = ipv6 {
            let own = Ipv6Net::from(own);
            batch.add_address("give the NIC its IPv6 address", link, own.into(), PrefixRoute::Omit);
        }
        socket.run(batch).map_err(failed)?;
        fabric.settle(&plug)?;
        if ipv6.is_some() {
            await_router(&name, &mut socket, || fabric.advertise(id))?;
        }
        if config.accelerated_networking {
            add_twin(&mut socket, nic.mac).map_err(failed)?;
        }
        Ok(Node { name, place: place.clone(), netns, nic: id, mac: nic.mac, address, ipv6, state_dir })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its NIC's primary address: the node's own.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its own IPv6 address, the first on its NIC, if it has any.
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.ipv6
    }

    /// Its NIC.
    pub fn nic(&self) -> NicId {
        self.nic
    }

    /// Its NIC's MAC address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        self.netns.netns()
    }

    /// The path of its namespace.
    pub fn netns_path(&self) -> &Path {
        self.netns.path()
    }

    /// A directory for what runs on it.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Where its pods' namespaces go.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The links in its namespace now, those of its pods among them.
    pub fn links(&self) -> Result<Vec<Link>, RigError> {
        let subject = self.name.clone();
        open_in(&subject, self.netns())?.links().map_err(|source| RigError::Kernel { subject, source })
    }
}

/// Has the router advertised until the node has a default route from it.
fn await_router(
    name: &str,
    socket: &mut dotfour_datapath::Socket,
    advertise: impl Fn() -> Result<(), RigError>,
) -> Result<(), RigError> {
    let everything = IpNet::V6(Ipv6Net::default());
    let started = Instant::now();
    loop {
        advertise()?;
        let routes = socket.routes().map_err(|source| RigError::Kernel { subject: name.to_owned(), source })?;
        if routes.iter().any(|route| route.destination == everything && route.gateway == Some(GATEWAY_V6.into())) {
            return Ok(());
        }
        if started.elapsed() > ROUTER_WITHIN {
            return Err(RigError::NoRouter(name.to_owned()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Adds a link with the NIC's MAC that has a master, as the virtual function behind an Azure NIC is seen.
fn add_twin(socket: &mut dotfour_datapath::Socket, mac: Mac) -> Result<(), KernelError> {
    let mut batch = Batch::new();
    // Its own MAC, or it would take over that of its port and look like a NIC.
    batch.create_bridge("make the twin's master", "an-master", Mac([0x02, 0, 0, 0, 0, 1]));
    let twin = VethPair {
        near: VethEnd { name: TWIN, mac: Some(mac), index: None },
        far: VethEnd { name: "an-fabric", mac: None, index: None },
        far_netns: None,
        mtu: MTU,
    };
    batch.create_veth("make the twin", &twin);
    socket.run(batch)?;
    let master = socket.link(LinkId::Name("an-master"))?.map(|link| link.index);
    let mut batch = Batch::new();
    batch.change_link("enslave the twin", LinkId::Name(TWIN), &LinkChange { master, ..LinkChange::default() });
    socket.run(batch)
}
