//! Recovery: link by link, and every cut of a recorded run against what the run had come to.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use dotfour_protocol::PodName;
use proptest::prelude::*;

use super::*;
use crate::lease::ledger::snapshot;
use crate::lease::record::{Contents, read};
use crate::pool::tests::{address, key, sweep, view};
use crate::pool::{Assignment, Covered, Families, Rest, State, Wish};

const NIC: u32 = 2;
const REST: Rest = Rest { cooldown: Duration::from_secs(30), floor: Duration::from_secs(5) };

fn link(index: u32, name: &str, alias: &str, group: u32) -> Link {
    Link { index, name: name.into(), alias: Some(alias.into()), group, ..Link::default() }
}

fn pool(size: u8) -> Pool {
    let mut pool = Pool::new(REST);
    pool.apply_view(&view(5..5 + size));
    pool
}

fn complete(records: Vec<Record>) -> Remembered {
    Remembered { records, ..Remembered::default() }
}

#[test]
fn each_kind_of_link_is_told_apart() {
    let found = find(&[
        link(2, "eth0", "", 0),
        link(70, "azv1", "dotfour/1 eth0 10.240.0.5 azure c1", 0),
        link(71, "azv2", "dotfour/1 eth0 10.240.0.6 azure c2", *CONDEMNED_GROUPS.start()),
        link(72, "azv3", "", 0),
        link(73, "azv4", "dotfour/9 of the future", 0),
        link(74, "br0", "somebody's", *CONDEMNED_GROUPS.start()),
    ]);
    assert_eq!(found.pods.len(), 1);
    assert_eq!(found.pods[0].0.key.container_id, "c1");
    assert_eq!(found.pods[0].1.index, 70);
    assert_eq!(found.condemned_groups, [*CONDEMNED_GROUPS.start()].into());
    assert_eq!(found.foreign, ["azv3", "azv4"]);
}

#[test]
fn two_links_with_one_address_keep_it_from_a_third_and_are_reported() {
    let mut pool = pool(2);
    let found = find(&[
        link(70, "azv1", "dotfour/1 eth0 10.240.0.5 azure c1", 0),
        link(71, "azv2", "dotfour/1 eth0 10.240.0.5 azure c2", 0),
        link(72, "azv3", "dotfour/1 eth0 10.240.0.6 azure c1", 0),
        link(73, "azv4", "dotfour/1 eth0 10.240.0.99 azure c3", 0),
    ]);
    let restored = restore(&mut pool, &found, &complete(vec![]), NIC, Duration::ZERO);
    assert_eq!(restored.findings.len(), 3, "{:?}", restored.findings);
    assert!(matches!(pool.state(address(6)), Some(State::Quarantined { .. })));
    assert_eq!(pool.counts().assigned, 2);
    assert_eq!(pool.counts().free, 0);
    pool.check();
}

#[test]
fn the_journal_gives_a_link_its_pod_s_name_and_a_rest_its_beginning() {
    let mut pool = pool(4);
    let pod = Arc::new(PodName { namespace: "default".into(), name: "web-0".into() });
    let assigned = |n: u8, last: u8, pod: Option<Arc<PodName>>| Record::Assigned {
        key: key(n),
        pod,
        addresses: vec![address(last)],
        started: Duration::from_secs(1),
        delegated: false,
    };
    let records = vec![
        assigned(1, 5, Some(pod.clone())),
        assigned(2, 6, None),
        assigned(3, 7, None),
        Record::Released { key: key(3), since: Duration::from_secs(8) },
        Record::Ended { key: key(9), at: Duration::from_secs(9) },
    ];
    let found = find(&[link(70, "azv1", "dotfour/1 eth0 10.240.0.5 azure c1", 0)]);
    let now = Duration::from_secs(10);
    let restored = restore(&mut pool, &found, &complete(records), NIC, now);
    let lease = pool.lease(&key(1)).unwrap();
    assert_eq!((lease.pod.as_ref(), lease.started), (Some(&pod), Duration::from_secs(1)));
    assert_eq!(restored.collected, [key(2)], "its link is gone");
    let cooling: Vec<_> = pool.cooling().collect();
    assert_eq!(cooling, [(address(7), Duration::from_secs(8)), (address(6), now)]);
    assert_eq!(pool.assign(wish(&key(9), Duration::from_secs(9)), now), Assignment::Overtaken);
    assert_eq!(pool.assign(wish(&key(9), now), now), Assignment::New(address(8).into()));
    pool.check();
}

