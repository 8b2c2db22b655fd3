//! The text a scrape gets: OpenMetrics 1.0, which Prometheus and everything made after it reads.

use std::fmt;
use std::sync::{Arc, Weak};

use dotfour_protocol::PoolCounts;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Metrics;
use crate::aftermath::Settler;
use crate::verbs::{Node, now};

/// The text's media type.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a node, by name.
#[derive(Debug)]
pub struct Exposition {
    registry: Registry,
    /// Makes sure that every call that is answered is counted.
    settler: Option<Settler>,
}

impl Exposition {
    /// The metrics of a node. Does not keep the node alive.
    pub fn of(node: &Arc<Node>, settler: Settler) -> Self {
        let mut exposition = Exposition::of_metrics(&node.metrics);
        exposition.settler = Some(settler);
        exposition.registry.register_collector(Box::new(Standing(Arc::downgrade(node))));
        exposition
    }

    pub(super) fn of_metrics(metrics: &Metrics) -> Self {
        let mut registry = Registry::with_prefix("dotfour");
        let seconds = || Unit::Seconds;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The daemon's version", build);
        registry.register_with_unit(
            "add_phase_duration",
            "How long each phase of an ADD took",
            seconds(),
            metrics.add_phases.clone(),
        );
        registry.register_with_unit(
            "call_duration",
            "How long ADD and DEL took: ADD from the plugin's start, DEL from the daemon's accept, to the end of the reply",
            seconds(),
            metrics.call_durations.clone(),
        );
        registry.register(
            "calls",
            "Calls answered, by what came of them and the CNI error code",
            metrics.calls.clone(),
        );
        registry.register("slow_adds", "ADDs that took as long as slowAdd or longer", metrics.slow_adds.clone());
        registry.register("spool_files", "Spooled DELs worked off, by what came of them", metrics.spool_files.clone());
        registry.register(
            "source_reports",
            "Looks at the address source since the start, by whether the pool could follow",
            metrics.source_reports.clone(),
        );
        registry.register(
            "swept_addresses",
            "Released addresses whose connections were looked for and removed, each sweep counted, by whether it succeeded",
            metrics.swept_addresses.clone(),
        );
        registry.register(
            "rules_applies",
            "Transactions that wrote table inet dotfour, by why and whether they succeeded",
            metrics.rules.applies.clone(),
        );
        registry.register(
            "masquerade_bad_files",
            "Files of the ip-masq-agent that cannot be used; the last good rules are in force",
            metrics.rules.bad_files.clone(),
        );
        Exposition { registry, settler: None }
    }

    /// The text at this moment.
    ///
    /// # Errors
    /// None that a string can cause.
    pub fn text(&self) -> Result<String, fmt::Error> {
        if let Some(settler) = &self.settler {
            settler.settle();
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// What the node knows anyway and is looked up when somebody asks.
#[derive(Debug)]
struct Standing(Weak<Node>);

impl Collector for Standing {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // The daemon ends.
        let Some(node) = self.0.upgrade() else { return Ok(()) };
        let counts = {
            let mut pool = node.ledger.pool();
            pool.thaw(now());
            pool.counts()
        };
        encode_pool(&counts, &mut encoder)?;
        let help = "Leases released because their pod's network namespace was gone, without a DEL.";
        encoder
            .encode_descriptor("leases_collected", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&node.collected(), None)
    }
}

/// The states of one moment, so that they add up to the pool's size in every scrape.
fn encode_pool(counts: &PoolCounts, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let PoolCounts { total: _, free, assigned, cooling, reserved, releasing, quarantined } = *counts;
    let help = "Pod addresses by state; all states together are the pool.";
    let mut metric = encoder.encode_descriptor("pool_addresses", help, None, MetricType::Gauge)?;
    for (state, count) in [
        ("free", free),
        ("assigned", assigned),
        ("cooling", cooling),
        ("reserved", reserved),
        ("releasing", releasing),
        ("quarantined", quarantined),
    ] {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        metric.encode_family(&[("state", state)])?.encode_gauge(&count)?;
    }
    Ok(())
}
