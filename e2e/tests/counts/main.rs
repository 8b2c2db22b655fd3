//! What one ADD and one DEL ask of the kernel and of the allocator. These are counts, the same on every machine, so that a
//! change that costs something is seen at once: a test fails if a count is over its bound.
//!
//! **The bounds are what there is today. Whoever lowers a count lowers its bound; whoever has to raise one says why.**

mod allocations;
mod faults;
mod trace;

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use dotfour_datapath::link::{VethEnd, VethPair};
use dotfour_datapath::{Batch, Netns, Socket};
use dotfour_e2e::program::{self, Failure, shipped};
use dotfour_rig::runtime::Verb;
use dotfour_rig::{Daemon, Network, Node, NodeConfig, Place, Pod, Runtime, Vnet, VnetConfig};

use crate::trace::{RAW, Seen, Strace, forbidden, served};

/// System calls of the plugin, after its execve: what an ADD asks (`cni-plugin/src/lib.rs` lists it), and what a DEL does.
const PLUGIN_ADD: usize = 13;
const PLUGIN_DEL: usize = 11;
/// Page faults of the plugin's process, from its making on: two of what its maker and the kernel write for it, then the first touch of
/// its code, which brings all that a usual call runs through (`program.ld`), of its heap, and of its stack. Where the stack begins
/// is drawn by lot, so there may be one or two more, and the least of all calls counts. It is five today; one more is for compilers
/// that give functions other names.
const PLUGIN_FAULTS: u64 = 6;
/// System calls of the daemon's thread that serves the call, from taking it to being ready for the next. Two come on top where
/// the message comes after the accept, and one where nothing was left of the call before, so that the timer has to be set.
const DAEMON_ADD: usize = 16;
const DAEMON_DEL: usize = 11;
/// Requests to the kernel over netlink among these. One of an ADD's spares more than it costs: a pod without IPv6 addresses is to
/// get none from the kernel.
const NETLINK_ADD: usize = 11;
const NETLINK_DEL: usize = 2;
/// Allocations of one ADD outside its wiring: its message read, an address assigned and recorded, the answer written.
const ALLOCATIONS_ADD: u64 = 16;

/// Calls that are traced. Most cost the same; one now and then meets an allocator that asks the kernel for more, or another
/// thread that holds a lock, so what counts is the median.
const CALLS: usize = 15;
/// Calls before these, after which every thread of the daemon has served and has what it keeps.
const EARLIER: usize = 24;

type Outcome = Result<(), Failure>;

fn main() -> ExitCode {
    program::run_in_sandbox(|sandbox| {
        let (plugin, faults, daemon, beside) = (sandbox.place(), sandbox.place(), sandbox.place(), sandbox.place());
        vec![
            program::test(
                "the_plugin_makes_no_more_system_calls_than_its_bounds_and_locks_and_starts_nothing",
                move || plugin_calls(&plugin),
            ),
            program::test("the_plugin_takes_no_more_page_faults_than_its_bound", move || plugin_faults(&faults)),
            program::test(
                "the_daemon_makes_no_more_system_calls_than_its_bounds_and_none_that_scans_or_starts_anything",
                move || daemon_calls(&daemon),
            ),
            program::test(
                "an_add_in_a_namespace_that_knows_another_one_looks_at_its_host_link_from_the_node",
                move || daemon_calls_beside_others(&beside),
            ),
            program::test("a_list_of_any_subsystem_and_a_lock_are_known_when_they_are_seen", || {
                trace::knows_what_is_forbidden()
            }),
            program::test("an_add_allocates_no_more_often_than_its_bound", || {
                let count = allocations::of_add()?;
                within("allocations of ADD outside its wiring", count, ALLOCATIONS_ADD, &"")
            }),
        ]
    })
}