#[test]
fn what_the_journal_says_of_a_key_with_other_addresses_is_not_believed() {
    let mut pool = pool(4);
    let stale = Record::Assigned {
        key: key(1),
        pod: Some(Arc::new(PodName { namespace: "old".into(), name: "old".into() })),
        addresses: vec![address(8)],
        started: Duration::from_secs(1),
        delegated: false,
    };
    let found = find(&[link(70, "azv1", "dotfour/1 eth0 10.240.0.5 azure c1", 0)]);
    restore(&mut pool, &found, &complete(vec![stale]), NIC, Duration::from_secs(10));
    assert_eq!(pool.lease(&key(1)).unwrap().pod, None);
    assert_eq!(pool.counts().assigned, 1);
    pool.check();
}

#[test]
fn after_a_lost_journal_all_that_is_not_in_use_rests_first() {
    let lost = Remembered { incomplete: true, ..Remembered::default() };
    let found = find(&[link(70, "azv1", "dotfour/1 eth0 10.240.0.5 azure c1", 0)]);
    let mut with_pods = pool(4);
    restore(&mut with_pods, &found, &lost, NIC, Duration::from_secs(10));
    assert_eq!((with_pods.counts().free, with_pods.counts().cooling), (0, 3));
    // Nothing was ever wired: a fresh node.
    let mut fresh = pool(4);
    restore(&mut fresh, &Found::default(), &lost, NIC, Duration::from_secs(10));
    assert_eq!(fresh.counts().free, 4);
}

#[test]
fn a_delegated_lease_needs_no_link_and_gives_way_to_one() {
    let delegated = |n: u8, last: u8| Record::Assigned {
        key: key(n),
        pod: None,
        addresses: vec![address(last)],
        started: Duration::from_secs(1),
        delegated: true,
    };
    let now = Duration::from_secs(10);
    let mut pool = pool(4);
    let records = vec![
        delegated(1, 5),
        delegated(2, 6),
        Record::Released { key: key(2), since: Duration::from_secs(9) },
        delegated(3, 7),
        delegated(4, 99),
    ];
    let link = find(&[link(70, "azv1", "dotfour/1 eth0 10.240.0.7 azure c9", 0)]);
    let restored = restore(&mut pool, &link, &complete(records), NIC, now);
    assert!(restored.collected.is_empty(), "{:?}", restored.collected);
    assert_eq!(restored.pods, 3);
    assert_eq!(restored.findings.len(), 2, "{:?}", restored.findings);
    assert!(restored.findings.iter().any(|finding| finding.contains("its pod is left alone")));
    let held = |n| pool.lease(&key(n)).map(|lease| (lease.delegated, lease.addresses));
    assert_eq!(held(1), Some((true, address(5).into())));
    assert_eq!(held(3), None, "a living link has its address");
    assert_eq!(held(4), Some((true, address(99).into())), "the source does not report it any more");
    assert_eq!(held(9), Some((false, address(7).into())));
    pool.check();
    // A journal that is written anew says the same.
    let again = complete(read(&snapshot(&pool)).records);
    let mut once_more = super::tests::pool(4);
    restore(&mut once_more, &link, &again, NIC, now);
    assert_eq!(once_more.lease(&key(1)), pool.lease(&key(1)));
}

