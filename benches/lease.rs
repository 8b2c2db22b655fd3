//! What does it cost to have a lease on record, and to restore it?
//!
//! Cases:
//! - `recorded/assign+release`: both committed to a journal on a tmpfs (`/dev/shm`), so two recorded changes per operation.
//! - `recorded/snapshot/N`: the records of N leases, as a file is written anew.
//! - `recover/N`: N links and the journal of N leases to a pool that serves.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use dotfour_benches::{NIC, REST, half_full, key, view, wish};
use dotfour_datapath::link::Link;
use dotfour_ipamd::lease::journal::{Identity, Journal, judge};
use dotfour_ipamd::lease::ledger::{Ledger, snapshot};
use dotfour_ipamd::lease::{record, recover};
use dotfour_ipamd::pool::Pool;
use dotfour_ipamd::wiring::tag::Tag;

fn identity() -> Identity {
    Identity { boot_id: "b".into(), machine_id: String::new() }
}

fn recorded(c: &mut Criterion) {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let ledger = Ledger::new(half_full(256), Journal::new(directory.path(), identity()));
    let newcomer = key(256);
    c.bench_function("recorded/assign+release", |b| {
        b.iter(|| {
            let (_, ticket) = ledger.assign(wish(&newcomer), Duration::ZERO);
            ledger.commit(ticket).unwrap();
            let (lease, ticket) = ledger.release(&newcomer, Duration::ZERO);
            ledger.commit(ticket).unwrap();
            let addresses: Vec<_> = lease.unwrap().addresses.iter().collect();
            ledger.pool().end_sweep(&addresses, Duration::ZERO);
        });
    });
    for leases in [250, 1_000] {
        let pool = half_full(leases * 2);
        c.bench_function(&format!("recorded/snapshot/{leases}"), |b| b.iter(|| black_box(snapshot(&pool))));
    }
}

fn recover_leases(c: &mut Criterion) {
    let mut group = c.benchmark_group("recover");
    for leases in [250, 1_000] {
        let size = leases * 2;
        let before = half_full(size);
        let mut file = Vec::new();
        record::Record::Header { schema: 1, oldest_reader: 1, boot_id: "b".into(), machine_id: String::new() }
            .append_to(&mut file);
        file.extend(snapshot(&before));
        let links: Vec<Link> = before
            .leases()
            .zip(0x4000_0000..)
            .map(|((key, lease), index)| {
                let tag = Tag { key: Arc::clone(key), addresses: lease.addresses };
                Link { index, name: format!("azv{index:x}"), alias: tag.to_alias(), ..Link::default() }
            })
            .collect();
        group.bench_function(BenchmarkId::from_parameter(leases), |b| {
            b.iter_batched(
                || {
                    let mut pool = Pool::new(REST);
                    pool.apply_view(&view(size));
                    pool
                },
                |mut pool| {
                    let remembered = judge(record::read(&file), &identity());
                    let found = recover::find(&links);
                    let restored = recover::restore(&mut pool, &found, &remembered, NIC, Duration::ZERO);
                    assert_eq!(restored.pods, usize::try_from(leases).unwrap());
                    pool
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, recorded, recover_leases);
criterion_main!(benches);
