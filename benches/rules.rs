//! What does it cost to plan the masquerade rules, to write them down, and to see that nothing has changed?
//!
//! Cases, each with 10, 1,000 and 10,000 exempt networks:
//! - `rules/plan/N`: from configuration and file to a plan, with its networks merged.
//! - `rules/table/N`: from the plan to the table, with its checksum.
//! - `rules/transaction/N`: from the table to the text that `nft` reads.
//! - `rules/equal/N`: the table as it should look compared with how it does look; this is all that a resync costs beside
//!   the listing.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use dotfour_ipamd::config::{Masquerade, Metadata};
use dotfour_ipamd::rules::agent_files::AgentSettings;
use dotfour_ipamd::rules::plan::{Inputs, plan};
use dotfour_ipamd::rules::table::Content;
use ipnet::{IpNet, Ipv4Net};

const SIZES: [u32; 3] = [10, 1_000, 10_000];

/// Every second /24 of 10.0.0.0/8, so that no two of them merge.
fn settings(size: u32) -> AgentSettings {
    let nets = (0..size).map(|n| {
        IpNet::from(Ipv4Net::new_assert(Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + n * 512), 24))
    });
    AgentSettings { cidrs: nets.collect(), ..AgentSettings::default() }
}

fn rules(c: &mut Criterion) {
    let masquerade = Masquerade { vnet_cidrs: vec!["10.240.0.0/16".parse().unwrap()], ..Masquerade::default() };
    let pods: [IpNet; 2] = ["10.240.0.0/16".parse().unwrap(), "fd00:10::/64".parse().unwrap()];
    let mut group = c.benchmark_group("rules");
    for size in SIZES {
        let settings = settings(size);
        let inputs = Inputs {
            masquerade: &masquerade,
            metadata: Metadata::Allow,
            agent: Some(&settings),
            nic: "eth0",
            node: Ipv4Addr::new(10, 240, 0, 4),
            node_v6: Some("fd00:10::4".parse().unwrap()),
            azure_pods: &pods,
            kubenet_pods: &[],
        };
        group.bench_function(BenchmarkId::new("plan", size), |b| b.iter(|| plan(black_box(&inputs))));
        let planned = plan(&inputs).plan;
        group.bench_function(BenchmarkId::new("table", size), |b| b.iter(|| Content::of(black_box(&planned))));
        let content = Content::of(&planned);
        let present = content.outline();
        group.bench_function(BenchmarkId::new("transaction", size), |b| {
            b.iter(|| serde_json::to_string(&content.transaction(Some(black_box(&present)))).unwrap());
        });
        group.bench_function(BenchmarkId::new("equal", size), |b| b.iter(|| content.outline() == *black_box(&present)));
    }
    group.finish();
}

criterion_group!(benches, rules);
criterion_main!(benches);
