//! The ledger: what is committed is on file, also from many threads at once, also when the file failed in between.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::*;
use crate::lease::journal::{FILE, Identity, remember};
use crate::lease::recover::replay;
use crate::pool::tests::{key, sweep, view};
use crate::pool::{Families, PodAddresses, Rest};

fn identity() -> Identity {
    Identity { boot_id: "b".into(), machine_id: String::new() }
}

fn ledger(directory: &Path, size: u8) -> Ledger {
    let mut pool = Pool::new(Rest { cooldown: Duration::ZERO, floor: Duration::ZERO });
    pool.apply_view(&view(4..4 + size));
    Ledger::new(pool, Journal::new(directory, identity()))
}

fn wish(key: &Arc<AttachmentKey>) -> Wish<'_> {
    Wish {
        key,
        pod: None,
        families: Families::V4,
        asked: PodAddresses::default(),
        started: Duration::ZERO,
        delegated: false,
    }
}

fn on_file(directory: &Path) -> HashMap<Arc<AttachmentKey>, IpAddr> {
    let remembered = remember(directory, &identity());
    assert!(!remembered.incomplete, "{remembered:?}");
    let leases = replay(&remembered.records).leases;
    leases.into_iter().map(|(key, lease)| (key, lease.addresses.iter().next().unwrap())).collect()
}

fn in_pool(ledger: &Ledger) -> HashMap<Arc<AttachmentKey>, IpAddr> {
    let pool = ledger.pool();
    pool.leases().map(|(key, lease)| (Arc::clone(key), lease.addresses.iter().next().unwrap())).collect()
}

#[test]
fn each_change_is_on_file_once() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = ledger(directory.path(), 5);
    // Records of one length; the first commit writes the whole file.
    let lengths: Vec<u64> = (1..=5)
        .map(|n| {
            let (_, ticket) = ledger.assign(wish(&key(n)), Duration::ZERO);
            ledger.commit(ticket).unwrap();
            std::fs::metadata(directory.path().join(FILE)).unwrap().len()
        })
        .collect();
    let grown: Vec<u64> = lengths.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(grown[0] > 0 && grown.iter().all(|more| *more == grown[0]), "{lengths:?}");
}

#[test]
fn what_is_committed_is_on_file() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = ledger(directory.path(), 4);
    let (_, ticket) = ledger.assign(wish(&key(1)), Duration::ZERO);
    ledger.commit(ticket).unwrap();
    assert_eq!(on_file(directory.path()), in_pool(&ledger));
    let (_, ticket) = ledger.assign(wish(&key(2)), Duration::ZERO);
    ledger.commit(ticket).unwrap();
    ledger.commit(ledger.cancel(&key(1))).unwrap();
    assert_eq!(on_file(directory.path()), in_pool(&ledger));
    assert_eq!(in_pool(&ledger).len(), 1);
}

#[test]
fn parallel_callers_find_all_of_theirs_on_file_in_an_order_that_makes_sense() {
    let directory = tempfile::tempdir().unwrap();
    // Fewer addresses than keys, so that they change hands all the time.
    let ledger = ledger(directory.path(), 6);
    thread::scope(|scope| {
        for worker in 0..4_u8 {
            let ledger = &ledger;
            scope.spawn(move || {
                for round in 0..400_u32 {
                    let key = key(worker * 4 + u8::try_from(round % 4).unwrap());
                    sweep(&mut ledger.pool(), Duration::ZERO);
                    let (assignment, ticket) = ledger.assign(wish(&key), Duration::ZERO);
                    ledger.commit(ticket).unwrap();
                    if matches!(assignment, Assignment::New(_)) && round % 3 != 0 {
                        let (_, ticket) = ledger.release(&key, Duration::ZERO);
                        ledger.commit(ticket).unwrap();
                    } else if round % 7 == 0 {
                        ledger.commit(ledger.cancel(&key)).unwrap();
                    }
                    if round % 50 == 0 {
                        ledger.checkpoint().unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(on_file(directory.path()), in_pool(&ledger));
    ledger.pool().check();
}

#[test]
fn a_commit_that_fails_says_so_and_the_next_one_puts_all_on_file() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("state");
    let ledger = ledger(&directory, 4);
    let (_, ticket) = ledger.assign(wish(&key(1)), Duration::ZERO);
    assert_eq!(ledger.commit(ticket), Err(NotRecorded));
    std::fs::create_dir(&directory).unwrap();
    let (_, ticket) = ledger.assign(wish(&key(2)), Duration::ZERO);
    ledger.commit(ticket).unwrap();
    assert_eq!(on_file(&directory), in_pool(&ledger));
    assert_eq!(in_pool(&ledger).len(), 2);
}

#[test]
fn a_file_that_grows_is_written_anew_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = ledger(directory.path(), 4);
    let mut largest = 0;
    for _ in 0..3_000 {
        sweep(&mut ledger.pool(), Duration::ZERO);
        for n in 0..2 {
            let (_, ticket) = ledger.assign(wish(&key(n)), Duration::ZERO);
            ledger.commit(ticket).unwrap();
        }
        let (_, ticket) = ledger.release(&key(0), Duration::ZERO);
        ledger.commit(ticket).unwrap();
        largest = largest.max(std::fs::metadata(directory.path().join("leases.log")).unwrap().len());
    }
    assert!(largest < 300 * 1024, "{largest}");
    assert!(std::fs::metadata(directory.path().join("leases.log")).unwrap().len() < largest);
    assert_eq!(on_file(directory.path()), in_pool(&ledger));
}

#[test]
fn a_checkpoint_while_somebody_writes_is_of_the_whole_file_too() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = ledger(directory.path(), 4);
    ledger.checkpoint().unwrap();
    // What has no record of its own.
    let resting = ledger.pool().free().next().unwrap();
    ledger.pool().cool(resting, Duration::from_secs(7));
    let writer = ledger.lock().journal.take();
    thread::scope(|scope| {
        let checkpoint = scope.spawn(|| ledger.checkpoint());
        while ledger.lock().waiting == 0 {
            thread::yield_now();
        }
        ledger.lock().journal = writer;
        ledger.written.notify_all();
        checkpoint.join().unwrap().unwrap();
    });
    let remembered = remember(directory.path(), &identity());
    assert_eq!(replay(&remembered.records).cooling.get(&resting), Some(&Duration::from_secs(7)));
}

#[test]
fn a_lease_that_could_not_be_ended_is_on_record_again_unless_its_address_is_another_s() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = ledger(directory.path(), 1);
    ledger.commit(ledger.assign(wish(&key(1)), Duration::ZERO).1).unwrap();
    let (lease, ticket) = ledger.release(&key(1), Duration::ZERO);
    let lease = lease.unwrap();
    // Somebody else's write of the whole file.
    ledger.checkpoint().unwrap();
    ledger.commit(ticket).unwrap();
    assert!(on_file(directory.path()).is_empty());
    assert!(ledger.restore(&key(1), &lease, 2));
    assert_eq!(on_file(directory.path()), in_pool(&ledger));
    assert_eq!(in_pool(&ledger).len(), 1);

    ledger.commit(ledger.release(&key(1), Duration::ZERO).1).unwrap();
    sweep(&mut ledger.pool(), Duration::ZERO);
    ledger.commit(ledger.assign(wish(&key(2)), Duration::ZERO).1).unwrap();
    assert!(!ledger.restore(&key(1), &lease, 2));
    assert_eq!(in_pool(&ledger).into_keys().collect::<Vec<_>>(), [key(2)]);
    assert_eq!(on_file(directory.path()), in_pool(&ledger));
}
