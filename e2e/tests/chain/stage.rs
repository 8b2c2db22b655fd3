//! Two nodes of a VNet, a daemon on the first, and chains for its pods.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dotfour_e2e::Dump;
use dotfour_e2e::program::{self, Failure};
use dotfour_e2e::views::traces_left;
use dotfour_rig::{Daemon, DaemonConfig, Network, Node, NodeConfig, Place, Pod, Runtime, Vnet, VnetConfig};
use serde_json::{Value, json};

use crate::Outcome;

/// The latest that Debian 12's reference plugins know.
const CNI_VERSION: &str = "1.0.0";
/// How long the janitor may take. Less than the 30 s after which the daemon compares leases with links, or that would hide
/// what the janitor forgets.
const BURIAL: Duration = Duration::from_secs(20);

/// A node with a daemon, and another one to look at it from.
pub(crate) struct Stage {
    pub(crate) daemon: Daemon,
    pub(crate) node: Node,
    pub(crate) other: Node,
    pub(crate) vnet: Vnet,
}

impl Stage {
    /// `secondaries` addresses on the first node's NIC.
    pub(crate) fn set(place: &Place, secondaries: usize, cooldown: Duration) -> Result<Self, Failure> {
        let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.clone() })?;
        let node = vnet.add_node(&NodeConfig::new("node-1", secondaries))?;
        let other = vnet.add_node(&NodeConfig::new("node-2", 0))?;
        let daemon = node.start_daemon(&DaemonConfig { cooldown, ..program::daemon()? })?;
        Ok(Stage { daemon, node, other, vnet })
    }

    /// Dotfour with others behind it, which get `runtime` as far as they are capable of it.
    pub(crate) fn chain(&self, behind: &[Value], runtime: &Value) -> Result<Network, Failure> {
        let mut plugins = vec![json!({ "type": "dotfour", "socket": self.daemon.socket() })];
        plugins.extend_from_slice(behind);
        let list = json!({ "cniVersion": CNI_VERSION, "name": "azure", "plugins": plugins });
        let path = vec![
            program::plugin_directory()?,
            self.node.state_dir().to_owned(),
            PathBuf::from(program::REFERENCE_PLUGINS),
        ];
        for plugin in Network::from_list(&list.to_string(), path.clone())?.plugins {
            if !plugin.binary.is_file() {
                return Err(format!("{} is not there; `make deps` installs it", plugin.binary.display()).into());
            }
        }
        let arguments = runtime.as_object().cloned().unwrap_or_default();
        Ok(Network::from_list(&list.to_string(), path)?.with_capability_arguments(&arguments))
    }

    /// Writes a plugin that is a shell script.
    pub(crate) fn install(&self, name: &str, script: &str) -> Outcome {
        program::write_script(&self.node.state_dir().join(name), script)
    }

    /// Adds and deletes one pod, so that what the reference plugins never remove is there: portmap's chains for all pods.
    pub(crate) fn warm(&self, network: &Network) -> Result<Dump, Failure> {
        let runtime = Runtime::new(&self.node, network);
        let pod = Pod::create(&self.node, "default", "warm")?;
        let result = runtime.add(&pod)?.result;
        runtime.del(&pod, Some(&result))?;
        self.bury()?;
        Ok(Dump::of(self.node.netns())?)
    }

    /// Waits until nothing of a pod is left, in the daemon, the kernel and the fabric.
    pub(crate) fn bury(&self) -> Outcome {
        let traces = traces_left(BURIAL, &self.vnet, &self.node)?;
        if traces.is_empty() {
            return Ok(());
        }
        Err(format!("after {BURIAL:?}:\n  {}\n{}", traces.join("\n  "), self.daemon.log_tail()).into())
    }

    /// Fails unless the node is as it was, and no listing says anything of `what`: a container's id, an address.
    pub(crate) fn as_before(&self, before: &Dump, what: &str) -> Outcome {
        self.bury()?;
        let now = Dump::of(self.node.netns())?;
        let mut difference = before.difference(&now);
        difference.extend(now.lines_with(what).map(str::to_owned));
        if difference.is_empty() { Ok(()) } else { Err(format!("DEL left:\n  {}", difference.join("\n  ")).into()) }
    }
}

/// Debian's plugins, as a cluster lists them.
pub(crate) fn portmap() -> Value {
    json!({ "type": "portmap", "capabilities": { "portMappings": true }, "snat": true })
}

pub(crate) fn bandwidth() -> Value {
    json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } })
}

pub(crate) fn tuning() -> Value {
    json!({ "type": "tuning", "sysctl": { "net.core.somaxconn": "500" } })
}

/// A pod that is up.
pub(crate) struct Up {
    pub(crate) pod: Pod,
    pub(crate) address: Ipv4Addr,
    pub(crate) result: Value,
}

impl Up {
    pub(crate) fn add(stage: &Stage, network: &Network, name: &str) -> Result<Self, Failure> {
        let pod = Pod::create(&stage.node, "default", name)?;
        let answer = Runtime::new(&stage.node, network).add(&pod)?;
        let address = answer.ipv4().ok_or_else(|| format!("no address in {}", answer.result))?;
        Ok(Up { pod, address, result: answer.result })
    }
}

/// A file's content as seen from inside a network namespace.
pub(crate) fn sysctl(netns: &dotfour_datapath::Netns, setting: &str) -> Result<String, Failure> {
    let path = Path::new("/proc/sys").join(setting);
    Ok(netns.run(|| std::fs::read_to_string(&path))??.trim().to_owned())
}
