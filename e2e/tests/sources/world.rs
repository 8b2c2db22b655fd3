//! A VNet with one of everything that a pod can talk to.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use dotfour_datapath::Netns;
use dotfour_e2e::inside::{feed, shell};
use dotfour_e2e::program::{self, Failure};
use dotfour_rig::probe::Responder;
use dotfour_rig::{
    Daemon, Network, Node, NodeConfig, Outside, OutsideConfig, Place, Pod, Runtime, Vnet, VnetConfig, Where,
};

use crate::columns::Column;

pub(crate) const SUBNET: &str = "10.240.0.0/16,fd00:10:240::/64";
/// What says whom it sees, wherever there is no other port that matters.
pub(crate) const PORT: u16 = 80;
/// The address of a service, by family.
pub(crate) const SERVICE: [&str; 2] = ["10.0.0.77", "fd00:10:77::77"];
/// A port of every node that leads to the node's own pod.
pub(crate) const NODE_PORT: u16 = 30_080;
/// Where NodeLocal DNS listens.
pub(crate) const NODE_LOCAL: &str = "169.254.20.10";

/// What is outside: name, where, IPv4 address and IPv6 address.
const OUTSIDE: [(&str, Where, &str, Option<&str>); 5] = [
    ("peered", Where::PeeredVnet, "10.241.0.4", Some("fd00:10:241::4")),
    ("on-prem", Where::OnPrem, "192.168.7.9", Some("fd00:192::9")),
    ("internet", Where::Internet, "198.51.100.7", Some("2001:db8::7")),
    ("link-local", Where::OnPrem, "169.254.7.7", None),
    ("appliance", Where::OnPrem, "172.16.0.4", Some("fd00:172::4")),
];

/// A pod with its addresses.
pub(crate) struct Member {
    pub(crate) pod: Pod,
    pub(crate) v4: IpAddr,
    pub(crate) v6: IpAddr,
    // Ends before the pod's namespace.
    _responder: Responder,
}

/// Two Kubernetes nodes with pods, and what is around them.
pub(crate) struct World {
    // In the order of their ends.
    _responders: Vec<Responder>,
    pub(crate) outside: Vec<Outside>,
    /// The pod that asks, another one on its node, and one on the other node.
    pub(crate) pods: [Member; 3],
    daemons: [Daemon; 2],
    pub(crate) nodes: [Node; 2],
    /// A machine of the subnet that is no node.
    pub(crate) vm: Node,
    pub(crate) vnet: Vnet,
}

impl World {
    pub(crate) fn build(place: &Place, column: &Column) -> Result<Self, Failure> {
        let vnet = Vnet::build(VnetConfig { subnet: SUBNET.parse()?, place: place.within(column.place)? })?;
        let node = |name: &str| vnet.add_node(&NodeConfig::dual_stack(name, 4));
        let nodes = [node("node-1")?, node("node-2")?];
        let vm = vnet.add_node(&NodeConfig::dual_stack("vm", 0))?;
        let daemons = [start(&nodes[0], column)?, start(&nodes[1], column)?];
        let networks = [program::network(&nodes[0])?, program::network(&nodes[1])?];
        let pods = [
            Member::start(&nodes[0], &networks[0], "asking")?,
            Member::start(&nodes[0], &networks[0], "near")?,
            Member::start(&nodes[1], &networks[1], "far")?,
        ];
        let mut responders = Vec::new();
        for machine in [&nodes[0], &nodes[1], &vm] {
            let own = [IpAddr::from(machine.address()), machine.ipv6().ok_or("no IPv6")?.into()];
            responders.push(respond(machine.netns(), &own)?);
        }
        shell(nodes[0].netns(), &format!("ip address add {NODE_LOCAL}/32 dev lo"))?;
        responders.push(respond(nodes[0].netns(), &[NODE_LOCAL.parse()?])?);
        let mut outside = Vec::new();
        for (name, place, v4, v6) in OUTSIDE {
            let addresses = [Some(v4), v6].into_iter().flatten().map(str::parse).collect::<Result<Vec<IpAddr>, _>>()?;
            let config = OutsideConfig { forwards: name == "appliance", ..OutsideConfig::new(name, place, &addresses) };
            outside.push(vnet.add_outside(&config)?);
        }
        for (node, local) in [(&nodes[0], &pods[1]), (&nodes[1], &pods[2])] {
            feed(node.netns(), &["nft", "-f", "-"], &kube_proxy(&pods[2], local))?;
        }
        Ok(World { _responders: responders, outside, pods, daemons, nodes, vm, vnet })
    }

