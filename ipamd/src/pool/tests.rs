//! The pool's rules one by one.

mod model;

use std::collections::HashSet;
use std::net::Ipv6Addr;

use super::view::LEAVING;
use super::*;

const COOLDOWN: Duration = Duration::from_secs(30);
const FLOOR: Duration = Duration::from_secs(5);
const REST: Rest = Rest { cooldown: COOLDOWN, floor: FLOOR };
/// A rest without a short cut.
const FULL_REST: Rest = Rest { cooldown: COOLDOWN, floor: COOLDOWN };
const NIC: u32 = 2;

impl Pool {
    /// Panics where an invariant of the module does not hold.
    pub(crate) fn check(&self) {
        let counts = self.counts();
        assert_eq!(
            counts.total,
            counts.free + counts.assigned + counts.cooling + counts.reserved + counts.releasing + counts.quarantined,
            "{counts:?}"
        );
        let free: HashSet<Slot> = self
            .groups
            .iter()
            .flat_map(|group| group.v4.walk(&self.slots).into_iter().chain(group.v6.walk(&self.slots)))
            .collect();
        assert!(self.cooling().map(|(_, since)| since).is_sorted(), "the one released first is at the head");
        let cooling: HashSet<Slot> = self.cooling.walk(&self.slots).into_iter().collect();
        for (&address, &slot) in &self.by_address {
            let entry = self.slots.get(slot).expect("an address without an entry");
            assert_eq!(entry.address, address);
            assert_eq!(free.contains(&slot), entry.state == State::Free);
            assert_eq!(cooling.contains(&slot), matches!(entry.state, State::Cooling { .. }));
            if let State::Assigned(key) = &entry.state {
                let lease = self.lease(key).expect("an assigned address without a lease");
                assert!(lease.addresses.iter().any(|held| held == address));
            }
        }
        let mut held = 0;
        for (key, lease) in self.leases() {
            for address in lease.addresses.iter() {
                held += 1;
                assert_eq!(self.owner(address), Some(key));
            }
        }
        assert_eq!(held, counts.assigned);
    }
}

pub(crate) fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 240, 0, n).into()
}

fn v6(n: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into()).into()
}

fn on_nic(address: IpAddr, nic: u32) -> PoolAddress {
    let subnet = if address.is_ipv4() { "10.240.0.0/16" } else { "fd00::/64" };
    PoolAddress { address, subnet: subnet.parse().unwrap(), nic }
}

pub(crate) fn view(range: impl IntoIterator<Item = u8>) -> Vec<PoolAddress> {
    range.into_iter().map(|n| on_nic(address(n), NIC)).collect()
}

pub(crate) fn key(n: u8) -> Arc<AttachmentKey> {
    Arc::new(AttachmentKey { network: "azure".into(), container_id: format!("c{n}"), ifname: "eth0".into() })
}

fn pool_with(rest: Rest, range: impl IntoIterator<Item = u8>) -> Pool {
    let mut pool = Pool::new(rest);
    pool.apply_view(&view(range));
    pool
}

fn pool_of(range: impl IntoIterator<Item = u8>) -> Pool {
    pool_with(FULL_REST, range)
}

fn lease(n: u8) -> Lease {
    let link = Some(HostLink { index: 7, name: "azv7".into() });
    Lease { pod: None, addresses: address(n).into(), link, started: Moment::ZERO, delegated: false }
}

fn wish(key: &Arc<AttachmentKey>, started: Moment) -> Wish<'_> {
    Wish { key, pod: None, families: Families::V4, asked: PodAddresses::default(), started, delegated: false }
}

/// A wish of the moment, for any IPv4 address.
fn assign(pool: &mut Pool, n: u8, now: Moment) -> Assignment {
    pool.assign(wish(&key(n), now), now)
}

/// A sweep that takes no time.
pub(crate) fn sweep(pool: &mut Pool, now: Moment) {
    let addresses = pool.begin_sweep(now);
    pool.end_sweep(&addresses, now);
}

fn new(n: u8) -> Assignment {
    Assignment::New(address(n).into())
}

#[test]
fn the_first_pod_gets_the_lowest_address() {
    assert_eq!(assign(&mut pool_of(5..=9), 0, Moment::ZERO), new(5));
}

#[test]
fn asking_again_gives_the_same_lease_and_takes_no_second_address() {
    let mut pool = pool_of(5..=9);
    assign(&mut pool, 0, Moment::ZERO);
    let again = assign(&mut pool, 0, Moment::ZERO);
    assert!(matches!(again, Assignment::Existing(lease) if lease.addresses == address(5).into()));
    assert_eq!(pool.counts().assigned, 1);
}

