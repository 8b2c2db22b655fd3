//! A node: a virtual machine's namespace with its NIC.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use dotfour_datapath::address::PrefixRoute;
use dotfour_datapath::link::{Link, LinkChange, LinkId, VethEnd, VethPair};
use dotfour_datapath::route::{IfPresent, Route};
use dotfour_datapath::{Batch, KernelError, Mac, Netns};
use ipnet::{IpNet, Ipv4Net};

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

/// What a node is like.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its name, which is also its namespace's and its directory's.
    pub name: String,
    /// How many addresses its NIC has beside the primary one.
    pub secondaries: usize,
    /// Whether it has a second link with the NIC's MAC and a master, as accelerated networking makes one. (In Azure the
    /// master is the NIC itself; here it is a bridge, because a veth can be nobody's master.)
    pub accelerated_networking: bool,
}

impl NodeConfig {
    /// A node without accelerated networking.
    pub fn new(name: impl Into<String>, secondaries: usize) -> Self {
        NodeConfig { name: name.into(), secondaries, accelerated_networking: false }
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
    state_dir: PathBuf,
}

impl Node {
    /// Makes the namespace, plugs the NIC and configures it as DHCP would: primary address with the subnet's prefix
    /// length, default route via the gateway. Forwards IPv4, as a Kubernetes node must.
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
        let plug = NicPlug { id, mac: nic.mac, node: netns.netns(), name: NIC, primary: address };
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
        socket.run(batch).map_err(failed)?;
        fabric.settle(&plug)?;
        if config.accelerated_networking {
            add_twin(&mut socket, nic.mac).map_err(failed)?;
        }
        Ok(Node { name, place: place.clone(), netns, nic: id, mac: nic.mac, address, state_dir })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its NIC's primary address: the node's own.
    pub fn address(&self) -> Ipv4Addr {
        self.address
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