#[test]
fn after_a_damaged_journal_all_rests_first_if_a_delegated_lease_is_left() {
    let record = Record::Assigned {
        key: key(1),
        pod: None,
        addresses: vec![address(5)],
        started: Duration::from_secs(1),
        delegated: true,
    };
    let damaged = Remembered { incomplete: true, ..complete(vec![record]) };
    let mut pool = pool(4);
    restore(&mut pool, &Found::default(), &damaged, NIC, Duration::from_secs(10));
    assert_eq!((pool.counts().assigned, pool.counts().free, pool.counts().cooling), (1, 0, 3));
}

#[test]
fn what_rests_and_is_not_reported_at_a_start_still_rests_when_it_comes_back() {
    let mut pool = pool(1);
    let (gone, since) = (address(6), Duration::from_secs(3));
    let records = vec![Record::Cooling { address: gone, since }];
    restore(&mut pool, &find(&[]), &complete(records.clone()), NIC, Duration::from_secs(4));
    assert!(!pool.offers(gone));
    // And on record, for the next start.
    assert_eq!(read(&snapshot(&pool)).records, records);
    pool.apply_view(&view([5, 6]));
    assert!(pool.offers(gone));
    assert_eq!(pool.state(gone), Some(&State::Cooling { since, swept: None }));
    pool.check();
}

#[test]
fn moments_of_the_future_count_as_now() {
    let mut pool = pool(1);
    let records = vec![Record::Cooling { address: address(5), since: Duration::from_secs(10_000_000) }];
    restore(&mut pool, &Found::default(), &complete(records), NIC, Duration::from_secs(10));
    assert_eq!(pool.cooling().next(), Some((address(5), Duration::from_secs(10))));
}

fn wish(key: &Arc<AttachmentKey>, started: Moment) -> Wish<'_> {
    Wish { key, pod: None, families: Families::V4, asked: PodAddresses::default(), started, delegated: false }
}

/// A pool whose changes are recorded as the ledger records them, and the links that the kernel would have.
struct Run {
    pool: Pool,
    journal: Vec<u8>,
    now: Duration,
    links: Vec<Link>,
    /// The journal's length, and the truth at that point.
    history: Vec<(usize, Truth)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Truth {
    leases: BTreeMap<String, IpAddr>,
    cooling: BTreeSet<(IpAddr, Duration)>,
    links: Vec<Link>,
}

impl Run {
    fn new(size: u8) -> Self {
        let (pool, now) = (pool(size), Duration::from_secs(100));
        let mut run = Run { pool, journal: Vec::new(), now, links: vec![], history: vec![] };
        run.remember();
        run
    }

    fn remember(&mut self) {
        self.history.push((self.journal.len(), truth(&self.pool, &self.links)));
    }

    fn add(&mut self, n: u8) {
        let key = key(n);
        sweep(&mut self.pool, self.now);
        let assignment = self.pool.assign(wish(&key, self.now), self.now);
        let (addresses, new) = match assignment {
            Assignment::New(addresses) => (addresses, true),
            Assignment::Existing(lease) => (lease.addresses, false),
            _ => return,
        };
        let listed = addresses.iter().collect();
        Record::Assigned { key: Arc::clone(&key), pod: None, addresses: listed, started: self.now, delegated: false }
            .append_to(&mut self.journal);
        if new {
            let index = 1_000 + u32::from(n);
            let tag = Tag { key: Arc::clone(&key), addresses };
            self.links.push(link(index, &format!("azv{n}"), &tag.to_string(), 0));
            self.pool.set_link(&key, HostLink { index, name: format!("azv{n}") });
        }
        self.remember();
    }

