//! Install, twenty pods, an upgrade and a downgrade under traffic, uninstall; and then nothing is left.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use dotfour_datapath::Netns;
use dotfour_e2e::Dump;
use dotfour_e2e::program::{self, Failure, Ground, shipped};
use dotfour_ipamd::client;
use dotfour_rig::probe::Mirror;
use dotfour_rig::{Node, NodeConfig, Vnet, VnetConfig};

use crate::machine::Machine;
use crate::traffic::{Tally, Traffic};
use crate::{Outcome, image, manifest};

/// Pods that live through it all.
const PODS: usize = 20;
/// Where the daemon listens, by its own default, which the manifests leave as it is.
const SOCKET: &str = "/run/dotfour/ipamd.sock";
const BURIAL: Duration = Duration::from_secs(10);
/// The releases' images.
const NEW: &str = "localhost/dotfour:n";
const OLD: &str = "localhost/dotfour:n-1";

/// A pod of the node.
struct Pod {
    id: String,
    address: Ipv4Addr,
    mirror: Mirror,
    netns: Netns,
}

pub(crate) fn life(ground: &Ground) -> Outcome {
    let vnet = Vnet::build(VnetConfig {
        subnet: "10.240.0.0/16".parse()?,
        place: ground.sandbox.place().within("daemonset")?,
    })?;
    let node = vnet.add_node(&NodeConfig::new("node-1", 30))?;
    let other = vnet.add_node(&NodeConfig::new("node-2", 0))?;
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join("containerd-daemonset.log");
    let mut machine = Machine::start(ground, &node, &log)?;
    images(&machine, ground)?;
    // As on a node that nobody has prepared: what the daemon writes through its mount is put back in the end.
    set_forwarding(&node, "0")?;
    let before = Dump::of(node.netns())?;
    let set = manifest::daemon_set("base/daemonset.yaml")?;

    say("install: the pod of the DaemonSet, release N-1");
    let (mut daemon, took) = machine.run(&set, OLD, false)?;
    print!("{}{}", machine.log(&daemon, "install"), machine.log(&daemon, "ipamd"));
    say(&format!("its startup probe succeeds after {took:.0?}; the node has:"));
    is_bounded()?;
    assert_eq!(forwarding(&node)?, "1", "the sysctl was not written through the mount");
    await_network(&mut machine)?;
    for (directory, expected) in [
        (machine.containerd.bin_dir(), vec!["dotfour", "dotfour-ipam", "loopback", "portmap"]),
        (machine.containerd.conf_dir(), vec!["10-dotfour.conflist"]),
    ] {
        let names = names(&directory)?;
        println!("    {}", names.join(" "));
        assert_eq!(names, expected);
    }
    // containerd's portmap makes its chains once and for ever, for a host port only: none is used here.
    let begun = Instant::now();
    let pods = (0..PODS).map(|number| start(&mut machine, number)).collect::<Result<Vec<_>, _>>();
    let mut pods = pods.map_err(|e| format!("{e}\n{}", machine.log(&daemon, "ipamd")))?;
    let addresses: Vec<String> = pods.iter().map(|pod| pod.address.to_string()).collect();
    say(&format!("{PODS} pods after {:.1?}: {}", begun.elapsed(), addresses.join(" ")));

    for (what, release) in [("upgrade to N", NEW), ("downgrade to N-1", OLD), ("upgrade to N", NEW)] {
        let targets: Vec<_> = pods.iter().map(|pod| (pod.address, pod.mirror.port())).collect();
        let (first, others) = pods.first().zip(targets.get(1..)).ok_or("no pods")?;
        let (near, far) = (Traffic::start(&first.netns, others)?, Traffic::start(other.netns(), &targets)?);
        let ended = machine.end(&daemon)?;
        // The node is not unready for it, for the runtime still has its network.
        assert_eq!(machine.cri.unready()?, Vec::<String>::new(), "{what}: the node flaps");
        assert_eq!(names(&machine.containerd.conf_dir())?, ["10-dotfour.conflist"], "SIGTERM removes nothing");
        let (next, took) = machine.run(&set, release, false)?;
        daemon = next;
        let (near, far) = (near.end()?, far.end()?);
        print!("{}", machine.log(&daemon, "install"));
        say(&format!("{what}: old one ended in {ended:.0?}, new one serves after {took:.0?}; packets:"));
        for (who, tally) in [("pod to pods", near), ("node-2 to pods", far)] {
            println!("    {who}: {tally}");
            lossless(what, &tally)?;
        }
        let shipped = fs::read(shipped("dotfour")?)?;
        let installed = fs::read(machine.containerd.bin_dir().join("dotfour"))?;
        assert_eq!(installed == shipped, release == NEW, "{what}: the plugin of the other release is installed");
        // Pods of before are known, one of them ends under this release, and a new one starts.
        assert_eq!(client::status(Path::new(SOCKET))?.attachments.len(), PODS);
        let ending = pods.remove(1);
        end(&mut machine, ending)?;
        let number = 100 + pods.iter().map(|pod| usize::from(pod.address.octets()[3])).sum::<usize>();
        pods.push(start(&mut machine, number)?);
    }

    say("uninstall: refused while pods are wired");
    machine.end(&daemon)?;
    let uninstall = manifest::daemon_set("uninstall/daemonset.yaml")?;
    let refused = machine.run(&uninstall, NEW, true).map(drop).map_err(|e| e.to_string());
    assert!(matches!(&refused, Err(said) if said.contains("20 pods are wired")), "{refused:?}");
    say("drain, with the daemon, then uninstall");
    let (daemon, _) = machine.run(&set, NEW, false)?;
    for pod in pods {
        end(&mut machine, pod)?;
    }
    machine.end(&daemon)?;
    let (removed, took) = machine.run(&uninstall, NEW, true)?;
    print!("{}", machine.log(&removed, "uninstall"));
    machine.end(&removed)?;

    assert_eq!(
        names(&machine.containerd.bin_dir())?,
        ["loopback", "portmap"],
        "others' plugins stay, and nothing else"
    );
    assert_eq!(names(&machine.containerd.conf_dir())?, Vec::<String>::new());
    assert!(!Path::new("/run/dotfour").exists(), "{:?}", names(Path::new("/run/dotfour")));
    assert_eq!(forwarding(&node)?, "0", "the sysctl is as before");
    // The last links are on their way out.
    let deadline = Instant::now() + BURIAL;
    let mut difference = before.difference(&Dump::of(node.netns())?);
    while !difference.is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
        difference = before.difference(&Dump::of(node.netns())?);
    }
    assert_eq!(difference, Vec::<String>::new(), "the node's network is not as before");
    say(&format!("after {took:.0?} nothing is left: files, state, links, routes, rules and settings are as before"));
    Ok(())
}

