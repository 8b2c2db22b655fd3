//! Pods under a real containerd: it finds the plugin by its network configuration, hands it namespaces of its own making,
//! and believes its result.

// Clippy allows this in test functions only, not in what they share.
#![allow(clippy::panic)]

mod crowd;
mod published;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dotfour_datapath::{Netns, Socket};
use dotfour_e2e::program::{self, Failure, Ground, output, shipped};
use dotfour_e2e::{Containerd, Cri, Setup};
use dotfour_protocol::NodeStatus;
use dotfour_rig::probe::Pinger;
use dotfour_rig::{Daemon, NodeConfig, Vnet, VnetConfig};
use serde_json::json;

type Outcome = Result<(), Failure>;

/// Pods that are started at once.
const CROWD: usize = 50;
/// Pods of each other test: the least number in which a mix-up of two shows.
const PODS: usize = 3;
/// The latest that Debian 12's containerd (1.6) and reference plugins know.
const CNI_VERSION: &str = "1.0.0";
/// The build directory's place for tests. containerd's logs stay there, one per test.
const TMPDIR: &str = env!("CARGO_TARGET_TMPDIR");
/// How long links may take to go after the pods have, and a daemon to end.
const BURIAL: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    program::run(|ground| {
        let (dotfour, control, crowd, list) = (ground.clone(), ground.clone(), ground.clone(), ground.clone());
        vec![
            program::test("pods_of_a_real_runtime_get_addresses_of_the_nic_and_leave_nothing", move || pods(&dotfour)),
            program::test("the_same_steps_pass_with_the_reference_plugin", move || reference_plugin(&control)),
            program::test(
                "fifty_pods_started_at_once_with_host_ports_outlive_their_runtime_and_leave_nothing",
                move || crowd::crowd(&crowd, CROWD),
            ),
            program::test("the_runtime_takes_the_daemon_s_own_list_and_says_so", move || published::published(&list)),
        ]
    })
}

fn pods(ground: &Ground) -> Outcome {
    let vnet =
        Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: ground.sandbox.place().within("vnet")? })?;
    let node = vnet.add_node(&NodeConfig::new("node-1", 2 * PODS))?;
    let mut config = program::daemon()?;
    // No address may have done with its rest when they are counted.
    config.cooldown = Duration::from_secs(600);
    let daemon = node.start_daemon(&config)?;
    let conflist = json!({ "cniVersion": CNI_VERSION, "name": "azure", "plugins": [
        { "type": "dotfour", "socket": daemon.socket() },
        // Behind the CNI plugin of nearly every cluster. It reads our result, and returns it to the runtime.
        { "type": "portmap", "capabilities": { "portMappings": true } },
    ]});
    let setup = Setup {
        netns: node.netns(),
        plugins: &[&shipped("dotfour")?, &reference("portmap"), &reference("loopback")],
        conflist: &conflist.to_string(),
        name: "dotfour",
        log: &Path::new(TMPDIR).join("containerd-dotfour.log"),
    };
    let config = node.state_dir().join("ipamd.yaml");

    live(ground, setup, |pods| {
        let addresses = vnet.addresses(&node)?;
        let (_, secondaries) = addresses.split_first().ok_or("the NIC has no addresses")?;
        for pod in pods {
            assert!(secondaries.contains(&pod.address), "{} is not one of {secondaries:?}", pod.address);
        }
        // The daemon knows each by the id and the name that the runtime gave it.
        let known = status(&config)?.attachments;
        for Pod { id, name, address, .. } in pods {
            let attachment = known.iter().find(|attachment| &attachment.key.container_id == id);
            let attachment = attachment.ok_or_else(|| format!("the daemon does not know {id}: {known:?}"))?;
            assert_eq!(attachment.pod.as_ref().map(|pod| &pod.name), Some(name));
            assert_eq!(attachment.addresses, [IpAddr::V4(*address)]);
        }
        assert_eq!(known.len(), PODS);
        Ok(())
    })
    .map_err(|e| format!("{e}\n  the daemon's log ends:\n{}", daemon.log_tail()))?;

    let NodeStatus { attachments, pool, .. } = status(&config)?;
    assert_eq!((attachments.len(), pool.assigned, pool.cooling), (0, 0, PODS), "{pool:?}");
    stop(daemon)
}

/// The control: what fails here is not Dotfour's doing.
fn reference_plugin(ground: &Ground) -> Outcome {
    let subnet = "10.250.0.0/24";
    let conflist = json!({ "cniVersion": CNI_VERSION, "name": "control", "plugins": [
        { "type": "ptp", "ipam": { "type": "host-local", "subnet": subnet } },
    ]});
    let netns = Netns::create()?;
    let setup = Setup {
        netns: &netns,
        plugins: &[&reference("ptp"), &reference("host-local"), &reference("loopback")],
        conflist: &conflist.to_string(),
        name: "control",
        log: &Path::new(TMPDIR).join("containerd-control.log"),
    };
    live(ground, setup, |pods| {
        assert!(pods.iter().all(|pod| pod.address.octets().starts_with(&[10, 250, 0])));
        Ok(())
    })
}