#[test]
fn a_released_address_cools_down_and_comes_last() {
    let mut pool = pool_of(5..=6);
    assign(&mut pool, 0, Moment::ZERO);
    pool.release(&key(0), Moment::ZERO);
    assert_eq!(pool.counts().cooling, 1);
    assert_eq!(assign(&mut pool, 1, Moment::ZERO), new(6));
    let just_before = COOLDOWN - Duration::from_nanos(1);
    assert!(matches!(assign(&mut pool, 2, just_before), Assignment::Exhausted(c) if c.cooling == 1));
    sweep(&mut pool, COOLDOWN);
    assert_eq!(assign(&mut pool, 2, COOLDOWN), new(5));
}

#[test]
fn with_every_address_cooling_the_oldest_is_lent_after_the_floor() {
    let mut pool = pool_with(REST, 5..=6);
    for n in 0..2 {
        assign(&mut pool, n, Moment::ZERO);
    }
    pool.release(&key(1), Duration::from_secs(1));
    pool.release(&key(0), Duration::from_secs(2));
    let just_before = Duration::from_secs(1) + FLOOR - Duration::from_nanos(1);
    assert!(matches!(assign(&mut pool, 3, just_before), Assignment::Exhausted(_)));
    assert_eq!(assign(&mut pool, 3, Duration::from_secs(1) + FLOOR), Assignment::Unswept);
    sweep(&mut pool, Duration::from_secs(1) + FLOOR);
    assert_eq!(assign(&mut pool, 3, Duration::from_secs(1) + FLOOR), new(6));
    assert!(matches!(assign(&mut pool, 4, Duration::from_secs(1) + FLOOR), Assignment::Exhausted(_)));
    pool.check();
}

#[test]
fn the_oldest_freed_address_is_lent_first() {
    let mut pool = pool_of(5..=7);
    for n in 0..3 {
        assign(&mut pool, n, Moment::ZERO);
    }
    for (n, at) in [(1, 1), (2, 2), (0, 3)] {
        pool.release(&key(n), Duration::from_secs(at));
    }
    let later = Duration::from_secs(100);
    sweep(&mut pool, later);
    let order: Vec<_> = (10..13).map(|n| assign(&mut pool, n, later)).collect();
    assert_eq!(order, [6, 7, 5].map(new));
}

#[test]
fn an_address_is_lent_only_after_a_sweep_that_began_when_its_rest_was_over() {
    let mut pool = pool_of(5..=5);
    assign(&mut pool, 0, Moment::ZERO);
    pool.release(&key(0), Moment::ZERO);
    sweep(&mut pool, COOLDOWN - Duration::from_nanos(1));
    pool.thaw(COOLDOWN * 2);
    assert_eq!(pool.counts().free, 0);
    assert_eq!(assign(&mut pool, 1, COOLDOWN * 2), Assignment::Unswept);
    sweep(&mut pool, COOLDOWN * 2);
    assert_eq!(assign(&mut pool, 1, COOLDOWN * 2), new(5));
}

#[test]
fn an_address_is_not_lent_while_a_sweep_is_under_way() {
    let mut pool = pool_with(REST, 5..=5);
    assign(&mut pool, 0, Moment::ZERO);
    pool.release(&key(0), Moment::ZERO);
    sweep(&mut pool, FLOOR);
    let again = pool.begin_sweep(FLOOR * 2);
    assert_eq!(again, [address(5)]);
    assert_eq!(assign(&mut pool, 1, FLOOR * 2), Assignment::Unswept);
    pool.end_sweep(&again, FLOOR * 2);
    assert_eq!(assign(&mut pool, 1, FLOOR * 2), new(5));
}

#[test]
fn a_sweep_is_due_right_after_the_release_and_at_the_ends_of_the_rest_and_not_in_between() {
    let mut pool = pool_with(REST, 5..=5);
    assign(&mut pool, 0, Moment::ZERO);
    pool.release(&key(0), Moment::ZERO);
    let second = Duration::from_secs(1);
    let mut due = |now: Moment| {
        let Due { wholly, again } = pool.begin_due_sweep(now);
        pool.end_sweep(&wholly, now);
        pool.end_sweep(&again, now);
        (wholly.len(), again.len())
    };
    for (now, expected) in [
        (Moment::ZERO, (1, 0)),
        (second / 4, (0, 0)),
        (second / 2, (0, 1)),
        (second, (0, 1)),
        (second * 2, (0, 1)),
        (second * 3, (0, 0)),
        (FLOOR, (1, 0)),
        (FLOOR + second, (0, 0)),
        (COOLDOWN - second, (0, 0)),
        (COOLDOWN, (1, 0)),
        (COOLDOWN + second, (0, 0)),
    ] {
        assert_eq!(due(now), expected, "{now:?}");
    }
    assert_eq!(assign(&mut pool, 1, COOLDOWN + second), new(5));
}

