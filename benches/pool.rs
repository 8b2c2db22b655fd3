//! What does the pool cost, and does it stay flat?
//!
//! Cases (time per operation; a pool of 256, 4,096 or 65,536 addresses, half of them assigned):
//! - `assign+release/N`: a new key gets an address and gives it back; no cool-down, so that the same path repeats.
//! - `assign again/N`: a key that holds an address asks again.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use dotfour_benches::{half_full, key, wish};

fn pool(c: &mut Criterion) {
    let mut group = c.benchmark_group("pool");
    for size in [256, 4_096, 65_536] {
        let mut pool = half_full(size);
        let newcomer = key(size);
        group.bench_function(BenchmarkId::new("assign+release", size), |b| {
            b.iter(|| {
                black_box(pool.assign(wish(black_box(&newcomer)), Duration::ZERO));
                let lease = black_box(pool.release(black_box(&newcomer), Duration::ZERO));
                // Or it would never be lent again.
                if let Some(address) = lease.and_then(|lease| lease.addresses.iter().next()) {
                    pool.end_sweep(&[address], Duration::ZERO);
                }
            });
        });
        let holder = key(0);
        group.bench_function(BenchmarkId::new("assign again", size), |b| {
            b.iter(|| black_box(pool.assign(wish(black_box(&holder)), Duration::ZERO)));
        });
    }
    group.finish();
}

criterion_group!(benches, pool);
criterion_main!(benches);
