//! Many pods at once, with host ports, of a containerd that dies under them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use dotfour_datapath::Netns;
use dotfour_e2e::program::{self, Failure, Ground, shipped};
use dotfour_e2e::views::no_traces_left;
use dotfour_e2e::{Containerd, Dump, HostPort, Setup, transfer};
use dotfour_ipamd::client;
use dotfour_rig::probe::Pinger;
use dotfour_rig::{Node, NodeConfig, Vnet, VnetConfig};
use serde_json::json;

use crate::{CNI_VERSION, Outcome, TMPDIR, reference, stop};

/// The node's port of pod number 0; the others' follow.
const FIRST_PORT: u16 = 20_000;
/// The port of every pod.
const POD_PORT: u16 = 80;
const SOON: Duration = Duration::from_secs(5);
/// How long a port is tried that is to be closed.
const REFUSED_WITHIN: Duration = Duration::from_millis(300);
/// How long links may take to go after so many pods.
const BURIAL: Duration = Duration::from_secs(20);

/// A pod as its runtime tells it.
struct Pod {
    id: String,
    address: Ipv4Addr,
    netns: Netns,
    port: u16,
}

pub(crate) fn crowd(ground: &Ground, count: usize) -> Outcome {
    let place = ground.sandbox.place().within(&format!("crowd-{count}"))?;
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place })?;
    let node = vnet.add_node(&NodeConfig::new("node-1", count + 2))?;
    let other = vnet.add_node(&NodeConfig::new("node-2", 0))?;
    let mut config = program::daemon()?;
    config.max_pods = count + 2;
    let daemon = node.start_daemon(&config)?;
    let conflist = json!({ "cniVersion": CNI_VERSION, "name": "azure", "plugins": [
        { "type": "dotfour", "socket": daemon.socket() },
        { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
    ]});
    let name = format!("crowd-{count}");
    let setup = Setup {
        netns: node.netns(),
        plugins: &[&shipped("dotfour")?, &reference("portmap"), &reference("loopback")],
        conflist: &conflist.to_string(),
        name: &name,
        log: &Path::new(TMPDIR).join(format!("containerd-{name}.log")),
    };
    let scene = Scene { vnet: &vnet, node: &node, other: &other };
    let outcome = Containerd::start(ground, setup).map_err(Failure::from).and_then(|containerd| {
        // portmap never removes its chains for all pods, so they have to be there before.
        let warm = start(&containerd, usize::from(u8::MAX))?;
        remove(&containerd, &warm)?;
        scene.is_buried()?;
        scene.lives(containerd, count)
    });
    outcome.map_err(|e| format!("{e}\n  the daemon's log ends:\n{}", daemon.log_tail()))?;
    stop(daemon)
}

struct Scene<'a> {
    vnet: &'a Vnet,
    node: &'a Node,
    other: &'a Node,
}