#[test]
fn a_sweep_from_before_the_release_counts_for_nothing() {
    let mut pool = pool_with(Rest { cooldown: Duration::ZERO, floor: Duration::ZERO }, 5..=5);
    assign(&mut pool, 0, Moment::ZERO);
    pool.release(&key(0), Duration::from_secs(2));
    pool.end_sweep(&[address(5)], Duration::from_secs(1));
    assert_eq!(assign(&mut pool, 1, Duration::from_secs(3)), Assignment::Unswept);
    assert_eq!(pool.begin_sweep(Duration::from_secs(1)), [] as [IpAddr; 0]);
}

#[test]
fn an_address_that_is_asked_for_and_needs_only_a_sweep_is_not_called_taken() {
    let mut pool = pool_of(5..=6);
    assign(&mut pool, 0, Moment::ZERO);
    pool.release(&key(0), Moment::ZERO);
    let key = key(1);
    let asked = |pool: &mut Pool, now| pool.assign(Wish { asked: address(5).into(), ..wish(&key, now) }, now);
    assert_eq!(asked(&mut pool, FLOOR), Assignment::AskedTaken(address(5)));
    assert_eq!(asked(&mut pool, COOLDOWN), Assignment::Unswept);
    sweep(&mut pool, COOLDOWN);
    assert_eq!(asked(&mut pool, COOLDOWN), new(5));
}

#[test]
fn a_cancelled_assignment_of_a_resting_address_rests_on() {
    let mut pool = pool_with(REST, 5..=5);
    assign(&mut pool, 0, Moment::ZERO);
    pool.release(&key(0), Moment::ZERO);
    sweep(&mut pool, FLOOR);
    assert_eq!(assign(&mut pool, 1, FLOOR), new(5));
    pool.cancel(&key(1));
    pool.check();
    assert_eq!(pool.cooling().collect::<Vec<_>>(), [(address(5), Moment::ZERO)]);
    // Not lent as if it had rested to the end.
    pool.thaw(COOLDOWN);
    assert_eq!(pool.counts().cooling, 1);
    sweep(&mut pool, COOLDOWN);
    assert_eq!(assign(&mut pool, 2, COOLDOWN), new(5));
}

#[test]
fn a_cancelled_assignment_does_not_cool() {
    let mut pool = pool_of(5..=5);
    assign(&mut pool, 0, Moment::ZERO);
    pool.cancel(&key(0));
    assert_eq!(assign(&mut pool, 1, Moment::ZERO), new(5));
}

#[test]
fn releasing_what_nobody_holds_changes_nothing() {
    let mut pool = pool_of(5..=5);
    assert_eq!(pool.release(&key(9), Moment::ZERO), None);
    assert_eq!(pool.counts().free, 1);
}

#[test]
fn both_families_are_assigned_or_none() {
    let mut pool = Pool::new(FULL_REST);
    pool.apply_view(&[on_nic(address(5), NIC), on_nic(address(6), NIC), on_nic(v6(5), NIC)]);
    let dual = |pool: &mut Pool, n| {
        let key = key(n);
        pool.assign(Wish { families: Families::DUAL, ..wish(&key, Moment::ZERO) }, Moment::ZERO)
    };
    assert_eq!(dual(&mut pool, 0), Assignment::New(PodAddresses::from(address(5)).with(v6(5))));
    assert!(matches!(dual(&mut pool, 1), Assignment::Exhausted(counts) if counts.free == 1));
    assert_eq!(pool.lease(&key(1)), None);
    pool.release(&key(0), Moment::ZERO);
    assert_eq!((pool.counts().cooling, pool.counts().free), (2, 1));
    assert!(matches!(dual(&mut pool, 1), Assignment::Exhausted(_)));
    sweep(&mut pool, COOLDOWN);
    let key_2 = key(2);
    let thawed = pool.assign(Wish { families: Families::DUAL, ..wish(&key_2, COOLDOWN) }, COOLDOWN);
    assert_eq!(thawed, Assignment::New(PodAddresses::from(address(6)).with(v6(5))));
    pool.check();
}

