//! The first packet after ADD's answer, from the node to the pod or from the pod by way of its gateway to another pod;
//! by IPv4, or by IPv6 where pods have both.
//!
//! It is an echo request, so its answer has to arrive as well. The socket that sends it is there before the ADD, so that
//! nothing lies between answer and packet but the end of the plugin's process.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use dotfour_e2e::program::Failure;
use dotfour_rig::probe::Pinger;
use dotfour_rig::runtime::{Answer, Calls};
use dotfour_rig::{Place, Pod};

use crate::figures::{in_words, percentile};
use crate::stage::{End, Host, Outcome, ROUNDS, dual_stack_vnet, vnet};

/// Sandboxes that are there at the same time.
const WAVE: usize = 50;
/// Callers that add and send, on a busy node.
const CALLERS: usize = 4;
/// Callers that add and delete beside them.
const OTHERS: usize = 4;
/// What has not come back by then is lost: nothing here keeps a packet for later.
const LOST: Duration = Duration::from_secs(1);

/// Which family first packets are of, how many there are, each way, on an idle and on a busy node; and how long one may take
/// there and back, at p99 of one round of [`ROUNDS`] at least.
pub(crate) struct FirstPackets {
    pub(crate) family: Family,
    pub(crate) pods: usize,
    pub(crate) p99: Duration,
}

/// The family of a packet. A pod that has IPv6 has IPv4 as well.
#[derive(Clone, Copy)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// The pod's address.
    fn of(self, answer: &Answer) -> Result<IpAddr, Failure> {
        let address = match self {
            Family::V4 => answer.ipv4().map(IpAddr::from),
            Family::V6 => answer.ipv6().map(IpAddr::from),
        };
        Ok(address.ok_or("no address")?)
    }
}

pub(crate) fn arrive(place: &Place, first: &FirstPackets) -> Outcome {
    let family = first.family;
    let vnet = match family {
        Family::V4 => vnet(place, "first")?,
        Family::V6 => dual_stack_vnet(place, "first-v6")?,
    };
    let host = Host::start(&vnet, 1)?;
    host.settle()?;
    let peer = Pod::create(&host.node, "default", "peer")?;
    let peer_address = family.of(&host.runtime().add(&peer)?)?;
    let mut losses = Vec::new();
    let mut send = |load: &str, callers| -> Outcome {
        for way in [Way::ToPod, Way::FromPod(peer_address)] {
            let mut rounds = Vec::new();
            // None may be lost in any round; noise makes some late, and not in each.
            while rounds.len() < ROUNDS && rounds.iter().all(|p99| *p99 > first.p99) {
                let times = waves(&host, way, first, callers)?;
                let arrived: Vec<Duration> = times.iter().copied().flatten().collect();
                println!("  {way}, {load}, {} sent; back came {}", times.len(), in_words(&arrived));
                if arrived.len() != first.pods {
                    losses.push(format!("{} of {} {way} when {load}", first.pods - arrived.len(), first.pods));
                }
                rounds.push(percentile(&arrived, 99));
            }
            if rounds.iter().all(|p99| *p99 > first.p99) {
                losses.push(format!("at p99 {rounds:?}, more than {:?}, {way} when {load}", first.p99));
            }
        }
        Ok(())
    };
    send("idle", 1)?;
    let others = Others::default();
    thread::scope(|scope| {
        let come_and_go = |caller| {
            let (others, host) = (&others, &host);
            scope.spawn(move || others.come_and_go(host, caller))
        };
        let threads: Vec<_> = (0..OTHERS).map(come_and_go).collect();
        let end = End(&others.over);
        let sent = send("busy", CALLERS);
        drop(end);
        let ended = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a caller panicked".into())));
        ended.chain([sent]).collect::<Outcome>()
    })?;
    println!("  {} other pods came and went meanwhile", others.count.load(Ordering::Relaxed));
    if losses.is_empty() { Ok(()) } else { Err(format!("first packets lost or late: {}", losses.join(", ")).into()) }
}

/// Which way a first packet goes.
#[derive(Clone, Copy)]
enum Way {
    ToPod,
    FromPod(IpAddr),
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Way::ToPod => "from node to pod",
            Way::FromPod(_) => "from pod to pod",
        })
    }
}

/// A sandbox, and the socket for its first packet.
struct Traveller {
    pod: Pod,
    pinger: Mutex<Pinger>,
}

/// Adds so many pods, and sends each one's first packet: what that took there and back, or `None` if it was lost.
fn waves(host: &Host, way: Way, first: &FirstPackets, callers: usize) -> Result<Vec<Option<Duration>>, Failure> {
    let FirstPackets { family, pods, .. } = *first;
    let mut times = Vec::with_capacity(pods);
    while times.len() < pods {
        let traveller = |pod: Pod| -> Result<Traveller, Failure> {
            let from = match way {
                Way::ToPod => host.node.netns(),
                Way::FromPod(_) => pod.netns(),
            };
            let pinger = Mutex::new(Pinger::open(from)?);
            Ok(Traveller { pod, pinger })
        };
        let sandboxes = host.sandboxes(WAVE.min(pods - times.len()), "first")?;
        let wave = sandboxes.into_iter().map(traveller).collect::<Result<Vec<_>, _>>()?;
        let go = |calls: &Calls<'_>, traveller: &Traveller| -> Result<Option<Duration>, Failure> {
            let mut pinger = traveller.pinger.lock().unwrap_or_else(PoisonError::into_inner);
            let own = family.of(&calls.add(&traveller.pod)?)?;
            let target = match way {
                Way::ToPod => own,
                Way::FromPod(peer) => peer,
            };
            Ok(pinger.ping(target, LOST)?)
        };
        for time in host.runtime().in_parallel(callers, &wave, go)? {
            times.push(time?);
        }
        let pods: Vec<Pod> = wave.into_iter().map(|traveller| traveller.pod).collect();
        host.delete(&pods)?;
    }
    Ok(times)
}

/// Pods that keep a node busy.
#[derive(Default)]
struct Others {
    over: AtomicBool,
    count: AtomicUsize,
}

impl Others {
    fn come_and_go(&self, host: &Host, caller: usize) -> Outcome {
        let name = format!("other-{caller}");
        let come_and_go = |calls: &Calls<'_>| -> Outcome {
            while !self.over.load(Ordering::Relaxed) {
                let pod = Pod::create(&host.node, "default", &name)?;
                calls.add(&pod)?;
                calls.del(&pod, None)?;
                self.count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        host.runtime().enter(come_and_go)?
    }
}