impl Scene<'_> {
    fn lives(&self, mut containerd: Containerd, count: usize) -> Outcome {
        let before = Dump::of(self.node.netns())?;
        let numbers: Vec<usize> = (0..count).collect();
        let began = Instant::now();
        let pods = at_once(&numbers, |number| start(&containerd, *number))?;
        let (started, began) = (began.elapsed(), Instant::now());
        self.are_right(&containerd, &pods)?;
        let (looked, began) = (began.elapsed(), Instant::now());
        containerd.restart()?;
        let restarted = began.elapsed();
        // What was true before is true after: the new containerd has asked nobody to make the pods again.
        self.are_right(&containerd, &pods)?;
        let one_more = start(&containerd, count)?;
        assert!(pods.iter().all(|pod| pod.address != one_more.address), "{} was given twice", one_more.address);
        remove(&containerd, &one_more)?;

        let began = Instant::now();
        at_once(&pods, |pod| remove(&containerd, pod))?;
        let removed = began.elapsed();
        println!(
            "crowd: {count} pods started at once in {started:.2?}, looked at in {looked:.2?}, containerd killed and \
             ready again in {restarted:.2?}, all removed at once in {removed:.2?}"
        );
        assert_eq!(containerd.netns_names()?, Vec::<String>::new(), "namespaces are left");
        self.is_buried()?;
        let difference = before.difference(&Dump::of(self.node.netns())?);
        if !difference.is_empty() {
            return Err(format!("the pods left:\n  {}", difference.join("\n  ")).into());
        }
        let first = pods.first().ok_or("no pods")?;
        let closed = self.ask(first, REFUSED_WITHIN);
        // The node itself says so. A rule that is left would lead to nobody, who says nothing.
        let closed = closed.err().map(|e| e.kind());
        assert_eq!(closed, Some(ErrorKind::ConnectionRefused), "the port of a pod leads somewhere after its end");
        Ok(())
    }

    /// Every pod is up with an address of the NIC that no other has, as runtime and daemon say; it answers the other
    /// node by its address and by its node's port.
    fn are_right(&self, containerd: &Containerd, pods: &[Pod]) -> Outcome {
        let mut cri = containerd.cri()?;
        let on_nic = self.vnet.addresses(self.node)?;
        let secondaries = on_nic.get(1..).unwrap_or_default();
        let said = client::status(&dotfour_rig::daemon::socket_path(self.node))?;
        let leases: BTreeMap<&str, &[IpAddr]> = said
            .attachments
            .iter()
            .map(|lease| (lease.key.container_id.as_str(), lease.addresses.as_slice()))
            .collect();
        assert_eq!(leases.len(), pods.len(), "the daemon knows as many pods as there are");
        let mut seen = BTreeMap::new();
        let mut pinger = Pinger::open(self.other.netns())?;
        for pod in pods {
            let Pod { id, address, .. } = pod;
            let status = cri.pod_sandbox_status(id)?;
            assert!(status.ready && status.addresses == [IpAddr::V4(*address)], "{id} had {address}: {status:?}");
            assert!(secondaries.contains(address), "{address} is not one of {secondaries:?}");
            assert_eq!(leases.get(id.as_str()), Some(&[IpAddr::V4(*address)].as_slice()));
            assert_eq!(seen.insert(*address, id), None, "{address} was given twice");
            assert!(pinger.ping(*address, SOON)?.is_some(), "{address} does not answer the other node");
            let sent = self.ask(pod, SOON).map_err(|e| format!("port {} of the node: {e}", pod.port))?;
            assert_eq!(sent.seen, IpAddr::V4(self.other.address()), "the pod must see who asks");
        }
        Ok(())
    }

    /// Asks a pod by the node's port.
    fn ask(&self, pod: &Pod, patience: Duration) -> std::io::Result<transfer::Transfer> {
        let target = SocketAddr::from((self.node.address(), pod.port));
        transfer::send((self.other.netns(), target), (&pod.netns, POD_PORT), 1_000, patience)
    }

    fn is_buried(&self) -> Outcome {
        no_traces_left(BURIAL, self.vnet, self.node)
    }
}

fn start(containerd: &Containerd, number: usize) -> Result<Pod, Failure> {
    let mut cri = containerd.cri()?;
    let port = FIRST_PORT + u16::try_from(number)?;
    let mapping = HostPort { host: port, pod: POD_PORT };
    let name = format!("web-{number}");
    let id = cri.run_pod_sandbox_with_port("default", &name, &containerd.cgroup_parent(), Some(mapping))?;
    let status = cri.pod_sandbox_status(&id)?;
    let [IpAddr::V4(address)] = status.addresses[..] else {
        return Err(format!("one IPv4 address was expected: {status:?}").into());
    };
    let netns = containerd.open_netns(&status.netns.ok_or("the sandbox has no network namespace")?)?;
    Ok(Pod { id, address, netns, port })
}

/// Stops a pod twice and removes it, as a kubelet in doubt does.
fn remove(containerd: &Containerd, pod: &Pod) -> Outcome {
    let mut cri = containerd.cri()?;
    for _ in 0..2 {
        cri.stop_pod_sandbox(&pod.id)?;
    }
    Ok(cri.remove_pod_sandbox(&pod.id)?)
}

/// Does `work` for all items at once, each on a thread of its own.
fn at_once<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> Result<T, Failure> + Sync) -> Result<Vec<T>, Failure> {
    thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| work(item))).collect();
        let join =
            |thread: thread::ScopedJoinHandle<'_, _>| thread.join().unwrap_or_else(|_| Err("a caller panicked".into()));
        // All of them are waited for, also where one has failed.
        let outcomes: Vec<Result<T, Failure>> = threads.into_iter().map(join).collect();
        outcomes.into_iter().collect()
    })
}