#[test]
fn a_pod_s_addresses_are_of_one_nic() {
    let mut pool = Pool::new(FULL_REST);
    pool.apply_view(&[on_nic(address(5), 2), on_nic(v6(7), 3), on_nic(address(7), 3)]);
    let key = key(0);
    let assigned = pool.assign(Wish { families: Families::DUAL, ..wish(&key, Moment::ZERO) }, Moment::ZERO);
    assert_eq!(assigned, Assignment::New(PodAddresses::from(address(7)).with(v6(7))));
    assert_eq!(assign(&mut pool, 1, Moment::ZERO), new(5));
}

#[test]
fn a_link_that_is_renamed_keeps_its_new_name_whichever_is_heard_of_first() {
    let link = |index, name: &str| HostLink { index, name: name.into() };
    let mut pool = pool_of(5..=9);
    for rename_first in [true, false] {
        let key = key(u8::from(rename_first));
        pool.assign(wish(&key, Moment::ZERO), Moment::ZERO);
        if rename_first {
            pool.rename_link(&key, link(7, "renamed"));
        }
        pool.set_link(&key, link(7, "made"));
        pool.rename_link(&key, link(7, "renamed"));
        assert_eq!(pool.lease(&key).unwrap().link, Some(link(7, "renamed")));
    }
}

#[test]
fn a_name_that_was_another_link_s_is_not_a_link_s() {
    let link = |index, name: &str| HostLink { index, name: name.into() };
    let mut pool = pool_of(5..=9);
    let key = key(1);
    // The key was added again since its first link, 7, was renamed.
    pool.assign(wish(&key, Moment::ZERO), Moment::ZERO);
    pool.rename_link(&key, link(7, "renamed"));
    assert_eq!(pool.set_link(&key, link(8, "made")), link(8, "made"));
    pool.rename_link(&key, link(7, "renamed"));
    assert_eq!(pool.lease(&key).unwrap().link, Some(link(8, "made")));
}

#[test]
fn an_address_that_is_asked_for_is_given_or_refused_by_reason() {
    let mut pool = pool_of(5..=9);
    let ask = |pool: &mut Pool, n, wanted: u8| {
        let key = key(n);
        pool.assign(Wish { asked: address(wanted).into(), ..wish(&key, Moment::ZERO) }, Moment::ZERO)
    };
    assert_eq!(ask(&mut pool, 0, 8), new(8));
    assert_eq!(ask(&mut pool, 1, 8), Assignment::AskedTaken(address(8)));
    assert_eq!(ask(&mut pool, 1, 99), Assignment::AskedUnknown(address(99)));
    assert_eq!(pool.counts().assigned, 1);
    assert_eq!(assign(&mut pool, 1, Moment::ZERO), new(5));
    pool.check();
}

#[test]
fn a_del_that_overtakes_its_add_ends_it_and_a_later_add_is_a_new_one() {
    let mut pool = pool_of(5..=9);
    let (started, del) = (Duration::from_secs(1), Duration::from_secs(2));
    let restarted = del + Duration::from_nanos(1);
    assert_eq!(pool.cover(&key(0), del, del), Covered::Unknown);
    for started in [started, del] {
        assert_eq!(pool.assign(wish(&key(0), started), restarted), Assignment::Overtaken);
    }
    assert_eq!(pool.counts().assigned, 0);
    assert_eq!(pool.assign(wish(&key(0), restarted), restarted), new(5));
    assert_eq!(pool.remembered_dels().count(), 0);
    assert_eq!(pool.cover(&key(0), del, restarted), Covered::AddedSince);
    assert!(matches!(pool.cover(&key(0), restarted, restarted), Covered::Lease(_)));
}

#[test]
fn an_address_found_in_the_kernel_belongs_to_one_key() {
    let mut pool = pool_of(5..=6);
    assert_eq!(pool.adopt(&key(0), lease(5), NIC), Adoption::Adopted);
    assert_eq!(pool.adopt(&key(0), lease(5), NIC), Adoption::Adopted);
    assert_eq!(pool.adopt(&key(1), lease(5), NIC), Adoption::Conflict(key(0)));
    assert_eq!(pool.adopt(&key(0), lease(6), NIC), Adoption::SecondLease(address(5).into()));
    assert_eq!(assign(&mut pool, 2, Moment::ZERO), new(6));
    pool.check();
}