    /// A host outside, by its name.
    pub(crate) fn host(&self, name: &str) -> Result<&Outside, Failure> {
        Ok(self.outside.iter().find(|host| host.name() == name).ok_or("no such host")?)
    }

    /// Every daemon's log, for whoever wonders.
    pub(crate) fn logs(&self) -> String {
        self.daemons.iter().map(Daemon::log).collect()
    }
}

impl Member {
    fn start(node: &Node, network: &Network, name: &str) -> Result<Self, Failure> {
        let pod = Pod::create(node, "default", name)?;
        let result = Runtime::new(node, network).add(&pod)?.result;
        let ips = result["ips"].as_array().ok_or("no addresses")?;
        let addresses = ips.iter().filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok());
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.partition(IpAddr::is_ipv4);
        let [v4, v6] = [v4, v6].map(|of_family| of_family.first().copied().ok_or("an address is missing"));
        let (v4, v6) = (v4?, v6?);
        let responder = respond(pod.netns(), &[v4, v6])?;
        Ok(Member { pod, v4, v6, _responder: responder })
    }

    /// Its address of the family of another one.
    pub(crate) fn like(&self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// The node's own address of the family of another one.
pub(crate) fn own(node: &Node, other: IpAddr) -> IpAddr {
    match node.ipv6() {
        Some(own) if other.is_ipv6() => own.into(),
        _ => node.address().into(),
    }
}

fn respond(netns: &Netns, addresses: &[IpAddr]) -> Result<Responder, Failure> {
    let places: Vec<SocketAddr> = addresses.iter().map(|address| SocketAddr::new(*address, PORT)).collect();
    Ok(Responder::start(netns, &places, &places)?)
}

fn start(node: &Node, column: &Column) -> Result<Daemon, Failure> {
    let directory = node.state_dir().join("masq");
    fs::create_dir_all(&directory)?;
    if let Some(file) = column.file {
        fs::write(directory.join("ip-masq-agent"), file)?;
    }
    let mut config = program::daemon()?;
    config.more = column.yaml.replace("CONFIG", &directory.display().to_string());
    Ok(node.start_daemon(&config)?)
}

/// Rules of the shape that kube-proxy writes: a service whose one endpoint is a pod of the other node, and a port of the
/// node with `externalTrafficPolicy: Local`, which leads to the node's own pod as it came.
fn kube_proxy(endpoint: &Member, local: &Member) -> String {
    let [v4, v6] = SERVICE;
    let (e4, e6, l4, l6) = (endpoint.v4, endpoint.v6, local.v4, local.v6);
    format!(
        "table inet kube-proxy {{
  chain services {{
    ip daddr {v4} meta l4proto {{ tcp, udp }} th dport {PORT} dnat ip to {e4}:{PORT}
    ip6 daddr {v6} meta l4proto {{ tcp, udp }} th dport {PORT} dnat ip6 to [{e6}]:{PORT}
    fib daddr type local meta nfproto ipv4 tcp dport {NODE_PORT} dnat ip to {l4}:{PORT}
    fib daddr type local meta nfproto ipv6 tcp dport {NODE_PORT} dnat ip6 to [{l6}]:{PORT}
  }}
  chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
  chain nat-output {{ type nat hook output priority -100; jump services; }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat
    meta mark & 0x4000 == 0 return
    meta mark set meta mark ^ 0x4000
    masquerade fully-random
  }}
}}
"
    )
}
