//! Two nodes, a daemon on each, and other plugins' networks with Dotfour's addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use dotfour_e2e::program::{self, Failure};
use dotfour_e2e::views::{Belief, Views, agreement, traces_left};
use dotfour_ipamd::client;
use dotfour_protocol::NodeStatus;
use dotfour_rig::daemon::socket_path;
use dotfour_rig::probe::Pinger;
use dotfour_rig::{Daemon, DaemonConfig, Network, Node, NodeConfig, Place, Pod, Runtime, Vnet, VnetConfig};
use serde_json::{Value, json};

use crate::Outcome;

/// The latest that Debian 12's reference plugins know.
pub(crate) const CNI_VERSION: &str = "1.0.0";
/// How long daemon, kernel and fabric may take to agree with the runtime.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a reply to a ping may take: a bridge's and a veth's first packet may have to be sent again.
const SOON: Duration = Duration::from_secs(3);

/// Two nodes of one VNet, each with a daemon.
pub(crate) struct Stage {
    pub(crate) daemon: Daemon,
    pub(crate) node: Node,
    pub(crate) other: Node,
    // Ends with the stage.
    pub(crate) _other_daemon: Daemon,
    pub(crate) vnet: Vnet,
}

impl Stage {
    /// `secondaries` addresses on each node's NIC.
    pub(crate) fn set(place: &Place, secondaries: usize, cooldown: Duration) -> Result<Self, Failure> {
        let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.clone() })?;
        let node = vnet.add_node(&NodeConfig::new("node-1", secondaries))?;
        let other = vnet.add_node(&NodeConfig::new("node-2", secondaries))?;
        let config = DaemonConfig { cooldown, ..program::daemon()? };
        let (daemon, _other_daemon) = (node.start_daemon(&config)?, other.start_daemon(&config)?);
        Ok(Stage { daemon, node, other, _other_daemon, vnet })
    }

    /// What the first node's daemon says.
    pub(crate) fn status(&self) -> Result<NodeStatus, Failure> {
        Ok(client::status(&socket_path(&self.node))?)
    }

    /// Fails unless these pods are up everywhere on the first node, and no others.
    pub(crate) fn agrees(&self, pods: &[&Up]) -> Outcome {
        let take = || {
            let beliefs = pods.iter().map(|up| (&up.pod, Belief::Up(vec![IpAddr::V4(up.address)])));
            Views::take(&self.vnet, &self.node, beliefs)
        };
        let findings = agreement(PATIENCE, take)?.findings;
        if findings.is_empty() { Ok(()) } else { Err(findings.join("\n  ").into()) }
    }

    /// Fails unless nothing of any pod is left on the first node.
    pub(crate) fn is_empty(&self) -> Outcome {
        let mut traces = traces_left(PATIENCE, &self.vnet, &self.node)?;
        let of_plugin = |name: &str| name.starts_with("veth");
        traces.extend(self.node.links()?.into_iter().map(|link| link.name).filter(|name| of_plugin(name)));
        if traces.is_empty() { Ok(()) } else { Err(format!("left:\n  {}", traces.join("\n  ")).into()) }
    }
}

/// A network of one of Debian's plugins, with a node's addresses for its pods.
pub(crate) fn network(node: &Node, plugin: &str, more: &Value) -> Result<Network, Failure> {
    let mut conf = json!({ "type": plugin, "ipam": { "type": "dotfour-ipam", "socket": socket_path(node) } });
    let members = conf.as_object_mut().ok_or("no object")?;
    members.extend(more.as_object().cloned().unwrap_or_default());
    let path = vec![program::plugin_directory()?, PathBuf::from(program::REFERENCE_PLUGINS)];
    let network = Network::single(plugin, CNI_VERSION, &conf, path);
    for program in network.plugins.iter().map(|plugin| &plugin.binary) {
        if !program.is_file() {
            return Err(format!("{} is not there; `make deps` installs it", program.display()).into());
        }
    }
    program::shipped("dotfour-ipam")?;
    Ok(network)
}

pub(crate) fn ptp(node: &Node) -> Result<Network, Failure> {
    network(node, "ptp", &json!({}))
}

/// A pod that is up.
pub(crate) struct Up {
    pub(crate) pod: Pod,
    pub(crate) address: Ipv4Addr,
    pub(crate) result: Value,
}

impl Up {
    pub(crate) fn add(node: &Node, network: &Network, name: &str) -> Result<Self, Failure> {
        let pod = Pod::create(node, "default", name)?;
        let answer = Runtime::new(node, network).add(&pod)?;
        let address = answer.ipv4().ok_or_else(|| format!("no address in {}", answer.result))?;
        Ok(Up { pod, address, result: answer.result })
    }

    /// Fails unless the pod reaches an address.
    pub(crate) fn reaches(&self, target: impl Into<IpAddr>) -> Outcome {
        let target = target.into();
        match Pinger::open(self.pod.netns())?.ping(target, SOON)? {
            Some(_) => Ok(()),
            None => Err(format!("{target} does not answer {} within {SOON:?}", self.address).into()),
        }
    }
}
