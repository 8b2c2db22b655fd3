//! Every order in which the calls for one pod, its end and the daemon's can meet.
//!
//! An exhaustive scheduler over the pure state: the actors below take the steps that the verbs take, in their order, and
//! each step is atomic because the verbs make it so (under the ledger's lock, or by one message to the kernel). The
//! scheduler takes every runnable actor in every state, so all interleavings are walked. The gate is part of the state.
//!
//! Actors: an ADD, a DEL of the same key, the same key's second ADD, an ADD whose answer nobody hears and that is undone,
//! another pod's ADD, the pod's namespace dying, the collector, a spooled DEL, a GC, the keeper's sweep, and a kill of the
//! daemon that takes every call under way with it. An ADD that finds an address unswept sweeps by itself. Each pod leaves
//! connections behind that name its address.
//!
//! In every state: the pool's own invariants; no two links with one address; a live link's address is not free, and no
//! connection of another pod names it; no sweep has removed a living pod's connections. At the
//! end of every run: a lease for every link and a link for every lease, and nothing left of an ADD that a DEL ended.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dotfour_datapath::link::Link;
use dotfour_protocol::AttachmentKey;

use super::journal::Remembered;
use super::record::Record;
use super::recover;
use crate::pool::tests::{key, view};
use crate::pool::{Assignment, Covered, Families, HostLink, Moment, PodAddresses, Pool, Rest, Wish};
use crate::wiring::tag::Tag;

const NIC: u32 = 2;
const SIZE: u8 = 1;
/// Addresses come back at once, so that a double use would show.
const REST: Rest = Rest { cooldown: Duration::ZERO, floor: Duration::ZERO };
const NOW: Moment = Duration::from_secs(100);

/// What an actor does over its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Job {
    /// An ADD of this key, started at this second.
    Add { key: u8, started: u64 },
    /// The same, whose answer nobody hears: what it has made is undone.
    Unheard { key: u8, started: u64 },
    /// A DEL of this key, from the socket or the spool.
    Del { key: u8, at: u64 },
    /// A GC whose list does not have this key, and that spares what was started after this second.
    Gc { key: u8, latest: u64 },
    /// The namespace behind this key's link dies.
    Die { key: u8 },
    /// The collector looks at every lease.
    Collect,
    /// The keeper sweeps what rests.
    Sweep,
    /// kill -9, and a new start.
    Kill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Enter,
    /// A GC's second look, with what it has listed. The undoing of an ADD.
    Gate,
    Decide,
    /// A sweep: what is to be swept, the kernel's part, and its end.
    Sweep,
    SweepKernel,
    SweepEnd,
    Commit,
    Kernel,
    Note,
    Done,
}

#[derive(Debug, Clone)]
struct Actor {
    job: Job,
    step: Step,
    /// The addresses an ADD was given.
    given: Option<PodAddresses>,
    /// Whether an ADD was answered with addresses.
    answered: bool,
    /// Whether it is being undone.
    undoing: bool,
    /// The moment of the ADD that a GC has listed.
    listed: Moment,
}

#[derive(Debug, Clone)]
struct World {
    pool: Pool,
    /// On file, and queued for it.
    file: Vec<Record>,
    queue: Vec<Record>,
    /// The kernel's links, by index.
    links: BTreeMap<u32, Tag>,
    next_index: u32,
    /// Whose connections name an address.
    connections: BTreeMap<IpAddr, BTreeSet<Arc<AttachmentKey>>>,
    /// Who holds the sweeper's lock, and what is being swept.
    sweep: Option<(usize, Vec<IpAddr>)>,
    gate: HashSet<u8>,
    actors: Vec<Actor>,
}

impl World {
    fn new(jobs: &[Job]) -> Self {
        let mut pool = Pool::new(REST);
        pool.apply_view(&view(5..5 + SIZE));
        let actors = jobs
            .iter()
            .map(|&job| Actor {
                job,
                step: Step::Enter,
                given: None,
                answered: false,
                undoing: false,
                listed: Moment::ZERO,
            })
            .collect();
        World {
            pool,
            file: vec![],
            queue: vec![],
            links: BTreeMap::new(),
            next_index: 1,
            connections: BTreeMap::new(),
            sweep: None,
            gate: HashSet::new(),
            actors,
        }
    }

    /// With the address at rest, after a pod that left connections behind.
    fn resting(jobs: &[Job]) -> Self {
        let mut world = World::new(jobs);
        let before = key(8);
        for address in world.pool.free().collect::<Vec<_>>() {
            world.pool.cool(address, NOW);
            world.file.push(Record::Cooling { address, since: NOW });
            world.connections.entry(address).or_default().insert(Arc::clone(&before));
        }
        world
    }

