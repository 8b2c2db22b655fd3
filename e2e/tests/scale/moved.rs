//! The first packet to an address that another pod had a moment ago, on this node or on the other one.
//!
//! Neighbour tables, route caches and connections of the pod before would all send it astray. There is one address, which the
//! two nodes have in turn, twice each: so half of the pods get it from a pod of the same node, and half from the other's. It
//! does not rest in between. The fabric leads it to whoever has it, as Azure does.

use std::net::Ipv4Addr;
use std::time::Duration;

use dotfour_e2e::program;
use dotfour_rig::probe::Pinger;
use dotfour_rig::{NodeConfig, Place, Pod, Vnet};

use crate::figures::{in_words, percentile};
use crate::stage::{Host, Outcome, ROUNDS, vnet};

/// The address that moves, and those that stay: a pod on each node that sends.
const MOVING: Ipv4Addr = Ipv4Addr::new(10, 240, 200, 20);
const SENDERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 240, 200, 11), Ipv4Addr::new(10, 240, 200, 12)];
/// What has not come back by then is lost: nothing here keeps a packet for later.
const LOST: Duration = Duration::from_secs(1);

/// How many pods get the address, and how long the first packet may take there and back, at p99 of one round of
/// [`ROUNDS`] at least.
pub(crate) struct Moves {
    pub(crate) pods: usize,
    pub(crate) p99: Duration,
}

pub(crate) fn make_no_difference(place: &Place, moves: &Moves) -> Outcome {
    let vnet = vnet(place, &format!("moved-{}", moves.pods))?;
    let hosts = [host(&vnet, 0)?, host(&vnet, 1)?];
    // The moving address is theirs in turn; each has its sender's.
    let mut senders = Vec::new();
    for (host, address) in hosts.iter().zip(SENDERS) {
        vnet.attach(&host.node, &[address])?;
        let pod = Pod::create(&host.node, "default", "sender")?;
        assert_eq!(host.runtime().add(&pod)?.ipv4(), Some(address), "the first address is the sender's");
        senders.push(pod);
    }
    // By a node of its own, which has addresses to spare.
    Host::start(&vnet, 9)?.settle()?;
    // From the node, from a pod on the node, and from a pod on the other.
    let ways = ["the node", "a pod on the node", "a pod on the other node"];
    let mut best = vec![[Duration::MAX; 2]; ways.len()];
    let mut lost = Vec::new();
    let mut slow = Vec::new();
    let mut holder: Option<usize> = None;
    // None may be lost in any round; noise makes some late, and not in each.
    for _ in 0..ROUNDS {
        let mut times = vec![(Vec::new(), Vec::new()); ways.len()];
        for number in 0..moves.pods {
            let on = number / 2 % 2;
            let [here, there] = [on, 1 - on];
            let (Some(host), Some(own), Some(others)) = (hosts.get(here), senders.get(here), senders.get(there)) else {
                return Err("there are two nodes".into());
            };
            let moved = holder != Some(here);
            if moved {
                if let Some(before) = holder.and_then(|before| hosts.get(before)) {
                    vnet.detach(&before.node, &[MOVING])?;
                }
                vnet.attach(&host.node, &[MOVING])?;
                holder = Some(here);
            }
            let pod = Pod::create(&host.node, "default", "web")?;
            let way = number / 4 % ways.len();
            let from = [host.node.netns(), own.netns(), others.netns()];
            let mut pinger = Pinger::open(from.get(way).copied().ok_or("no such way")?)?;
            let address = host.runtime().add(&pod)?.ipv4();
            assert_eq!(address, Some(MOVING), "there is one address only");
            match (pinger.ping(MOVING, LOST)?, times.get_mut(way)) {
                (Some(took), Some((stayed, came))) => if moved { came } else { stayed }.push(took),
                _ => lost.push(format!("{number} from {}", ways.get(way).copied().unwrap_or_default())),
            }
            host.runtime().del(&pod, None)?;
        }
        slow.clear();
        for ((way, (stayed, came)), best) in ways.iter().zip(&times).zip(&mut best) {
            let cases = [("from this node's pod before", stayed), ("from the other node's", came)];
            for ((what, times), best) in cases.into_iter().zip(best) {
                println!("  {way} to the address, {what}: {}", in_words(times));
                *best = percentile(times, 99).min(*best);
                if *best > moves.p99 {
                    slow.push(format!("{best:?} from {way}, {what}"));
                }
            }
        }
        if slow.is_empty() {
            break;
        }
    }
    match (&lost[..], &slow[..]) {
        ([], []) => Ok(()),
        (lost, slow) => Err(format!("first packets lost: {lost:?}; over {:?} at p99: {slow:?}", moves.p99).into()),
    }
}

/// A node whose daemon has a sender's address and the one that moves, which does not rest.
fn host(vnet: &Vnet, number: usize) -> Result<Host, program::Failure> {
    let node = vnet.add_node(&NodeConfig::new(format!("node-{number}"), 0))?;
    let sender = SENDERS.get(number).ok_or("there are two nodes")?;
    let source = format!("addresses: [{sender}, {MOVING}]\n");
    Host::on(node, vnet, &source, Duration::ZERO)
}