fn plugin_calls(place: &Place) -> Outcome {
    let stage = Stage::set(place, "plugin")?;
    let traced = stage.traced_network()?;
    let runtime = Runtime::new(&stage.node, &traced);
    let (mut adds, mut dels) = (Vec::new(), Vec::new());
    for number in 0..CALLS {
        let pod = stage.pod(number)?;
        let answer = runtime.add(&pod)?;
        adds.push(Seen::read(&stage.trace("ADD", &pod))?);
        runtime.del(&pod, Some(&answer.result))?;
        dels.push(Seen::read(&stage.trace("DEL", &pod))?);
    }
    for (what, seen, bound) in [("plugin's ADD", adds, PLUGIN_ADD), ("plugin's DEL", dels, PLUGIN_DEL)] {
        none_of(seen.iter().flat_map(Seen::forbidden).collect())?;
        // What made the process is the runtime's call, and the first in its trace.
        let seen = median(seen);
        within(&format!("system calls of the {what}"), seen.calls.len() - 1, bound, &seen)?;
    }
    Ok(())
}

fn plugin_faults(place: &Place) -> Outcome {
    let stage = Stage::set(place, "faults")?;
    let runtime = Runtime::new(&stage.node, &stage.network);
    let (mut adds, mut dels) = (Vec::new(), Vec::new());
    for number in 0..CALLS + EARLIER {
        let pod = stage.pod(number)?;
        let add = runtime.enter(|calls| calls.start(Verb::Add, &pod, None))??;
        adds.push(faults::of(&add)?);
        let answer = add.finish()?;
        let del = runtime.enter(|calls| calls.start(Verb::Del, &pod, Some(&answer.result)))??;
        dels.push(faults::of(&del)?);
        del.finish()?;
    }
    for (what, faults) in [("ADD", adds), ("DEL", dels)] {
        let least = faults.iter().min().copied().unwrap_or_default();
        within(&format!("page faults of the plugin's {what}"), least, PLUGIN_FAULTS, &format!("{faults:?}"))?;
    }
    Ok(())
}

fn daemon_calls(place: &Place) -> Outcome {
    let stage = Stage::set(place, "daemon")?;
    let runtime = Runtime::new(&stage.node, &stage.network);
    for number in 0..EARLIER {
        let pod = stage.pod(number)?;
        runtime.add(&pod)?;
        runtime.del(&pod, None)?;
    }
    let pods = stage.pods()?;
    let adds = stage.traced("adds", &pods, |pod| Ok(runtime.add(pod).map(|_| ())?))?;
    let dels = stage.traced("dels", &pods, |pod| Ok(runtime.del(pod, None).map(|_| ())?))?;
    for (what, seen, calls, messages) in
        [("ADD", adds, DAEMON_ADD, NETLINK_ADD), ("DEL", dels, DAEMON_DEL, NETLINK_DEL)]
    {
        let seen = median(seen);
        within(&format!("system calls of the daemon's {what}"), seen.calls.len(), calls, &seen)?;
        let requests = seen.netlink_requests();
        if requests == 0 {
            return Err(format!("no netlink request is in the trace of {what}: {:#?}", seen.calls).into());
        }
        within(&format!("netlink requests of the daemon's {what}"), requests, messages, &"")?;
    }
    Ok(())
}

/// In a pod's namespace that knows another one before the node's, the look at the host link from inside leads elsewhere: it is taken
/// from the node then, which is one request more, and not left out.
fn daemon_calls_beside_others(place: &Place) -> Outcome {
    let stage = Stage::set(place, "beside")?;
    let runtime = Runtime::new(&stage.node, &stage.network);
    let other = Netns::create()?;
    let adds = stage.traced("adds", &stage.pods()?, |pod| {
        let linked = pod.netns().run(|| {
            let near = VethEnd { name: "other", mac: None, index: None };
            let mut batch = Batch::new();
            let far = VethEnd { name: pod.container_id.get(..8).unwrap_or_default(), ..near };
            let far_netns = Some(other.as_fd());
            batch.create_veth("make a link to elsewhere", &VethPair { near, far, far_netns, mtu: 1500 });
            Socket::open()?.run(batch).map_err(io::Error::other)
        });
        linked??;
        Ok(runtime.add(pod).map(|_| ())?)
    })?;
    let requests = median(adds).netlink_requests();
    println!("  netlink requests of an ADD in a namespace that knows another one: {requests}");
    if requests == NETLINK_ADD + 1 { Ok(()) } else { Err(format!("{requests} netlink requests").into()) }
}

