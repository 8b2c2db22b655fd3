//! What is counted of the node's rules.

use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::fixed::Fixed;

/// Why the rules were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RulesReason {
    /// The daemon started, and they were not in force or not as they should be.
    Start,
    /// Files or addresses changed.
    Changed,
    /// Somebody else had changed or removed them.
    Restored,
}

impl RulesReason {
    const ALL: [RulesReason; 3] = [RulesReason::Start, RulesReason::Changed, RulesReason::Restored];

    const fn name(self) -> &'static str {
        match self {
            RulesReason::Start => "start",
            RulesReason::Changed => "changed",
            RulesReason::Restored => "restored",
        }
    }

    /// The reason as an operator reads it.
    pub const fn why(self) -> &'static str {
        match self {
            RulesReason::Start => "since the daemon starts",
            RulesReason::Changed => "since files or addresses changed",
            RulesReason::Restored => "after it was not as it should be",
        }
    }
}

/// Counts of the node's rules. Its clones are the same counts.
#[derive(Debug, Clone)]
pub struct RulesMetrics {
    /// Each reason with success and with failure.
    pub(super) applies: Fixed<Counter, 2>,
    pub(super) bad_files: Gauge<i64, AtomicI64>,
}

impl RulesMetrics {
    pub(super) fn new() -> Self {
        let results =
            |reason: RulesReason| ["ok", "failed"].map(|result| [("reason", reason.name()), ("result", result)]);
        RulesMetrics {
            applies: Fixed::new(RulesReason::ALL.into_iter().flat_map(results), Counter::default),
            bad_files: Gauge::default(),
        }
    }

    /// Counts a transaction, or a failure to make one.
    pub fn applied(&self, reason: RulesReason, ok: bool) {
        if let Some(counter) = self.applies.at(2 * reason as usize + usize::from(!ok)) {
            counter.inc();
        }
    }

    /// Says how many files of the ip-masq-agent are bad now.
    pub fn bad_files(&self, count: usize) {
        self.bad_files.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