    fn runnable(&self, number: usize) -> bool {
        let actor = &self.actors[number];
        match (actor.job, actor.step) {
            (_, Step::Done) => false,
            (Job::Add { key, .. } | Job::Unheard { key, .. } | Job::Del { key, .. }, Step::Enter)
            | (Job::Gc { key, .. } | Job::Unheard { key, .. }, Step::Gate) => !self.gate.contains(&key),
            (Job::Sweep, Step::Enter) => self.sweep.is_none(),
            // An ADD asks the pool again before it lets go of the lock.
            (_, Step::Sweep) => self.sweep.as_ref().is_none_or(|(holder, _)| *holder == number),
            // The collector's own gate is for the moment of its step.
            _ => true,
        }
    }

    /// Takes one step of one actor.
    fn take(&mut self, number: usize) {
        let Actor { job, step, given, listed, .. } = self.actors[number].clone();
        let next = match job {
            Job::Add { key, started } => self.add(number, key, Duration::from_secs(started), step, given),
            Job::Unheard { key, started } if self.actors[number].undoing => {
                self.del(key, Duration::from_secs(started), step)
            }
            Job::Unheard { key, started } => {
                let next = self.add(number, key, Duration::from_secs(started), step, given);
                // What was there before is not this one's to undo.
                if step == Step::Note {
                    self.actors[number].undoing = true;
                    Step::Gate
                } else {
                    next
                }
            }
            Job::Del { key, at } => self.del(key, Duration::from_secs(at), step),
            Job::Gc { key, latest } if step == Step::Enter => self.list(number, key, Duration::from_secs(latest)),
            Job::Gc { key, .. } => self.del(key, listed, step),
            Job::Die { key } => {
                let name = super::interleavings::key(key);
                self.links.retain(|_, tag| *tag.key != *name);
                Step::Done
            }
            Job::Collect => {
                self.collect();
                Step::Done
            }
            Job::Sweep => match step {
                Step::Enter => self.sweep(number, Step::Sweep),
                Step::SweepEnd => {
                    self.sweep(number, step);
                    self.sweep = None;
                    Step::Done
                }
                _ => self.sweep(number, step),
            },
            Job::Kill => {
                self.kill();
                Step::Done
            }
        };
        self.actors[number].step = next;
    }

    fn add(&mut self, number: usize, n: u8, started: Moment, step: Step, given: Option<PodAddresses>) -> Step {
        let key = key(n);
        match step {
            Step::Enter => {
                self.gate.insert(n);
                Step::Decide
            }
            Step::Decide => {
                let wish = Wish {
                    key: &key,
                    pod: None,
                    families: Families::V4,
                    asked: PodAddresses::default(),
                    started,
                    delegated: false,
                };
                let assignment = self.pool.assign(wish, NOW);
                if assignment != Assignment::Unswept && self.sweep.as_ref().is_some_and(|(holder, _)| *holder == number)
                {
                    self.sweep = None;
                }
                let (addresses, started) = match assignment {
                    Assignment::New(addresses) => {
                        self.actors[number].given = Some(addresses);
                        (addresses, started)
                    }
                    Assignment::Existing(lease) => (lease.addresses, lease.started),
                    Assignment::Unswept => return Step::Sweep,
                    _ => {
                        self.gate.remove(&n);
                        return Step::Done;
                    }
                };
                let listed = addresses.iter().collect();
                self.queue.push(Record::Assigned { key, pod: None, addresses: listed, started, delegated: false });
                Step::Commit
            }
            Step::Sweep | Step::SweepKernel | Step::SweepEnd => self.sweep(number, step),
            Step::Commit if given.is_none() => {
                self.file.append(&mut self.queue);
                self.actors[number].answered = true;
                self.gate.remove(&n);
                Step::Done
            }
            Step::Commit => {
                self.file.append(&mut self.queue);
                Step::Kernel
            }
            Step::Kernel => {
                let addresses = given.expect("an ADD that was given an address");
                for address in addresses.iter() {
                    self.connections.entry(address).or_default().insert(Arc::clone(&key));
                }
                self.links.insert(self.next_index, Tag { key: Arc::clone(&key), addresses });
                self.actors[number].given = Some(addresses);
                self.next_index += 1;
                Step::Note
            }
            Step::Note => {
                // The newest link with the key; if its namespace died meanwhile, the index it had.
                let index = self.links.iter().rev().find(|(_, tag)| *tag.key == *key).map_or(0, |(index, _)| *index);
                self.pool.set_link(&key, HostLink { index, name: String::new() });
                self.actors[number].answered = true;
                self.gate.remove(&n);
                Step::Done
            }
            Step::Gate | Step::Done => Step::Done,
        }
    }

