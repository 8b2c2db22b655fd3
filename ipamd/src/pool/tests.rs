//! The pool against a reference model, and its rules one by one.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const COOLDOWN: Duration = Duration::from_secs(30);

impl Pool {
    /// Panics where an invariant of the module does not hold.
    fn check(&self) {
        let counts = self.counts();
        assert_eq!(
            counts.total,
            counts.free + counts.assigned + counts.cooling + counts.reserved + counts.releasing + counts.quarantined,
            "{counts:?}"
        );
        let free: HashSet<usize> = self.free.walk(&self.slots).into_iter().collect();
        let cooling: HashSet<usize> = self.cooling.walk(&self.slots).into_iter().collect();
        for (&address, &slot) in &self.by_address {
            let entry = self.slots.get(slot).expect("an address without an entry");
            assert_eq!(entry.address, address);
            assert_eq!(free.contains(&slot), entry.state == State::Free);
            assert_eq!(cooling.contains(&slot), matches!(entry.state, State::Cooling { .. }));
            if let State::Assigned(key) = &entry.state {
                assert_eq!(self.leases.get(key).map(|lease| lease.address), Some(address));
            }
        }
        for (key, lease) in &self.leases {
            assert_eq!(self.state(lease.address), Some(&State::Assigned(key.clone())));
        }
    }
}

fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 240, 0, n).into()
}

fn view(range: impl IntoIterator<Item = u8>) -> Vec<PoolAddress> {
    range.into_iter().map(|n| PoolAddress { address: address(n), subnet: "10.240.0.0/16".parse().unwrap() }).collect()
}

fn key(n: u8) -> AttachmentKey {
    AttachmentKey { network: "azure".into(), container_id: format!("c{n}"), ifname: "eth0".into() }
}

fn pool_of(range: impl IntoIterator<Item = u8>) -> Pool {
    let mut pool = Pool::new(COOLDOWN);
    pool.apply_view(&view(range));
    pool
}

fn lease(n: u8) -> Lease {
    Lease { pod: None, address: address(n), link: Some(HostLink { index: 7, name: "azv7".into() }) }
}

#[test]
fn the_first_pod_gets_the_lowest_address() {
    let mut pool = pool_of(5..=9);
    assert_eq!(pool.assign(&key(0), None, Moment::ZERO), Assignment::New(address(5)));
}

#[test]
fn asking_again_gives_the_same_lease_and_takes_no_second_address() {
    let mut pool = pool_of(5..=9);
    pool.assign(&key(0), None, Moment::ZERO);
    assert!(matches!(pool.assign(&key(0), None, Moment::ZERO), Assignment::Existing(l) if l.address == address(5)));
    assert_eq!(pool.counts().assigned, 1);
}

#[test]
fn a_released_address_cools_down_and_comes_last() {
    let mut pool = pool_of(5..=6);
    pool.assign(&key(0), None, Moment::ZERO);
    pool.release(&key(0), Moment::ZERO);
    assert_eq!(pool.counts().cooling, 1);
    assert_eq!(pool.assign(&key(1), None, Moment::ZERO), Assignment::New(address(6)));
    let just_before = COOLDOWN - Duration::from_nanos(1);
    assert!(matches!(pool.assign(&key(2), None, just_before), Assignment::Exhausted(c) if c.cooling == 1));
    assert_eq!(pool.assign(&key(2), None, COOLDOWN), Assignment::New(address(5)));
}

#[test]
fn the_oldest_freed_address_is_lent_first() {
    let mut pool = pool_of(5..=7);
    for n in 0..3 {
        pool.assign(&key(n), None, Moment::ZERO);
    }
    for (n, at) in [(1, 1), (2, 2), (0, 3)] {
        pool.release(&key(n), Duration::from_secs(at));
    }
    let later = Duration::from_secs(100);
    let order: Vec<_> = (10..13).map(|n| pool.assign(&key(n), None, later)).collect();
    assert_eq!(order, [6, 7, 5].map(|n| Assignment::New(address(n))));
}

#[test]
fn a_cancelled_assignment_does_not_cool() {
    let mut pool = pool_of(5..=5);
    pool.assign(&key(0), None, Moment::ZERO);
    pool.cancel(&key(0));
    assert_eq!(pool.assign(&key(1), None, Moment::ZERO), Assignment::New(address(5)));
}

#[test]
fn releasing_what_nobody_holds_changes_nothing() {
    let mut pool = pool_of(5..=5);
    assert_eq!(pool.release(&key(9), Moment::ZERO), None);
    assert_eq!(pool.counts().free, 1);
}

