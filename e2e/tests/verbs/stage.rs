//! A node with a daemon, and another one to look at it from.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dotfour_e2e::program::{self, Failure};
use dotfour_e2e::views::{Belief, Views, agreement, no_traces_left};
use dotfour_ipamd::client;
use dotfour_protocol::NodeStatus;
use dotfour_rig::daemon::socket_path;
use dotfour_rig::probe::Pinger;
use dotfour_rig::{Daemon, DaemonConfig, Network, Node, NodeConfig, Place, Pod, Vnet, VnetConfig};

use crate::Outcome;

/// How long daemon, kernel and fabric may take to agree with the runtime.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a reply to a ping may take.
const SOON: Duration = Duration::from_secs(2);

pub(crate) struct Stage {
    pub(crate) daemon: Daemon,
    pub(crate) node: Node,
    pub(crate) other: Node,
    pub(crate) vnet: Vnet,
}

impl Stage {
    pub(crate) fn set(place: &Place, secondaries: usize, config: &DaemonConfig) -> Result<Self, Failure> {
        let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.clone() })?;
        let node = vnet.add_node(&NodeConfig::new("node-1", secondaries))?;
        let other = vnet.add_node(&NodeConfig::new("node-2", 1))?;
        let daemon = node.start_daemon(config)?;
        Ok(Stage { daemon, node, other, vnet })
    }

    /// Dotfour's network.
    pub(crate) fn network(&self) -> Result<Network, Failure> {
        program::network(&self.node)
    }

    /// What the daemon says.
    pub(crate) fn status(&self) -> Result<NodeStatus, Failure> {
        Ok(client::status(&socket_path(&self.node))?)
    }

    /// Fails unless the other node reaches an address.
    pub(crate) fn reaches(&self, address: Ipv4Addr) -> Outcome {
        match Pinger::open(self.other.netns())?.ping(address, SOON)? {
            Some(_) => Ok(()),
            None => Err(format!("{address} does not answer the other node within {SOON:?}").into()),
        }
    }

    /// Fails unless these pods are up everywhere, and no others.
    pub(crate) fn agrees(&self, pods: &[(&Pod, Ipv4Addr)]) -> Outcome {
        let take = || {
            let beliefs = pods.iter().map(|(pod, address)| (*pod, Belief::Up(vec![IpAddr::V4(*address)])));
            Views::take(&self.vnet, &self.node, beliefs)
        };
        let findings = agreement(PATIENCE, take)?.findings;
        if findings.is_empty() { Ok(()) } else { Err(findings.join("\n  ").into()) }
    }

    /// Fails unless nothing of any pod is left.
    pub(crate) fn is_empty(&self) -> Outcome {
        no_traces_left(PATIENCE, &self.vnet, &self.node)
    }
}
