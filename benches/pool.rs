//! What does the pool cost, and does it stay flat?
//!
//! Cases (time per operation; a pool of 256, 4,096 or 65,536 addresses, half of them assigned):
//! - `assign+release/N`: a new key gets an address and gives it back; no cool-down, so that the same path repeats.
//! - `assign again/N`: a key that holds an address asks again.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use dotfour_ipamd::pool::{Pool, PoolAddress};
use dotfour_protocol::AttachmentKey;

fn key(n: u32) -> AttachmentKey {
    AttachmentKey { network: "azure".into(), container_id: format!("{n:064x}"), ifname: "eth0".into() }
}

fn half_full(size: u32) -> Pool {
    let mut pool = Pool::new(Duration::ZERO);
    let first = Ipv4Addr::new(10, 240, 0, 0).to_bits();
    let view: Vec<PoolAddress> = (first..first + size)
        .map(|bits| PoolAddress {
            address: Ipv4Addr::from_bits(bits).into(),
            subnet: "10.240.0.0/16".parse().unwrap(),
        })
        .collect();
    pool.apply_view(&view);
    for n in 0..size / 2 {
        pool.assign(&key(n), None, Duration::ZERO);
    }
    pool
}

fn pool(c: &mut Criterion) {
    let mut group = c.benchmark_group("pool");
    for size in [256, 4_096, 65_536] {
        let mut pool = half_full(size);
        let newcomer = key(size);
        group.bench_function(BenchmarkId::new("assign+release", size), |b| {
            b.iter(|| {
                black_box(pool.assign(black_box(&newcomer), None, Duration::ZERO));
                black_box(pool.release(black_box(&newcomer), Duration::ZERO));
            });
        });
        let holder = key(0);
        group.bench_function(BenchmarkId::new("assign again", size), |b| {
            b.iter(|| black_box(pool.assign(black_box(&holder), None, Duration::ZERO)));
        });
    }
    group.finish();
}

criterion_group!(benches, pool);
criterion_main!(benches);
