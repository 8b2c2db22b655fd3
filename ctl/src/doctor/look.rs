//! What can be seen of the node. Nothing is changed, and no ruleset is listed whole.

use std::fs;
use std::path::{Path, PathBuf};

use dotfour_ipamd::client;
use dotfour_ipamd::config::{Config, DEFAULT_CONF_DIR, DEFAULT_PATH};
use dotfour_ipamd::errors::with_source;
use dotfour_ipamd::install::conflist::{self, Found, Owner};
use dotfour_ipamd::install::reference::{self, Reference};
use dotfour_ipamd::install::{DELEGATE, PLUGIN, shipped_plugin};
use dotfour_ipamd::rules::forward_drop;
use dotfour_ipamd::rules::old_agent;
use dotfour_protocol::NodeStatus;

use super::kubernetes::{self, Kubernetes};

/// Everything; an error says why a part is not seen.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The configuration, or what is wrong with it.
    pub(crate) config: Result<Config, String>,
    /// The daemon's own state.
    pub(crate) daemon: Result<NodeStatus, String>,
    /// Where the runtime looks for plugins.
    pub(crate) bin_dir: PathBuf,
    /// By name, whether the plugin there is this release's: under the names that the network configurations use.
    pub(crate) plugins: Vec<(&'static str, Plugin)>,
    /// The reference plugins that are missing there.
    pub(crate) missing: Vec<Reference>,
    /// Where the runtime looks for network configurations.
    pub(crate) conf_dir: PathBuf,
    /// How ours is called there.
    pub(crate) conflist: String,
    /// What is there.
    pub(crate) lists: Result<Vec<Found>, String>,
    /// `net.ipv4.ip_forward`.
    pub(crate) forwarding: Result<bool, String>,
    /// Chains that drop what is forwarded.
    pub(crate) chains: forward_drop::Found,
    /// Which kinds of iptables have the ip-masq-agent's chain.
    pub(crate) old_agent: old_agent::Found,
    /// What Kubernetes' components are set to.
    pub(crate) kubernetes: Kubernetes,
}

/// The installed plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plugin {
    /// There is none that could be run.
    Missing,
    /// It is this release's.
    Same,
    /// It is not.
    Differs,
    /// It is there; why it cannot be compared.
    Unknown(String),
}

/// Looks at this node.
pub(crate) fn look(config: Option<&Path>, plugin: Option<&Path>) -> Seen {
    let config = read_config(config);
    let defaults = Config::without_file().ok();
    let known = config.as_ref().ok().or(defaults.as_ref());
    let cni = known.map(|config| &config.cni);
    let bin_dir = cni.map(|cni| cni.bin_dir.clone()).unwrap_or_default();
    let conf_dir = cni.and_then(|cni| cni.conf_dir.clone()).unwrap_or_else(|| DEFAULT_CONF_DIR.into());
    let socket = known.map_or(Path::new(dotfour_protocol::DEFAULT_SOCKET), |config| &config.socket);
    let lists = conflist::look(&conf_dir).map_err(|e| format!("{}: {e}", conf_dir.display()));
    Seen {
        daemon: client::status(socket).map_err(|e| with_source(&e)),
        plugins: names_used(lists.as_deref().unwrap_or_default())
            .into_iter()
            .map(|name| (name, look_at_plugin(&bin_dir.join(name), plugin)))
            .collect(),
        missing: reference::missing(&bin_dir),
        conflist: cni.map(|cni| cni.conflist.clone()).unwrap_or_default(),
        lists,
        forwarding: fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
            .map(|value| value.trim() != "0")
            .map_err(|e| e.to_string()),
        chains: forward_drop::find(),
        old_agent: old_agent::find(),
        kubernetes: kubernetes::look(),
        config,
        bin_dir,
        conf_dir,
    }
}

/// The same file that the daemon reads, which does not start without it.
fn read_config(path: Option<&Path>) -> Result<Config, String> {
    let path = path.unwrap_or(DEFAULT_PATH.as_ref());
    Config::load(path).map_err(|e| with_source(&e))
}

/// Under which names the runtime and other plugins look for ours. A node without a network configuration will get the daemon's.
fn names_used(lists: &[Found]) -> Vec<&'static str> {
    let has = |owner| lists.iter().any(|file| file.owner == owner);
    let delegates = has(Owner::Delegating);
    let used = [(PLUGIN, has(Owner::Ours) || !delegates), (DELEGATE, delegates)];
    used.into_iter().filter(|(_, is_used)| *is_used).map(|(name, _)| name).collect()
}

fn look_at_plugin(installed: &Path, shipped: Option<&Path>) -> Plugin {
    if !reference::is_program(installed) {
        return Plugin::Missing;
    }
    let compare = || -> Result<bool, String> {
        let shipped = shipped.map_or_else(shipped_plugin, |path| Ok(path.to_owned())).map_err(|e| with_source(&e))?;
        let read = |path: &Path| fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()));
        Ok(read(&shipped)? == read(installed)?)
    };
    match compare() {
        Ok(true) => Plugin::Same,
        Ok(false) => Plugin::Differs,
        Err(why) => Plugin::Unknown(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_is_looked_for_under_the_names_that_lists_use() {
        let used = |owners: &[Owner]| {
            let lists: Vec<Found> = owners.iter().map(|&owner| Found { name: "10-net.conf".into(), owner }).collect();
            names_used(&lists)
        };
        assert_eq!(used(&[]), ["dotfour"]);
        assert_eq!(used(&[Owner::Other, Owner::Multus]), ["dotfour"]);
        assert_eq!(used(&[Owner::Ours]), ["dotfour"]);
        assert_eq!(used(&[Owner::Delegating]), ["dotfour-ipam"]);
        assert_eq!(used(&[Owner::Delegating, Owner::Ours]), ["dotfour", "dotfour-ipam"]);
    }
}