#[test]
fn an_adopted_address_that_no_source_knows_leaves_with_its_pod() {
    let mut pool = pool_of(5..=5);
    assert_eq!(pool.adopt(&key(0), lease(200), NIC), Adoption::AdoptedUnknown);
    assert_eq!(pool.counts().total, 2);
    pool.release(&key(0), Moment::ZERO);
    sweep(&mut pool, REST.cooldown);
    assert_eq!(assign(&mut pool, 1, REST.cooldown), new(5));
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
    assign(&mut pool, 0, Moment::ZERO);
    pool.apply_view(&[]);
    assert_eq!(pool.apply_view(&[]).withdrawn_in_use, [address(5)]);
    assert!(pool.lease(&key(0)).is_some());
    pool.release(&key(0), Moment::ZERO);
    for now in [REST.floor, REST.cooldown] {
        sweep(&mut pool, now);
        assert!(matches!(assign(&mut pool, 1, now), Assignment::Exhausted(_)), "a withdrawn address is lent again");
    }
    assert_eq!(pool.counts().total, 0);
    pool.check();
}

#[test]
fn an_address_that_comes_back_to_the_source_has_not_forgotten_that_it_rests() {
    let mut pool = pool_of(5..=6);
    assign(&mut pool, 0, Moment::ZERO);
    pool.apply_view(&[]);
    pool.apply_view(&[]);
    pool.release(&key(0), Moment::ZERO);
    pool.apply_view(&[]);
    pool.apply_view(&view([5]));
    assert!(matches!(assign(&mut pool, 1, Moment::ZERO), Assignment::Exhausted(_)));
    assert_eq!(assign(&mut pool, 1, REST.cooldown), Assignment::Unswept);
    sweep(&mut pool, REST.cooldown);
    assert_eq!(assign(&mut pool, 1, REST.cooldown), new(5));
    pool.check();
}

#[test]
fn what_is_withdrawn_is_swept_only_when_it_comes_back_and_leaves_unswept() {
    let mut pool = pool_of(5..=6);
    assign(&mut pool, 0, Moment::ZERO);
    assign(&mut pool, 1, Moment::ZERO);
    pool.apply_view(&[]);
    pool.apply_view(&[]);
    assert!(!pool.offers(address(5)));
    pool.release(&key(0), Moment::ZERO);
    pool.release(&key(1), Moment::ZERO);
    assert_eq!(pool.begin_due_sweep(REST.cooldown), Due::default());
    pool.apply_view(&view([6]));
    assert!(pool.offers(address(6)));
    assert_eq!(pool.begin_due_sweep(REST.cooldown), Due { wholly: vec![address(6)], again: Vec::new() });
    pool.end_sweep(&[address(6)], REST.cooldown);
    pool.thaw(REST.cooldown);
    assert_eq!((pool.state(address(5)), pool.state(address(6))), (None, Some(&State::Free)));
    pool.check();
}

#[test]
fn a_quarantined_address_stays_so_when_the_source_forgets_it_for_a_while() {
    let mut pool = pool_of(5..=5);
    assert!(pool.quarantine(address(5), "a test".into()));
    pool.apply_view(&[]);
    assert_eq!(pool.apply_view(&[]), ViewChange::default());
    pool.apply_view(&view([5]));
    assert!(matches!(assign(&mut pool, 0, Moment::ZERO), Assignment::Exhausted(_)));
}

#[test]
fn a_reserved_address_is_not_lent_until_its_other_use_ends_and_it_has_rested() {
    let mut pool = pool_of(5..=6);
    assign(&mut pool, 0, Moment::ZERO);
    let used = [address(5), address(6), address(77)].map(|address| (address, "found on eth0".to_owned()));
    let (reserved, freed) = pool.reserve_exactly(&used, Moment::MAX, Moment::ZERO);
    assert_eq!(reserved, [(address(6), "found on eth0".to_owned())]);
    assert!(freed.is_empty());
    assert!(matches!(assign(&mut pool, 1, Moment::ZERO), Assignment::Exhausted(counts) if counts.reserved == 1));
    let ended = Duration::from_secs(100);
    assert_eq!(pool.reserve_exactly(&used, Moment::MAX, ended), (vec![], vec![]));
    assert_eq!(pool.reserve_exactly(&[], Moment::MAX, ended), (vec![], vec![address(6)]));
    assert_eq!(pool.cooling().collect::<Vec<_>>(), [(address(6), ended)]);
    assert!(matches!(assign(&mut pool, 1, ended), Assignment::Exhausted(counts) if counts.cooling == 1));
    pool.check();
    let rested = ended + COOLDOWN;
    assert_eq!(assign(&mut pool, 1, rested), Assignment::Unswept);
    let swept = pool.begin_sweep(rested);
    pool.end_sweep(&swept, rested);
    assert_eq!(assign(&mut pool, 1, rested), new(6));
    pool.check();
}

