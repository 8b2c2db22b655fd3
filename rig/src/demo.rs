//! `dotfour-rig demo`: the whole path, from a runtime's call to pods that talk, on one page of output.

mod checks;
mod report;
mod stats;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;

use self::checks::{NodeState, Talk};
use crate::daemon::{DaemonError, socket_path};
use crate::error::with_causes;
use crate::runtime::CallError;
use crate::{Daemon, DaemonConfig, Network, Node, NodeConfig, Place, Pod, RigError, Runtime, Vnet, VnetConfig};

/// Pod addresses of each node: Azure CNI's default of pods per node.
const PODS_PER_NODE: usize = 30;
/// How long a daemon has to end.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// What the demo runs.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Pods in all, spread evenly.
    pub pods: usize,
    /// Nodes.
    pub nodes: usize,
    /// Where `dotfour-ipamd` is.
    pub bin_dir: PathBuf,
    /// Where the plugin, `dotfour`, is.
    pub plugin_dir: PathBuf,
}

impl Default for DemoOptions {
    /// 20 pods on two nodes, with the programs beside this one.
    fn default() -> Self {
        let here = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)).unwrap_or_default();
        DemoOptions { pods: 20, nodes: 2, plugin_dir: here.clone(), bin_dir: here }
    }
}

/// What went wrong, with the end of the daemon's log where it may help.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A program is missing.
    #[error("{} is not there; `make build` makes it, --bin-dir and --plugin-dir say where to look", .0.display())]
    NotBuilt(PathBuf),
    /// The numbers do not fit.
    #[error("{pods} pods do not fit on {nodes} nodes with {PODS_PER_NODE} pod addresses each")]
    TooManyPods {
        /// Pods asked for.
        pods: usize,
        /// Nodes asked for.
        nodes: usize,
    },
    /// The VNet cannot be built.
    #[error(transparent)]
    Rig(#[from] RigError),
    /// A daemon does not run as it should.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A call to the plugin failed.
    #[error("pod {pod} on {node}: {failure}\nthe daemon's log ends with\n{log}")]
    Call {
        /// Which pod.
        pod: String,
        /// On which node.
        node: String,
        /// What the plugin said. Part of the message, which goes on behind it.
        failure: String,
        /// The end of the daemon's log.
        log: String,
    },
    /// A packet cannot be sent or received at all.
    #[error("cannot probe the network")]
    Probe(#[from] io::Error),
    /// Everything ran, but something is not as it must be.
    #[error("this is not as it must be:\n{findings}\n{logs}")]
    Wrong {
        /// One line each.
        findings: String,
        /// The ends of the daemons' logs.
        logs: String,
    },
    /// The plugin's answer to an ADD has no address.
    #[error("the ADD of {0} named no address")]
    NoAddress(String),
}

/// A node with what runs on it.
struct Host<'a> {
    node: &'a Node,
    daemon: Daemon,
    network: Network,
    before: NodeState,
}

/// A pod that has been added.
struct Wired<'a> {
    host: &'a Host<'a>,
    pod: Pod,
    address: std::net::Ipv4Addr,
    result: Value,
}

/// Builds the VNet, runs the pods, prints the page, tears down.
///
/// # Errors
/// The first thing that failed, or all that is not as it must be.
pub fn run(place: Place, options: &DemoOptions) -> Result<ExitCode, DemoError> {
    let started = Instant::now();
    let plugin = options.plugin_dir.join("dotfour");
    let ipamd = options.bin_dir.join("dotfour-ipamd");
    if let Some(missing) = [&plugin, &ipamd].into_iter().find(|program| !program.is_file()) {
        return Err(DemoError::NotBuilt(missing.clone()));
    }
    if options.pods > options.nodes.saturating_mul(PODS_PER_NODE) || options.pods == 0 {
        return Err(DemoError::TooManyPods { pods: options.pods, nodes: options.nodes });
    }

    let subnet = ipnet::Ipv4Net::new_assert([10, 240, 0, 0].into(), 16);
    let vnet = Vnet::build(VnetConfig { subnet: subnet.into(), place })?;
    let nodes = (1..=options.nodes)
        .map(|number| vnet.add_node(&NodeConfig::new(format!("node-{number}"), PODS_PER_NODE)))
        .collect::<Result<Vec<_>, _>>()?;
    let hosts = nodes.iter().map(|node| start(node, &ipamd, &options.plugin_dir)).collect::<Result<Vec<_>, _>>()?;

    let (wired, add_times) = add_pods(&hosts, options.pods)?;
    report::topology(&vnet, &hosts, &wired, &plugin)?;
    let talk = Talk::between(&wired)?;
    report::talk(&talk);
    let refused = checks::what_azure_refuses(&vnet, &nodes)?;
    report::refusals(&refused);
    let del_times = delete_pods(wired)?;
    report::costs(&[("ADD", add_times), ("DEL", del_times)]);

    let mut wrong = talk.wrong();
    wrong.extend(refused.wrong());
    let mut left = Vec::new();
    let mut logs = String::new();
    for host in hosts {
        left.push(checks::what_is_left(host.node, &host.before)?);
        logs.push_str(&format!(
            "the log of the daemon on {} ends with\n{}\n",
            host.node.name(),
            host.daemon.log_tail()
        ));
        host.daemon.stop(STOP_WITHIN)?;
    }
    wrong.extend(left.iter().flat_map(checks::Left::wrong));
    report::left(&left);
    drop(nodes);
    drop(vnet);
    report::end(started.elapsed());
    if wrong.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let findings: String = wrong.iter().map(|line| format!("  - {line}\n")).collect();
    Err(DemoError::Wrong { findings, logs })
}

fn start<'a>(node: &'a Node, ipamd: &Path, plugin_dir: &Path) -> Result<Host<'a>, DemoError> {
    let before = NodeState::of(node)?;
    let daemon = node.start_daemon(&DaemonConfig::new(ipamd))?;
    Ok(Host { node, daemon, network: Network::dotfour(plugin_dir, &socket_path(node)), before })
}

/// Adds pods one after the other, node by node in turn.
fn add_pods<'a>(hosts: &'a [Host<'a>], count: usize) -> Result<(Vec<Wired<'a>>, Vec<Duration>), DemoError> {
    let mut wired = Vec::with_capacity(count);
    let mut times = Vec::with_capacity(count);
    for (number, host) in (1..=count).zip(hosts.iter().cycle()) {
        let pod = Pod::create(host.node, "default", &format!("web-{number}"))?;
        let answer = Runtime::new(host.node, &host.network).add(&pod).map_err(|e| host.failed(&pod, e))?;
        let address = answer.ipv4().ok_or_else(|| DemoError::NoAddress(pod.name.clone()))?;
        times.push(answer.took);
        wired.push(Wired { host, pod, address, result: answer.result });
    }
    Ok((wired, times))
}

fn delete_pods(wired: Vec<Wired<'_>>) -> Result<Vec<Duration>, DemoError> {
    let mut times = Vec::with_capacity(wired.len());
    for Wired { host, pod, result, .. } in wired {
        let runtime = Runtime::new(host.node, &host.network);
        times.push(runtime.del(&pod, Some(&result)).map_err(|e| host.failed(&pod, e))?.took);
    }
    Ok(times)
}

impl Host<'_> {
    fn failed(&self, pod: &Pod, source: CallError) -> DemoError {
        let (pod, node) = (pod.name.clone(), self.node.name().to_owned());
        DemoError::Call { pod, node, failure: with_causes(&source), log: self.daemon.log_tail() }
    }
}