/// A running pod.
struct Pod {
    id: String,
    name: String,
    address: Ipv4Addr,
    netns: Netns,
}

/// The life of some pods: they run, reach each other, are looked at, are removed, and leave the node as it was.
fn live(ground: &Ground, setup: Setup<'_>, look: impl FnOnce(&[Pod]) -> Outcome) -> Outcome {
    let netns = setup.netns;
    let before = Network::of(netns)?;
    let containerd = Containerd::start(ground, setup)?;
    let mut cri = containerd.cri()?;

    let pods = run(&containerd, &mut cri)?;
    assert_eq!(Network::of(netns)?.links.len(), before.links.len() + PODS, "each pod has one link on the node");
    for (from, to) in pods.iter().flat_map(|from| pods.iter().map(move |to| (from, to))) {
        let reply = Pinger::open(&from.netns)?.ping(to.address, Duration::from_secs(2))?;
        assert!(reply.is_some(), "{} does not reach {}", from.address, to.address);
    }
    look(&pods)?;
    remove(&containerd, &mut cri, &pods)?;

    // The pods' namespaces are still open here: it is DEL that must have taken the links away, not the namespaces' end.
    let deadline = Instant::now() + BURIAL;
    while Network::of(netns)? != before && Instant::now() < deadline {
        sleep(Duration::from_millis(10));
    }
    assert_eq!(Network::of(netns)?, before, "the node is not as it was before the pods");
    drop(pods);
    Ok(())
}

fn run(containerd: &Containerd, cri: &mut Cri) -> Result<Vec<Pod>, Failure> {
    let mut pods: Vec<Pod> = Vec::new();
    for name in (0..PODS).map(|number| format!("web-{number}")) {
        let id = cri.run_pod_sandbox("default", &name, &containerd.cgroup_parent())?;
        let status = cri.pod_sandbox_status(&id)?;
        assert!(status.ready, "{status:?}");
        let [IpAddr::V4(address)] = status.addresses[..] else { panic!("one IPv4 address was expected: {status:?}") };
        assert!(pods.iter().all(|pod| pod.address != address), "{address} was given twice");
        let netns = containerd.open_netns(&status.netns.ok_or("the sandbox has no network namespace")?)?;
        pods.push(Pod { id, name, address, netns });
    }
    Ok(pods)
}

/// Stops and removes all pods, each twice, as a kubelet in doubt does.
fn remove(containerd: &Containerd, cri: &mut Cri, pods: &[Pod]) -> Outcome {
    for Pod { id, .. } in pods {
        for _ in 0..2 {
            cri.stop_pod_sandbox(id)?;
        }
        assert!(!cri.pod_sandbox_status(id)?.ready);
        for _ in 0..2 {
            cri.remove_pod_sandbox(id)?;
        }
    }
    assert_eq!(containerd.netns_names()?, Vec::<String>::new(), "namespaces are left");
    Ok(())
}

/// What of a node's network pods change.
#[derive(Debug, PartialEq)]
struct Network {
    links: Vec<String>,
    routes: Vec<String>,
}

impl Network {
    fn of(netns: &Netns) -> Result<Self, Failure> {
        netns.run(|| {
            let links = Socket::open()?.links()?.into_iter().map(|link| link.name).collect();
            let routes = output(Command::new("ip").args(["route", "show", "table", "all"]))?;
            // The NIC's own link-local address comes a second or two after the NIC, whatever pods do (RFC 4862, 5.4).
            let link_local = |route: &str| route.contains("fe80:") || route.starts_with("multicast ff00:");
            let routes = routes.lines().filter(|route| !link_local(route)).map(str::to_owned).collect();
            Ok(Network { links, routes })
        })?
    }
}

/// What `dotfourctl` says about the daemon with this configuration.
fn status(config: &Path) -> Result<NodeStatus, Failure> {
    let mut dotfourctl = Command::new(shipped("dotfourctl")?);
    let said = output(dotfourctl.arg("--config").arg(config).args(["status", "-o", "json"]))?;
    Ok(serde_json::from_str(&said)?)
}

fn stop(daemon: Daemon) -> Outcome {
    let status = daemon.stop(BURIAL)?;
    assert!(status.success(), "the daemon ended with {status}");
    Ok(())
}

fn reference(plugin: &str) -> PathBuf {
    Path::new(program::REFERENCE_PLUGINS).join(plugin)
}