/// A node with a daemon.
struct Stage {
    _vnet: Vnet,
    daemon: Daemon,
    network: Network,
    node: Node,
}

impl Stage {
    fn set(place: &Place, test: &str) -> Result<Self, Failure> {
        let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.within(test)? })?;
        let node = vnet.add_node(&NodeConfig::new("node-1", CALLS + EARLIER))?;
        let mut config = program::daemon()?;
        config.cooldown = Duration::from_millis(100);
        // Its look at source and node does list what the kernel has, and comes in nobody's call.
        config.source.push_str("refresh: 1h\n");
        let daemon = node.start_daemon(&config)?;
        let network = program::network(&node)?;
        Ok(Stage { _vnet: vnet, daemon, network, node })
    }

    /// What the daemon's threads ask of the kernel while something is done with each of [`CALLS`] pods.
    fn traced(&self, file: &str, pods: &[Pod], work: impl Fn(&Pod) -> Outcome) -> Result<Vec<Seen>, Failure> {
        let strace = Strace::attach(self.daemon.pid(), &self.node.state_dir().join(file))?;
        pods.iter().try_for_each(work)?;
        let lines = strace.finish()?;
        none_of(forbidden(&lines))?;
        let served = served(&lines);
        if served.len() == CALLS { Ok(served) } else { Err(format!("{} calls are in {file}", served.len()).into()) }
    }

    fn pods(&self) -> Result<Vec<Pod>, Failure> {
        (0..CALLS).map(|number| self.pod(number)).collect()
    }

    fn pod(&self, number: usize) -> Result<Pod, Failure> {
        Ok(Pod::create(&self.node, "default", &format!("web-6d4cf56db6-{number}"))?)
    }

    /// The same network, with strace between runtime and plugin.
    fn traced_network(&self) -> Result<Network, Failure> {
        let traced = self.node.state_dir().join("dotfour");
        let file = self.node.state_dir().join("trace.$CNI_COMMAND.$CNI_CONTAINERID");
        let plugin = shipped("dotfour")?;
        let script = format!("#!/bin/sh\nexec strace {RAW} -o \"{}\" \"{}\"\n", file.display(), plugin.display());
        program::write_script(&traced, &script)?;
        Ok(Network::dotfour(self.node.state_dir(), self.daemon.socket()))
    }

    fn trace(&self, verb: &str, pod: &Pod) -> std::path::PathBuf {
        self.node.state_dir().join(format!("trace.{verb}.{}", pod.container_id))
    }
}

/// The one in the middle, by the number of calls.
fn median(mut all: Vec<Seen>) -> Seen {
    all.sort_by_key(|seen| seen.calls.len());
    all.swap_remove(all.len() / 2)
}

/// Fails if there are calls that are not for the path of a pod.
fn none_of(forbidden: Vec<&str>) -> Outcome {
    if forbidden.is_empty() {
        return Ok(());
    }
    let (count, some) = (forbidden.len(), forbidden.get(..3).unwrap_or(&forbidden));
    Err(format!("{count} calls are not for the path of a pod:\n  {}", some.join("\n  ")).into())
}

/// Prints a count, and fails if it is over its bound.
fn within<N: PartialOrd + std::fmt::Display>(
    what: &str,
    count: N,
    bound: N,
    detail: &dyn std::fmt::Display,
) -> Outcome {
    println!("  {what}: {count}, at most {bound}; {detail}");
    if count <= bound { Ok(()) } else { Err(format!("{what}: {count}, more than {bound}; {detail}").into()) }
}
