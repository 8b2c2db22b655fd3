//! Nodes for many pods, and two of them compared.

use std::fs::File;
use std::ops::RangeInclusive;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dotfour_e2e::program::{self, Failure};
use dotfour_ipamd::wiring::names::LINK_INDICES;
use dotfour_rig::runtime::{Answer, CallError};
use dotfour_rig::{Daemon, Network, Node, NodeConfig, Place, Pod, Runtime, Vnet, VnetConfig};
use rustix::fs::{FlockOperation, flock};

use crate::figures::{in_words, median};

pub(crate) type Outcome = Result<(), Failure>;

/// Callers that make and end what is measured with, or among.
const CALLERS: usize = 4;
/// Pods that a comparison adds to each node before it deletes them again.
const SAMPLES: usize = 16;
/// How often it does that in a round.
const BATCHES: usize = 6;
/// One round within the limit is enough: noise can make a round slower, and nothing can make it faster.
const ROUNDS: usize = 3;
/// How long the kernel may take to end what nobody waits for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait between two looks at that.
const PAUSE: Duration = Duration::from_millis(10);

/// A VNet for the nodes of one test.
pub(crate) fn vnet(place: &Place, test: &str) -> Result<Vnet, Failure> {
    Ok(Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.within(test)? })?)
}

/// A node with a daemon and many more addresses than Azure's limit for a NIC.
pub(crate) struct Host {
    // Ended before its node.
    _daemon: Daemon,
    pub(crate) network: Network,
    pub(crate) node: Node,
}

impl Host {
    /// The node number `number` of a VNet, from 1, which has 4,094 addresses of its own. That the fabric does not know
    /// these is nothing to what happens inside a node.
    pub(crate) fn start(vnet: &Vnet, number: u8) -> Result<Self, Failure> {
        let node = vnet.add_node(&NodeConfig::new(format!("node-{number}"), 0))?;
        let third: RangeInclusive<u8> = number * 16..=number * 16 + 15;
        let addresses = format!("addresses: [10.240.{}.1-10.240.{}.254]\n", third.start(), third.end());
        Host::on(node, vnet, &addresses, Duration::from_millis(100))
    }

    /// A node whose daemon has these addresses, and how long they rest.
    pub(crate) fn on(node: Node, vnet: &Vnet, addresses: &str, cooldown: Duration) -> Result<Self, Failure> {
        let mut config = program::daemon()?;
        config.cooldown = cooldown;
        // A look at source and node is not what is measured.
        config.source = format!("kind: static\nsubnet: {}\n{addresses}refresh: 1h\n", vnet.subnet());
        let daemon = node.start_daemon(&config)?;
        let network = program::network(&node)?;
        Ok(Host { _daemon: daemon, network, node })
    }

    pub(crate) fn runtime(&self) -> Runtime<'_> {
        Runtime::new(&self.node, &self.network)
    }

    /// Sandboxes that are not added yet.
    pub(crate) fn sandboxes(&self, count: usize, name: &str) -> Result<Vec<Pod>, Failure> {
        (0..count).map(|number| Ok(Pod::create(&self.node, "default", &format!("{name}-{number}"))?)).collect()
    }

    /// Pods that are up.
    pub(crate) fn pods(&self, count: usize, name: &str) -> Result<Vec<Pod>, Failure> {
        let pods = self.sandboxes(count, name)?;
        all(self.runtime().in_parallel(CALLERS, &pods, |calls, pod| calls.add(pod))?)?;
        Ok(pods)
    }

    pub(crate) fn delete(&self, pods: &[Pod]) -> Outcome {
        all(self.runtime().in_parallel(CALLERS, pods, |calls, pod| calls.del(pod, None))?).map(|_| ())
    }

    /// The indexes of pods' links on the node, condemned ones too.
    pub(crate) fn links(&self) -> Result<Vec<u32>, Failure> {
        let ours = self.node.links()?.into_iter().map(|link| link.index);
        Ok(ours.filter(|index| LINK_INDICES.contains(index)).collect())
    }

    /// Waits until so many pods' links are left.
    pub(crate) fn wait_for_links(&self, count: usize) -> Outcome {
        let begun = Instant::now();
        loop {
            let left = self.links()?.len();
            if left == count {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{left} links, not {count}, are there after {PATIENCE:?}").into());
            }
            sleep(PAUSE);
        }
    }

    /// Waits until the namespaces of earlier tests have ended, which the kernel does in their order, with its network lock
    /// held again and again: so the one that ends last is one of ours.
    pub(crate) fn settle(&self) -> Outcome {
        let links = self.links()?.len();
        drop(self.pods(1, "last")?);
        self.wait_for_links(links)
    }
}

/// All answers, or the first failure.
pub(crate) fn all(answers: Vec<Result<Answer, CallError>>) -> Result<Vec<Answer>, Failure> {
    Ok(answers.into_iter().collect::<Result<Vec<_>, _>>()?)
}

/// One of two nodes that are compared.
pub(crate) struct Side<'a> {
    pub(crate) host: &'a Host,
    /// Completes "ADD …".
    pub(crate) what: String,
    /// A file that somebody has locked during each ADD.
    pub(crate) locked: Option<&'a File>,
}

impl Side<'_> {
    fn add(&self, pod: &Pod) -> Result<Duration, Failure> {
        self.locked.map(|file| flock(file, FlockOperation::NonBlockingLockExclusive)).transpose()?;
        let took = self.host.runtime().add(pod)?.took;
        self.locked.map(|file| flock(file, FlockOperation::Unlock)).transpose()?;
        Ok(took)
    }
}

/// Fails unless ADD on one node takes at most `limit` times what it takes on the other, by the medians of calls made in turn,
/// so that whatever else the machine does meets both.
pub(crate) fn compare(usual: &Side<'_>, loaded: &Side<'_>, limit: f64) -> Outcome {
    let samples = (usual.host.sandboxes(SAMPLES, "sample")?, loaded.host.sandboxes(SAMPLES, "sample")?);
    let links = (usual.host.links()?.len(), loaded.host.links()?.len());
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let mut times = (Vec::new(), Vec::new());
        for batch in 0..BATCHES {
            for (number, (one, other)) in samples.0.iter().zip(&samples.1).enumerate() {
                let usual_first = (batch + number) % 2 == 0;
                if usual_first {
                    times.0.push(usual.add(one)?);
                }
                times.1.push(loaded.add(other)?);
                if !usual_first {
                    times.0.push(usual.add(one)?);
                }
            }
            // All are buried before the next one is measured.
            usual.host.delete(&samples.0)?;
            loaded.host.delete(&samples.1)?;
            usual.host.wait_for_links(links.0)?;
            loaded.host.wait_for_links(links.1)?;
        }
        let ratio = median(&times.1).as_secs_f64() / median(&times.0).as_secs_f64();
        println!("  ADD {}, {}", usual.what, in_words(&times.0));
        println!("  ADD {}, {}; ratio of medians {ratio:.2}", loaded.what, in_words(&times.1));
        if ratio <= limit {
            return Ok(());
        }
        ratios.push(ratio);
    }
    Err(format!("ADD {} takes {ratios:.2?} times what it takes {}; allowed is {limit}", loaded.what, usual.what).into())
}