    fn del(&mut self, n: u8) {
        match self.pool.cover(&key(n), self.now, self.now) {
            Covered::Lease(lease) => {
                self.links.retain(|link| Some(link.index) != lease.link_index());
                self.pool.release(&key(n), self.now);
                Record::Released { key: key(n), since: self.now }.append_to(&mut self.journal);
            }
            Covered::Unknown => Record::Ended { key: key(n), at: self.now }.append_to(&mut self.journal),
            Covered::AddedSince => unreachable!("a DEL of now"),
        }
        self.remember();
    }
}

impl Truth {
    /// Without the rests that are over at a moment: whether they are called free already makes no difference.
    fn at(mut self, now: Duration) -> Self {
        self.cooling.retain(|(_, since)| *since + REST.cooldown > now);
        self
    }
}

fn truth(pool: &Pool, links: &[Link]) -> Truth {
    Truth {
        leases: pool.leases().map(|(key, lease)| (key.to_string(), lease.addresses.iter().next().unwrap())).collect(),
        // Of those released in the same moment none is the older.
        cooling: pool.cooling().collect::<BTreeSet<_>>(),
        links: links.to_vec(),
    }
}

fn recovered(links: &[Link], contents: Contents, size: u8, now: Duration) -> Pool {
    let remembered = Remembered { incomplete: contents.damage.is_some(), records: contents.records, findings: vec![] };
    let mut pool = pool(size);
    restore(&mut pool, &find(links), &remembered, NIC, now);
    pool.check();
    pool
}

fn steps() -> impl Strategy<Value = Vec<(bool, u8, u8)>> {
    proptest::collection::vec((any::<bool>(), 0..6_u8, 0..20_u8), 1..40)
}

fn run(steps: &[(bool, u8, u8)], size: u8) -> Run {
    let mut run = Run::new(size);
    for &(add, n, wait) in steps {
        run.now += Duration::from_secs(wait.into());
        if add { run.add(n) } else { run.del(n) }
    }
    run
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// kill -9 between two calls: kernel and journal are whole, and so is what is recovered.
    #[test]
    fn a_daemon_killed_between_calls_loses_nothing(steps in steps(), size in 1..6_u8) {
        let run = run(&steps, size);
        for (length, truth_then) in &run.history {
            let pool = recovered(&truth_then.links, read(&run.journal[..*length]), size, run.now);
            prop_assert_eq!(truth(&pool, &truth_then.links).at(run.now), truth_then.clone().at(run.now));
        }
    }

    /// The journal cut or corrupted at every byte, with the links as they are at the end of the run.
    #[test]
    fn a_journal_damaged_at_any_byte_never_costs_a_lease_nor_lends_an_address_twice(steps in steps(), size in 1..6_u8) {
        let run = run(&steps, size);
        let end = truth(&run.pool, &run.links);
        for offset in 0..=run.journal.len() {
            let cut = read(&run.journal[..offset]);
            let mut bytes = run.journal.clone();
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 0x55;
            }
            for (contents, damaged) in [(cut, offset < run.journal.len()), (read(&bytes), offset < run.journal.len())] {
                let noticed = contents.damage.is_some();
                let mut pool = recovered(&run.links, contents, size, run.now);
                prop_assert_eq!(&truth(&pool, &run.links).leases, &end.leases);
                if !damaged {
                    prop_assert_eq!(truth(&pool, &run.links).at(run.now), end.clone().at(run.now));
                }
                // What was lent a moment ago is not lent at once, wherever damage is to be seen.
                if noticed && !run.links.is_empty() {
                    prop_assert_eq!(pool.counts().free, 0);
                }
                let taken: HashSet<IpAddr> = end.leases.values().copied().collect();
                let later = run.now + REST.cooldown;
                sweep(&mut pool, later);
                for n in 100..100 + size {
                    let key = key(n);
                    if let Assignment::New(addresses) = pool.assign(wish(&key, later), later) {
                        prop_assert!(addresses.iter().all(|address| !taken.contains(&address)));
                    }
                }
            }
        }
    }

    /// A file written anew says the same as the records that led to it.
    #[test]
    fn a_snapshot_replays_to_the_same_pool(steps in steps(), size in 1..6_u8) {
        let run = run(&steps, size);
        let from_snapshot = replay(&read(&snapshot(&run.pool)).records);
        let mut from_records = replay(&read(&run.journal).records);
        // A rest that is over may still stand in the records, and an ended key that was added again is not in either.
        from_records.cooling.retain(|address, _| from_snapshot.cooling.contains_key(address));
        prop_assert_eq!(from_snapshot, from_records);
    }
}
