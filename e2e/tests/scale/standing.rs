//! What a full node's daemon costs while it stands there, and what happens when it is replaced: how much memory it has, how
//! soon the next one serves, and whether pods notice.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dotfour_e2e::program::{self, Failure};
use dotfour_ipamd::client;
use dotfour_rig::probe::Pinger;
use dotfour_rig::{Daemon, Node, NodeConfig, Place, Pod, Runtime};

use crate::figures::in_words;
use crate::stage::{Outcome, all, vnet};

/// Pods on a full node, which is nearly what Azure lets a NIC have.
const PODS: usize = 250;
/// Networks that are not masqueraded.
const CIDRS: u32 = 100;
/// What any daemon has resident, in KiB. Below that, it is not the daemon that was looked at.
const LEAST: u64 = 2 * 1024;
/// Callers that add at once.
const CALLERS: usize = 4;
/// Pods that are pinged while daemons come and go.
const PINGED: usize = 16;
/// A question that has no answer by then is lost: nothing here keeps a packet for later.
const LOST: Duration = Duration::from_secs(1);
/// How long a daemon may take until it answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the daemon is replaced, and what it may have resident, in KiB.
pub(crate) struct Standing {
    pub(crate) restarts: usize,
    pub(crate) memory: u64,
}

pub(crate) fn is_cheap(place: &Place, standing: &Standing) -> Outcome {
    let vnet = vnet(place, "standing")?;
    let node = vnet.add_node(&NodeConfig::new("node-1", 0))?;
    let mut config = program::daemon()?;
    config.source = format!("kind: static\nsubnet: {}\naddresses: [10.240.1.1-10.240.1.250]\n", vnet.subnet());
    let cidrs: Vec<String> = (0..CIDRS).map(|number| format!("172.16.{number}.0/24")).collect();
    config.more = format!("masquerade: {{vnetCidrs: [{}], clusterCidrs: [{}]}}\n", vnet.subnet(), cidrs.join(", "));
    let mut daemon = node.start_daemon(&config)?;
    let network = program::network(&node)?;
    let runtime = Runtime::new(&node, &network);
    let pods: Vec<Pod> = (0..PODS)
        .map(|number| Ok(Pod::create(&node, "default", &format!("pod-{number}"))?))
        .collect::<Result<_, Failure>>()?;
    let answers = all(runtime.in_parallel(CALLERS, &pods, |calls, pod| calls.add(pod))?)?;
    let addresses: Vec<Ipv4Addr> =
        answers.iter().take(PINGED).map(|answer| answer.ipv4().ok_or("no address")).collect::<Result<_, _>>()?;
    standing.is_kept(&daemon, "after 250 ADDs")?;

    let mut again = Vec::new();
    let over = AtomicBool::new(false);
    let (sent, lost) = thread::scope(|scope| -> Result<(usize, usize), Failure> {
        let pinging = scope.spawn(|| ping(&node, &addresses, &over));
        // Whatever happens here, the other thread must end.
        let replaced = (|| -> Result<Daemon, Failure> {
            for _ in 0..standing.restarts {
                daemon.kill();
                let begun = Instant::now();
                daemon = node.start_daemon(&config)?;
                until_answered(&daemon)?;
                again.push(begun.elapsed());
            }
            Ok(daemon)
        })();
        over.store(true, Ordering::Relaxed);
        let pinged = pinging.join().map_err(|_| "the pinging thread panicked")?;
        standing.is_kept(&replaced?, "after a restart under 250 pods")?;
        pinged
    })?;
    println!("  serving again after a kill: {}", in_words(&again));
    println!("  packets to {PINGED} of the pods meanwhile: {sent}, lost {lost}");
    if lost > 0 || sent < PINGED * standing.restarts {
        return Err(format!("{lost} of {sent} packets were lost").into());
    }
    Ok(())
}

/// Waits until the daemon answers. That somebody takes its connections is not enough: a child of the killed one, about to
/// become another program, has its socket a moment longer.
fn until_answered(daemon: &Daemon) -> Outcome {
    let begun = Instant::now();
    while let Err(e) = client::ready(daemon.socket()) {
        if begun.elapsed() > PATIENCE {
            return Err(format!("no answer after {PATIENCE:?}: {e}").into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// How many questions were sent, and how many had no answer.
fn ping(node: &Node, addresses: &[Ipv4Addr], over: &AtomicBool) -> Result<(usize, usize), Failure> {
    let mut pinger = Pinger::open(node.netns())?;
    let (mut sent, mut lost) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        for address in addresses {
            sent += 1;
            if pinger.ping(IpAddr::V4(*address), LOST)?.is_none() {
                lost += 1;
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok((sent, lost))
}

impl Standing {
    fn is_kept(&self, daemon: &Daemon, when: &str) -> Outcome {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
        let resident = |line: &str| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok();
        let resident = status.lines().find_map(resident).ok_or("no VmRSS in the daemon's status")?;
        println!("  resident {when}: {resident} KiB, at most {}", self.memory);
        if !(LEAST..=self.memory).contains(&resident) {
            return Err(format!("the daemon has {resident} KiB {when}, and may have {}", self.memory).into());
        }
        Ok(())
    }
}