#[test]
fn an_address_found_in_the_kernel_belongs_to_one_key() {
    let mut pool = pool_of(5..=6);
    assert_eq!(pool.adopt(key(0), lease(5)), Adoption::Adopted);
    assert_eq!(pool.adopt(key(0), lease(5)), Adoption::Adopted);
    assert_eq!(pool.adopt(key(1), lease(5)), Adoption::Conflict(key(0)));
    assert_eq!(pool.adopt(key(0), lease(6)), Adoption::SecondAddress(address(5)));
    assert_eq!(pool.assign(&key(2), None, Moment::ZERO), Assignment::New(address(6)));
    pool.check();
}

#[test]
fn an_adopted_address_that_no_source_knows_leaves_with_its_pod() {
    let mut pool = pool_of(5..=5);
    assert_eq!(pool.adopt(key(0), lease(200)), Adoption::AdoptedUnknown);
    assert_eq!(pool.counts().total, 2);
    pool.release(&key(0), Moment::ZERO);
    assert_eq!(pool.state(address(200)), None);
    pool.check();
}

#[test]
fn one_view_without_an_address_proves_nothing_and_two_remove_it() {
    let mut pool = pool_of(5..=6);
    assert_eq!(pool.apply_view(&view([5])), ViewChange::default());
    assert_eq!(pool.state(address(6)), Some(&State::Free));
    assert_eq!(pool.apply_view(&view([5])).removed, [address(6)]);
    assert_eq!(pool.counts().total, 1);
}

#[test]
fn an_address_in_use_is_never_dropped() {
    let mut pool = pool_of(5..=5);
    pool.assign(&key(0), None, Moment::ZERO);
    pool.apply_view(&[]);
    assert_eq!(pool.apply_view(&[]).withdrawn_in_use, [address(5)]);
    assert!(pool.lease(&key(0)).is_some());
    pool.release(&key(0), Moment::ZERO);
    assert_eq!(pool.counts().total, 0, "a withdrawn address must not be lent again");
}

#[test]
fn a_reserved_address_is_not_lent() {
    let mut pool = pool_of(5..=6);
    assert!(pool.reserve(address(5), "found on eth0".into()));
    assert_eq!(pool.assign(&key(0), None, Moment::ZERO), Assignment::New(address(6)));
    assert!(!pool.reserve(address(6), "assigned".into()));
    assert!(!pool.reserve(address(77), "unknown".into()));
    assert_eq!(pool.counts().reserved, 1);
}

/// The same promises, kept the slow and obvious way.
#[derive(Default)]
struct Model {
    free: VecDeque<IpAddr>,
    cooling: Vec<(Moment, IpAddr)>,
    assigned: BTreeMap<AttachmentKey, IpAddr>,
}

impl Model {
    fn assign(&mut self, key: &AttachmentKey, now: Moment) -> Option<IpAddr> {
        if let Some(&held) = self.assigned.get(key) {
            return Some(held);
        }
        let ready = self.cooling.iter().take_while(|(until, _)| *until <= now).count();
        self.free.extend(self.cooling.drain(..ready).map(|(_, address)| address));
        let address = self.free.pop_front()?;
        self.assigned.insert(key.clone(), address);
        Some(address)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Assign(u8),
    Release(u8),
    Cancel(u8),
    Wait(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..12_u8).prop_map(Step::Assign),
        3 => (0..12_u8).prop_map(Step::Release),
        1 => (0..12_u8).prop_map(Step::Cancel),
        2 => (0..40_u8).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn the_pool_does_what_the_model_does(steps in steps(), size in 0..10_u8) {
        let mut pool = pool_of(4..4 + size);
        let mut model = Model { free: (4..4 + size).map(address).collect(), ..Model::default() };
        let mut now = Moment::ZERO;
        for step in steps {
            match step {
                Step::Assign(n) => {
                    let assigned = match pool.assign(&key(n), None, now) {
                        Assignment::New(address) => Some(address),
                        Assignment::Existing(lease) => Some(lease.address),
                        Assignment::Exhausted(_) => None,
                    };
                    prop_assert_eq!(assigned, model.assign(&key(n), now));
                }
                Step::Release(n) => {
                    let released = pool.release(&key(n), now).map(|lease| lease.address);
                    let expected = model.assigned.remove(&key(n));
                    model.cooling.extend(expected.map(|address| (now + COOLDOWN, address)));
                    prop_assert_eq!(released, expected);
                }
                Step::Cancel(n) => {
                    let cancelled = pool.cancel(&key(n)).map(|lease| lease.address);
                    let expected = model.assigned.remove(&key(n));
                    model.free.extend(expected);
                    prop_assert_eq!(cancelled, expected);
                }
                Step::Wait(seconds) => now += Duration::from_secs(seconds.into()),
            }
            pool.check();
            prop_assert_eq!(pool.counts().assigned, model.assigned.len());
            prop_assert_eq!(pool.counts().total, usize::from(size));
        }
    }
}
