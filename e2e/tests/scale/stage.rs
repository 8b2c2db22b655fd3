//! Nodes for many pods, and two of them compared.

use std::fs::File;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dotfour_e2e::program::{self, Failure};
use dotfour_ipamd::wiring::names::LINK_INDICES;
use dotfour_rig::runtime::{Answer, CallError};
use dotfour_rig::{Daemon, Network, Node, NodeConfig, Place, Pod, Runtime, Vnet, VnetConfig};
use rustix::fs::{FlockOperation, flock};

use crate::figures::Pairs;

pub(crate) type Outcome = Result<(), Failure>;

/// Callers that make and end what is measured with, or among.
const CALLERS: usize = 4;
/// Pods that a comparison adds to each node one by one, and then deletes one by one.
const SAMPLES: usize = 16;
/// How often it does that in a round.
const BATCHES: usize = 6;
/// How many rounds there are at most. It is over after the first that leaves the median of all pairs so far within the limit:
/// a spell of noise ends, and later rounds outvote it, as they do not what the load costs.
pub(crate) const ROUNDS: usize = 3;
/// How long the kernel may take to end what nobody waits for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait between two looks at that.
const PAUSE: Duration = Duration::from_millis(10);

/// A VNet for the nodes of one test.
pub(crate) fn vnet(place: &Place, test: &str) -> Result<Vnet, Failure> {
    Ok(Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.within(test)? })?)
}

/// The same with both families, so that pods get an address of each.
pub(crate) fn dual_stack_vnet(place: &Place, test: &str) -> Result<Vnet, Failure> {
    let subnet = "10.240.0.0/16,fd00:10:240::/64".parse()?;
    Ok(Vnet::build(VnetConfig { subnet, place: place.within(test)? })?)
}

/// A node with a daemon and many more addresses than Azure's limit for a NIC.
pub(crate) struct Host {
    // Ended before its node.
    _daemon: Daemon,
    pub(crate) network: Network,
    pub(crate) node: Node,
}

impl Host {
    /// The node number `number` of a VNet, from 1, which has 4,094 addresses of its own, of each family. That the fabric does
    /// not know these is nothing to what happens inside a node.
    pub(crate) fn start(vnet: &Vnet, number: u8) -> Result<Self, Failure> {
        let name = format!("node-{number}");
        let third: RangeInclusive<u8> = number * 16..=number * 16 + 15;
        let ipv4 = format!("10.240.{}.1-10.240.{}.254", third.start(), third.end());
        let (node, addresses) = match vnet.ranges().ipv6().map(|range| range.network()) {
            None => (NodeConfig::new(name, 0), ipv4),
            // An IPv6 subnet's last four digits are a host's here, and the four before them its node's.
            Some(ipv6) => (NodeConfig::dual_stack(name, 0), format!("{ipv4}, {ipv6}{number}:1-{ipv6}{number}:ffe")),
        };
        let addresses = format!("addresses: [{addresses}]\n");
        Host::on(vnet.add_node(&node)?, vnet, &addresses, Duration::from_millis(100))
    }

    /// A node whose daemon has these addresses, and how long they rest.
    pub(crate) fn on(node: Node, vnet: &Vnet, addresses: &str, cooldown: Duration) -> Result<Self, Failure> {
        let mut config = program::daemon()?;
        config.cooldown = cooldown;
        // A look at source and node is not what is measured.
        config.source = format!("kind: static\nsubnet: [{}]\n{addresses}refresh: 1h\n", vnet.ranges());
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

/// Tells other threads to end as soon as it is dropped, so that nobody waits for them for ever after a panic.
pub(crate) struct End<'a>(pub(crate) &'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// All answers, or the first failure.
pub(crate) fn all(answers: Vec<Result<Answer, CallError>>) -> Result<Vec<Answer>, Failure> {
    Ok(answers.into_iter().collect::<Result<Vec<_>, _>>()?)
}

/// One of two nodes that are compared.
pub(crate) struct Side<'a> {
    pub(crate) host: &'a Host,
    /// Completes "ADD …" and "DEL …".
    pub(crate) what: String,
    /// A file that somebody has locked during each call.
    pub(crate) locked: Option<&'a File>,
}

impl Side<'_> {
    fn add(&self, pod: &Pod) -> Result<Duration, Failure> {
        self.locked(|| self.host.runtime().add(pod))
    }

    fn del(&self, pod: &Pod) -> Result<Duration, Failure> {
        self.locked(|| self.host.runtime().del(pod, None))
    }

    fn locked(&self, call: impl Fn() -> Result<Answer, CallError>) -> Result<Duration, Failure> {
        self.locked.map(|file| flock(file, FlockOperation::NonBlockingLockExclusive)).transpose()?;
        let took = call()?.took;
        self.locked.map(|file| flock(file, FlockOperation::Unlock)).transpose()?;
        Ok(took)
    }
}

/// One call on one of the nodes; what it took.
type Call = fn(&Side<'_>, &Pod) -> Result<Duration, Failure>;

/// Fails unless ADD and DEL on one node take at most `limit` times what they take on the other, by the median of pairs of
/// calls, whose first is one node's and the other's in turn.
pub(crate) fn compare(usual: &Side<'_>, loaded: &Side<'_>, limit: f64) -> Outcome {
    let samples = (usual.host.sandboxes(SAMPLES, "sample")?, loaded.host.sandboxes(SAMPLES, "sample")?);
    let links = (usual.host.links()?.len(), loaded.host.links()?.len());
    let verbs: [(&str, Call); 2] = [("ADD", |side, pod| side.add(pod)), ("DEL", |side, pod| side.del(pod))];
    let mut pairs = verbs.map(|(verb, call)| (verb, call, Pairs::default()));
    let mut slow = Vec::new();
    for _ in 0..ROUNDS {
        for batch in 0..BATCHES {
            for (_, call, pairs) in &mut pairs {
                for (number, (one, other)) in samples.0.iter().zip(&samples.1).enumerate() {
                    if (batch + number) % 2 == 0 {
                        let took = call(usual, one)?;
                        pairs.push(took, call(loaded, other)?);
                    } else {
                        let took = call(loaded, other)?;
                        pairs.push(call(usual, one)?, took);
                    }
                }
            }
            // All are buried before the next one is measured.
            usual.host.wait_for_links(links.0)?;
            loaded.host.wait_for_links(links.1)?;
        }
        slow.clear();
        for (verb, _, pairs) in &pairs {
            let (ratio, (few, many)) = (pairs.ratio(), pairs.in_words());
            println!("  {verb} {}, {few}", usual.what);
            println!("  {verb} {}, {many}; median ratio {ratio:.2}", loaded.what);
            if ratio > limit {
                slow.push(format!("{verb} takes {ratio:.2} times"));
            }
        }
        if slow.is_empty() {
            return Ok(());
        }
    }
    let slow = slow.join(", ");
    Err(format!("{}: {slow} what it takes {}; allowed is {limit}", loaded.what, usual.what).into())
}
