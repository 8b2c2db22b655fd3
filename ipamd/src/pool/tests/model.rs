//! The pool against a simple model of it, step by random step.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

/// When an address was released, and when a sweep of it began that is over.
type Rested = (Moment, Option<Moment>);

/// The same promises, kept the slow and obvious way, for IPv4 on one NIC.
#[derive(Default)]
struct Model {
    free: VecDeque<IpAddr>,
    /// When it was released, the address, and when a sweep of it began that is over, in the order of the first.
    cooling: VecDeque<(Moment, IpAddr, Option<Moment>)>,
    /// A sweep that is under way.
    sweep: Option<(Moment, Vec<IpAddr>)>,
    /// When its ADD was started, the address, and how that rested if it was lent before its time.
    assigned: BTreeMap<Arc<AttachmentKey>, (Moment, IpAddr, Option<Rested>)>,
    ended: BTreeMap<Arc<AttachmentKey>, Moment>,
}

impl Model {
    fn assign(&mut self, key: &Arc<AttachmentKey>, started: Moment, now: Moment) -> Given {
        if let Some((since, held, _)) = self.assigned.get_mut(key) {
            *since = started.max(*since);
            return Given::Address(*held);
        }
        if self.ended.get(key).is_some_and(|at| started <= *at) {
            return Given::Nothing;
        }
        let swept = |since: Moment, rest, swept: Option<Moment>| swept.is_some_and(|swept| since + rest <= swept);
        let over = |(since, _, at): &&(Moment, IpAddr, Option<Moment>)| swept(*since, COOLDOWN, *at);
        let ready = self.cooling.iter().take_while(over).count();
        self.free.extend(self.cooling.drain(..ready).map(|(_, address, _)| address));
        let (address, rested) = match self.free.pop_front() {
            Some(address) => (address, None),
            None => match self.cooling.iter().position(|(since, _, at)| swept(*since, FLOOR, *at)) {
                Some(place) => {
                    let (since, address, at) = self.cooling.remove(place).unwrap();
                    (address, Some((since, at)))
                }
                None if self.cooling.front().is_some_and(|(since, ..)| *since + FLOOR <= now) => return Given::Unswept,
                None => return Given::Nothing,
            },
        };
        self.ended.remove(key);
        self.assigned.insert(Arc::clone(key), (started, address, rested));
        Given::Address(address)
    }

    fn begin_sweep(&mut self, now: Moment, rested: Duration) -> Vec<IpAddr> {
        let due = self.cooling.iter_mut().filter(|(since, ..)| *since + rested <= now);
        let addresses: Vec<IpAddr> = due
            .map(|(_, address, swept)| {
                *swept = None;
                *address
            })
            .collect();
        self.sweep = Some((now, addresses.clone()));
        addresses
    }

    fn end_sweep(&mut self) -> Option<(Moment, Vec<IpAddr>)> {
        let (begun, addresses) = self.sweep.take()?;
        for (since, address, swept) in &mut self.cooling {
            if addresses.contains(address) && *since <= begun {
                *swept = Some(begun);
            }
        }
        Some((begun, addresses))
    }
}

/// What an ADD gets.
#[derive(Debug, PartialEq, Eq)]
enum Given {
    Address(IpAddr),
    Unswept,
    Nothing,
}

#[derive(Debug, Clone)]
enum Step {
    /// An ADD started so many seconds ago.
    Assign(u8, u8),
    /// A DEL of so many seconds ago.
    Del(u8, u8),
    Cancel(u8),
    Wait(u8),
    /// A sweep of all that rests, or of what has rested for the floor, begins, unless one is under way.
    BeginSweep(bool),
    EndSweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..12_u8, 0..4_u8).prop_map(|(n, ago)| Step::Assign(n, ago)),
        3 => (0..12_u8, 0..4_u8).prop_map(|(n, ago)| Step::Del(n, ago)),
        1 => (0..12_u8).prop_map(Step::Cancel),
        2 => (0..40_u8).prop_map(Step::Wait),
        2 => any::<bool>().prop_map(Step::BeginSweep),
        2 => Just(Step::EndSweep),
    ];
    proptest::collection::vec(step, 0..200)
}

fn ago(now: Moment, seconds: u8) -> Moment {
    now.saturating_sub(Duration::from_secs(seconds.into()))
}

proptest! {
    #[test]
    fn the_pool_does_what_the_model_does(steps in steps(), size in 0..10_u8) {
        let mut pool = pool_with(REST, 4..4 + size);
        let mut model = Model { free: (4..4 + size).map(address).collect(), ..Model::default() };
        // Short of ten minutes, after which tombstones are forgotten.
        let mut now = Duration::from_secs(10);
        for step in steps {
            match step {
                Step::Assign(n, seconds) => {
                    let started = ago(now, seconds);
                    let assigned = match pool.assign(wish(&key(n), started), now) {
                        Assignment::New(addresses) => Given::Address(addresses.iter().next().unwrap()),
                        Assignment::Existing(lease) => Given::Address(lease.addresses.iter().next().unwrap()),
                        Assignment::Unswept => Given::Unswept,
                        _ => Given::Nothing,
                    };
                    prop_assert_eq!(assigned, model.assign(&key(n), started, now));
                }
                Step::Del(n, seconds) => {
                    let at = ago(now, seconds);
                    let ended = model.ended.entry(key(n)).or_default();
                    *ended = at.max(*ended);
                    match pool.cover(&key(n), at, now) {
                        Covered::Lease(lease) => {
                            let (started, held, _) = model.assigned.remove(&key(n)).unwrap();
                            prop_assert!(started <= at);
                            prop_assert_eq!(lease.addresses, PodAddresses::from(held));
                            pool.release(&key(n), now);
                            model.cooling.push_back((now, held, None));
                        }
                        Covered::AddedSince => prop_assert!(model.assigned[&key(n)].0 > at),
                        Covered::Unknown => prop_assert!(!model.assigned.contains_key(&key(n))),
                    }
                }
                Step::Cancel(n) => {
                    let cancelled = pool.cancel(&key(n)).and_then(|lease| lease.addresses.iter().next());
                    let expected = model.assigned.remove(&key(n));
                    prop_assert_eq!(cancelled, expected.map(|(_, address, _)| address));
                    match expected {
                        Some((_, address, Some((since, swept)))) => {
                            let place = model.cooling.partition_point(|(other, ..)| *other <= since);
                            model.cooling.insert(place, (since, address, swept));
                        }
                        Some((_, address, None)) => model.free.push_back(address),
                        None => {}
                    }
                }
                // A run ends before tombstones are forgotten.
                Step::Wait(seconds) if now < Duration::from_secs(500) => now += Duration::from_secs(seconds.into()),
                Step::Wait(_) => {}
                Step::BeginSweep(all) if model.sweep.is_none() => {
                    let rested = if all { Duration::ZERO } else { FLOOR };
                    prop_assert_eq!(pool.begin_sweep(now.saturating_sub(rested)), model.begin_sweep(now, rested));
                }
                Step::BeginSweep(_) => {}
                Step::EndSweep => {
                    if let Some((begun, addresses)) = model.end_sweep() {
                        pool.end_sweep(&addresses, begun);
                    }
                }
            }
            pool.check();
            prop_assert_eq!(pool.counts().assigned, model.assigned.len());
            prop_assert_eq!(pool.counts().total, usize::from(size));
        }
    }
}