    /// One step of a sweep; an ADD asks again after the last.
    fn sweep(&mut self, number: usize, step: Step) -> Step {
        match step {
            Step::Sweep => {
                self.sweep = Some((number, self.pool.begin_sweep(NOW)));
                Step::SweepKernel
            }
            Step::SweepKernel => {
                let (_, addresses) = self.sweep.clone().unwrap_or_default();
                for tag in self.links.values() {
                    let swept = tag.addresses.iter().any(|address| addresses.contains(&address));
                    assert!(!swept, "a living pod's connections are removed: {self:#?}");
                }
                self.connections.retain(|address, _| !addresses.contains(address));
                Step::SweepEnd
            }
            _ => {
                let (_, addresses) = self.sweep.clone().unwrap_or_default();
                self.pool.end_sweep(&addresses, NOW);
                Step::Decide
            }
        }
    }

    /// A GC's first look, outside the gate.
    fn list(&mut self, number: usize, n: u8, latest: Moment) -> Step {
        match self.pool.lease(&key(n)) {
            Some(lease) if lease.started <= latest => {
                self.actors[number].listed = lease.started;
                Step::Gate
            }
            _ => Step::Done,
        }
    }

    fn del(&mut self, n: u8, at: Moment, step: Step) -> Step {
        let key = key(n);
        match step {
            Step::Enter | Step::Gate => {
                self.gate.insert(n);
                Step::Decide
            }
            Step::Decide => match self.pool.cover(&key, at, NOW) {
                Covered::Lease(_) => Step::Kernel,
                Covered::AddedSince => {
                    self.gate.remove(&n);
                    Step::Done
                }
                Covered::Unknown => {
                    self.queue.push(Record::Ended { key, at });
                    Step::Commit
                }
            },
            Step::Kernel => {
                self.links.retain(|_, tag| *tag.key != *key);
                Step::Note
            }
            Step::Note => {
                if self.pool.release(&key, NOW).is_some() {
                    self.queue.push(Record::Released { key, since: NOW });
                }
                Step::Commit
            }
            Step::Commit => {
                self.file.append(&mut self.queue);
                self.gate.remove(&n);
                Step::Done
            }
            Step::Sweep | Step::SweepKernel | Step::SweepEnd | Step::Done => Step::Done,
        }
    }

    fn collect(&mut self) {
        let gone: Vec<Arc<AttachmentKey>> = self
            .pool
            .leases()
            .filter(|(key, lease)| {
                let busy = (0..9).any(|n| self.gate.contains(&n) && super::interleavings::key(n) == **key);
                !busy && lease.link_index().is_some_and(|index| !self.links.contains_key(&index))
            })
            .map(|(key, _)| Arc::clone(key))
            .collect();
        for key in gone {
            self.pool.release(&key, NOW);
            self.file.append(&mut self.queue);
            self.file.push(Record::Released { key, since: NOW });
        }
    }

    /// What is in memory is lost; kernel and file stay. Calls under way end, and nobody repeats them.
    fn kill(&mut self) {
        let links: Vec<Link> =
            self.links.iter().map(|(&index, tag)| Link { index, alias: tag.to_alias(), ..Link::default() }).collect();
        self.queue.clear();
        self.gate.clear();
        self.sweep = None;
        self.pool = Pool::new(REST);
        self.pool.apply_view(&view(5..5 + SIZE));
        let remembered = Remembered { records: self.file.clone(), ..Remembered::default() };
        recover::restore(&mut self.pool, &recover::find(&links), &remembered, NIC, NOW);
        for actor in &mut self.actors {
            if actor.step != Step::Enter {
                actor.step = Step::Done;
            }
        }
    }

    fn check(&self) {
        self.pool.check();
        let mut seen = HashSet::new();
        for tag in self.links.values() {
            for address in tag.addresses.iter() {
                assert!(seen.insert(address), "{address} is on two links: {self:#?}");
                let free: Vec<IpAddr> = self.pool.free().chain(self.pool.cooling().map(|(a, _)| a)).collect();
                assert!(!free.contains(&address), "{address} is on a link and may be lent: {self:#?}");
                let others = self.connections.get(&address).into_iter().flatten().any(|key| *key != tag.key);
                assert!(!others, "{address} has connections of a pod before: {self:#?}");
            }
        }
    }