fn images(machine: &Machine<'_>, ground: &Ground) -> Outcome {
    let directory = ground.sandbox.place().within("daemonset-images")?.state_dir().to_owned();
    let earlier = directory.join("earlier");
    image::earlier_programs(&earlier)?;
    for (name, programs) in [(NEW, program::plugin_directory()?), (OLD, earlier)] {
        let archive = directory.join("image.tar");
        image::make(&programs, &archive, name)?;
        machine.containerd.import(&archive)?;
    }
    Ok(())
}

/// Exactly the capabilities that the manifest asks for, no more to be had, and a filter on system calls.
fn is_bounded() -> Outcome {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if status.starts_with("Name:\tdotfour-ipamd\n") {
            found.push(status);
        }
    }
    let [status] = &found[..] else { return Err(format!("{} daemons run", found.len()).into()) };
    // CAP_NET_ADMIN is 12 and CAP_SYS_ADMIN 21, by linux/capability.h.
    let mask = format!("{:016x}", 1_u64 << 12 | 1 << 21);
    for line in [
        format!("CapEff:\t{mask}"),
        format!("CapBnd:\t{mask}"),
        "NoNewPrivs:\t1".into(),
        // A filter.
        "Seccomp:\t2".into(),
    ] {
        assert!(status.contains(&line), "{line} is not in\n{status}");
    }
    Ok(())
}

/// Waits until the runtime has taken the list that the daemon wrote.
fn await_network(machine: &mut Machine<'_>) -> Outcome {
    let begun = Instant::now();
    while !machine.cri.unready()?.is_empty() {
        if begun.elapsed() > BURIAL {
            return Err("containerd does not take the network configuration".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn start(machine: &mut Machine<'_>, number: usize) -> Result<Pod, Failure> {
    let parent = machine.containerd.cgroup_parent();
    let id = machine.cri.run_pod_sandbox("default", &format!("web-{number}"), &parent)?;
    let status = machine.cri.pod_sandbox_status(&id)?;
    let [IpAddr::V4(address)] = status.addresses[..] else { return Err(format!("no IPv4 address: {status:?}").into()) };
    let netns = machine.containerd.open_netns(&status.netns.ok_or("the sandbox has no network namespace")?)?;
    let mirror = Mirror::start(&netns)?;
    Ok(Pod { id, address, mirror, netns })
}

fn end(machine: &mut Machine<'_>, pod: Pod) -> Outcome {
    let Pod { id, mirror, netns, .. } = pod;
    // A mirror is ended by a packet over the pod's loopback link, which the runtime sets down.
    drop(mirror);
    machine.cri.stop_pod_sandbox(&id)?;
    machine.cri.remove_pod_sandbox(&id)?;
    drop(netns);
    Ok(())
}

fn lossless(what: &str, tally: &Tally) -> Outcome {
    assert!(tally.sent > PODS * 10, "{what}: too little traffic to tell: {tally:?}");
    if tally.answered == tally.sent { Ok(()) } else { Err(format!("{what}: packets were lost: {tally:?}").into()) }
}

fn names(directory: &Path) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, Failure>>()?;
    names.sort();
    Ok(names)
}

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

fn forwarding(node: &Node) -> Result<String, Failure> {
    Ok(node.netns().run(|| fs::read_to_string(FORWARDING))??.trim().to_owned())
}

fn set_forwarding(node: &Node, value: &str) -> Outcome {
    Ok(node.netns().run(|| fs::write(FORWARDING, value))??)
}

fn say(sentence: &str) {
    println!("== {sentence}");
}