#[test]
fn an_address_that_comes_back_after_it_was_forgotten_is_lent_only_once_it_is_swept() {
    let mut pool = pool_of(5..=6);
    assign(&mut pool, 0, Moment::ZERO);
    pool.apply_view(&view([6]));
    pool.apply_view(&view([6]));
    let rested = COOLDOWN * 2;
    pool.release(&key(0), Moment::ZERO);
    pool.thaw(rested);
    assert_eq!(pool.counts().total, 1, "it rested as withdrawn, and nobody swept it");
    assign(&mut pool, 1, rested);
    assert_eq!(pool.apply_view(&view(5..=6)).added, [address(5)]);
    assert_eq!(assign(&mut pool, 2, rested), Assignment::Unswept);
    sweep(&mut pool, rested);
    assert_eq!(assign(&mut pool, 2, rested), new(5));
    pool.check();
}

#[test]
fn what_is_seen_of_a_pod_that_has_just_left_is_no_stranger_s_use() {
    let mut pool = pool_of(5..=6);
    assign(&mut pool, 0, Moment::ZERO);
    let (released, moment) = (Duration::from_secs(100), Duration::from_millis(1));
    pool.release(&key(0), released);
    let used = [(address(5), "routed to veth1".to_owned())];
    for seen in [released, released + LEAVING - moment] {
        assert_eq!(pool.reserve_exactly(&used, seen, seen), (vec![], vec![]));
        assert_eq!(pool.cooling().collect::<Vec<_>>(), [(address(5), released)]);
    }
    let (reserved, _) = pool.reserve_exactly(&used, released + LEAVING, released + LEAVING);
    assert_eq!(reserved, used);
    pool.check();
}

#[test]
fn a_delegated_lease_gets_no_link_by_a_word_that_comes_late() {
    let mut pool = pool_of(5..=6);
    let key = key(0);
    pool.assign(Wish { delegated: true, ..wish(&key, Moment::ZERO) }, Moment::ZERO);
    pool.rename_link(&key, HostLink { index: 7, name: "azv7".into() });
    assert_eq!(pool.lease(&key).unwrap().link, None);
}

#[test]
fn an_address_is_returned_only_if_nobody_needs_it() {
    let mut pool = pool_of(5..=6);
    assign(&mut pool, 0, Moment::ZERO);
    assert!(!pool.begin_return(address(5)));
    assert!(pool.begin_return(address(6)));
    assert_eq!(pool.counts().releasing, 1);
    assert!(matches!(assign(&mut pool, 1, Moment::ZERO), Assignment::Exhausted(_)));
    pool.check();
}

#[test]
fn a_lease_is_for_whoever_wires_the_pod_and_for_nobody_else() {
    for first in [false, true] {
        let mut pool = pool_of(5..=9);
        let (key, later) = (key(0), Duration::from_secs(9));
        let ask = |pool: &mut Pool, delegated, at| pool.assign(Wish { delegated, ..wish(&key, at) }, at);
        assert_eq!(ask(&mut pool, first, Moment::ZERO), new(5));
        assert_eq!(ask(&mut pool, !first, later), Assignment::HeldOtherwise);
        assert_eq!(pool.lease(&key).map(|lease| (lease.delegated, lease.started)), Some((first, Moment::ZERO)));
        assert!(matches!(ask(&mut pool, first, later), Assignment::Existing(lease) if lease.started == later));
        pool.check();
    }
}

#[test]
fn an_address_is_of_the_smallest_subnet_that_was_ever_seen_around_it() {
    let mut pool = Pool::new(REST);
    let offered = |n: u8, subnet: &str| PoolAddress { address: address(n), subnet: subnet.parse().unwrap(), nic: NIC };
    assert_eq!(pool.subnet_of(address(5)), None);
    pool.apply_view(&[offered(5, "10.240.0.0/16"), offered(70, "10.240.0.64/26")]);
    pool.apply_view(&[]);
    assert_eq!(pool.subnet_of(address(5)), Some("10.240.0.0/16".parse().unwrap()));
    assert_eq!(pool.subnet_of(address(70)), Some("10.240.0.64/26".parse().unwrap()));
    assert_eq!(pool.subnet_of(v6(5)), None);
}