    /// After a last look of the collector, which comes again and again.
    fn check_end(mut self) {
        self.collect();
        self.check();
        assert!(self.gate.is_empty());
        let mut on_links: Vec<IpAddr> = self.links.values().flat_map(|tag| tag.addresses.iter()).collect();
        let mut leased: Vec<IpAddr> = self.pool.leases().flat_map(|(_, lease)| lease.addresses.iter()).collect();
        on_links.sort();
        leased.sort();
        assert_eq!(on_links, leased, "{self:#?}");
        let killed = self.actors.iter().any(|actor| actor.job == Job::Kill);
        let ended = |n, started| {
            self.actors.iter().any(|actor| match actor.job {
                Job::Del { key, at } => key == n && at >= started,
                Job::Gc { key, latest } => key == n && latest >= started,
                Job::Die { key } => key == n,
                _ => false,
            })
        };
        for actor in &self.actors {
            if let Job::Add { key: n, started } = actor.job
                && actor.answered
                && !ended(n, started)
            {
                assert!(self.pool.lease(&key(n)).is_some(), "an acknowledged ADD is lost: {self:#?}");
            }
            if let Job::Unheard { key: n, started } = actor.job
                && actor.undoing
                && !killed
            {
                let lease = self.pool.lease(&key(n));
                assert!(lease.is_none_or(|lease| lease.started > Duration::from_secs(started)), "{self:#?}");
            }
            // A DEL that a kill interrupted is the caller's, or the spool's, to repeat.
            if let Job::Del { key: n, at } = actor.job
                && !killed
            {
                let lease = self.pool.lease(&key(n));
                assert!(lease.is_none_or(|lease| lease.started > Duration::from_secs(at)), "{self:#?}");
            }
        }
    }
}

/// Walks all interleavings; returns how many there are.
fn explore(world: World) -> u64 {
    world.check();
    let runnable: Vec<usize> = (0..world.actors.len()).filter(|&number| world.runnable(number)).collect();
    if runnable.is_empty() {
        assert!(world.actors.iter().all(|actor| actor.step == Step::Done), "stuck: {world:#?}");
        world.check_end();
        return 1;
    }
    runnable
        .into_iter()
        .map(|number| {
            let mut next = world.clone();
            next.take(number);
            explore(next)
        })
        .sum()
}

#[test]
fn no_order_of_the_calls_for_one_pod_leaks_or_doubles_an_address() {
    let add = |key, started| Job::Add { key, started };
    let del = |key, at| Job::Del { key, at };
    let gc = |key, latest| Job::Gc { key, latest };
    let unheard = |key, started| Job::Unheard { key, started };
    let scenarios: [&[Job]; 15] = [
        &[add(1, 1), del(1, 2), Job::Kill, Job::Collect],
        &[add(1, 1), del(1, 2), add(1, 3), Job::Collect],
        &[add(1, 1), Job::Die { key: 1 }, add(2, 1), Job::Collect, Job::Kill],
        &[add(1, 1), del(1, 2), add(2, 1)],
        &[add(1, 1), Job::Die { key: 1 }, del(1, 2), Job::Collect, Job::Kill],
        &[add(1, 3), del(1, 2), del(1, 4), Job::Kill],
        &[add(1, 1), add(1, 1), del(1, 2), Job::Collect],
        &[add(1, 1), add(1, 3), del(1, 2), Job::Kill],
        &[add(1, 1), gc(1, 2), add(1, 3), Job::Kill],
        &[add(1, 1), gc(1, 2), add(2, 1), Job::Collect],
        &[add(1, 1), gc(1, 2), del(1, 3), Job::Kill],
        &[add(1, 1), Job::Die { key: 1 }, Job::Collect, Job::Sweep],
        &[unheard(1, 1), add(1, 3), Job::Collect],
        &[unheard(1, 1), add(1, 3), del(1, 2)],
        &[unheard(1, 1), add(2, 1), Job::Kill],
    ];
    // These begin with the one address resting.
    let resting: [&[Job]; 3] = [
        &[add(2, 1), Job::Sweep, Job::Sweep, Job::Kill],
        &[add(2, 1), Job::Sweep, del(2, 2), Job::Sweep],
        &[add(2, 1), add(3, 1), Job::Sweep],
    ];
    let worlds = scenarios.map(World::new).into_iter().chain(resting.map(World::resting));
    let explored: u64 = worlds.map(explore).sum();
    println!("{explored} interleavings explored");
    assert!(explored > 10_000, "the scheduler walked only {explored}");
}
