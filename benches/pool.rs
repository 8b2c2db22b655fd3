//! What does the pool cost, and does it stay flat?
//!
//! Cases (time per operation; a pool of 256, 4,096 or 65,536 addresses, half of them assigned):
//! - `assign+release/N`: a new key gets an address and gives it back; no cool-down, so that the same path repeats. In
//!   turns of 64, behind each of which the addresses count as swept: that is no verb's work, and not timed.
//! - `assign again/N`: a key that holds an address asks again.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use dotfour_benches::{half_full, key, wish};

/// So many pods come and go between two sweeps.
const TURN: u64 = 64;

fn pool(c: &mut Criterion) {
    let mut group = c.benchmark_group("pool");
    for size in [256, 4_096, 65_536] {
        let mut pool = half_full(size);
        let newcomer = key(size);
        group.bench_function(BenchmarkId::new("assign+release", size), |b| {
            b.iter_custom(|mut times| {
                let mut took = Duration::ZERO;
                while times > 0 {
                    let turn = times.min(TURN);
                    times -= turn;
                    let begin = Instant::now();
                    for _ in 0..turn {
                        black_box(pool.assign(wish(black_box(&newcomer)), Duration::ZERO));
                        black_box(pool.release(black_box(&newcomer), Duration::ZERO));
                    }
                    took += begin.elapsed();
                    // Or they would never be lent again.
                    let resting: Vec<IpAddr> = pool.cooling().map(|(address, _)| address).collect();
                    assert_eq!(resting.len() as u64, turn, "every turn lends and takes back");
                    pool.end_sweep(&resting, Duration::ZERO);
                }
                took
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
