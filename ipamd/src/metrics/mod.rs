//! What the daemon counts and times, for Prometheus. `docs/metrics.md` lists every metric.
//!
//! - [`phases`] is the stopwatch of one call; [`Metrics`] is where its times and results are added up.
//! - [`slow`] is the line in the log for an ADD that took long.
//! - [`exposition`] is the text a scrape gets; [`endpoint`] serves it on the configured socket.
//!
//! An observation takes about 20 ns (100 ns with four threads at it all the time), so everything is counted always, whether
//! somebody scrapes or not.

pub mod endpoint;
pub mod exposition;
mod fixed;
pub mod phases;
mod rules;
pub mod slow;

use std::time::Duration;

use dotfour_protocol::{Call, Cause, Failure, Reply, Request};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use fixed::Fixed;
pub use phases::{Phase, Phases};
pub use rules::{RulesMetrics, RulesReason};

/// Upper bounds of the histograms' buckets, in seconds: from what the quickest phase takes to longer than any runtime waits.
pub const BUCKETS: [f64; 20] = [
    10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    10.0, 20.0,
];

/// What a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// CNI ADD.
    Add,
    /// CNI ADD of `dotfour-ipam`, for a pod that another plugin wires.
    Assign,
    /// CNI DEL.
    Del,
    /// CNI CHECK.
    Check,
    /// CNI GC.
    Gc,
    /// CNI STATUS.
    Ready,
    /// `dotfourctl`.
    Status,
    /// A message that is not understood.
    Unknown,
}

impl Verb {
    /// What a request asks for.
    pub fn of(request: &Result<Request, Failure>) -> Self {
        match request.as_ref().map(|request| &request.call) {
            Ok(Call::Add(_)) => Verb::Add,
            Ok(Call::Assign(_)) => Verb::Assign,
            Ok(Call::Del(_)) => Verb::Del,
            Ok(Call::Check(_)) => Verb::Check,
            Ok(Call::Gc(_)) => Verb::Gc,
            Ok(Call::Ready) => Verb::Ready,
            Ok(Call::Status(_)) => Verb::Status,
            Err(_) => Verb::Unknown,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Verb::Add => "add",
            Verb::Assign => "assign",
            Verb::Del => "del",
            Verb::Check => "check",
            Verb::Gc => "gc",
            Verb::Ready => "status",
            Verb::Status => "dotfourctl",
            Verb::Unknown => "unknown",
        }
    }
}

/// What became of a file in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spooled {
    /// It ended an attachment.
    Released,
    /// Its attachment was added again since.
    AddedSince,
    /// Nobody knows its attachment.
    Unknown,
    /// It is no DEL, and was moved to `bad/`.
    SetAside,
}

/// What came of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepResult {
    /// Nothing remembers the addresses' connections any more.
    Ok,
    /// The kernel refused.
    Failed,
}

const SPOOLED: [&str; 4] = ["released", "added-since", "unknown", "set-aside"];

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// `ok`, `reply-lost`, or a cause's name.
    pub result: &'static str,
    /// The CNI error code; 0 for success.
    pub code: u32,
}

impl Outcome {
    /// The call succeeded, and nobody was there to hear it.
    pub const UNHEARD: Outcome = Outcome { result: "reply-lost", code: 0 };

    /// What a reply says, and whether somebody heard it.
    pub fn of(reply: &Reply, heard: bool) -> Self {
        match reply {
            Reply::Failed(failure) => Outcome { result: cause_name(failure), code: failure.code },
            _ if heard => Outcome { result: OK, code: 0 },
            _ => Outcome::UNHEARD,
        }
    }
}

const OK: &str = "ok";

/// Who called and what came of it.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    verb: &'static str,
    result: &'static str,
    code: u32,
}

/// Everything that is counted. All calls may come from any thread.
#[derive(Debug)]
pub struct Metrics {
    slow_add: Duration,
    add_phases: Fixed<Histogram, 1>,
    /// ADD and DEL, each answered with success and with a failure.
    call_durations: Fixed<Histogram, 2>,
    calls: Family<CallLabels, Counter>,
    slow_adds: Counter,
    spool_files: Fixed<Counter, 1>,
    /// Usable and not.
    source_reports: Fixed<Counter, 1>,
    /// Addresses swept, and addresses that could not be.
    swept_addresses: Fixed<Counter, 1>,
    /// What is counted of the node's rules.
    pub rules: RulesMetrics,
}

impl Metrics {
    /// Everything at zero. An ADD that takes `slow_add` or more is a slow one.
    pub fn new(slow_add: Duration) -> Self {
        let histogram = || Histogram::new(BUCKETS);
        let ends = [OK, "failed"];
        let durations =
            ["add", "del"].into_iter().flat_map(|verb| ends.map(|result| [("verb", verb), ("result", result)]));
        let metrics = Metrics {
            slow_add,
            add_phases: Fixed::new(Phase::ALL.map(|phase| [("phase", phase.name())]), histogram),
            call_durations: Fixed::new(durations, histogram),
            calls: Family::default(),
            slow_adds: Counter::default(),
            spool_files: Fixed::new(SPOOLED.map(|outcome| [("outcome", outcome)]), Counter::default),
            source_reports: Fixed::new(ends.map(|result| [("result", result)]), Counter::default),
            swept_addresses: Fixed::new(ends.map(|result| [("result", result)]), Counter::default),
            rules: RulesMetrics::new(),
        };
        for verb in [Verb::Add, Verb::Del] {
            // A rate can only be taken from what was there before.
            drop(metrics.calls.get_or_create(&CallLabels { verb: verb.name(), result: OK, code: 0 }));
        }
        metrics
    }

    /// Whether a call that is over is a slow ADD.
    pub fn is_slow(&self, verb: Verb, phases: &Phases) -> bool {
        verb == Verb::Add && phases.total() >= self.slow_add
    }

    /// Counts a call that is over.
    pub fn call(&self, verb: Verb, outcome: Outcome, phases: &Phases) {
        let Outcome { result, code } = outcome;
        self.calls.get_or_create(&CallLabels { verb: verb.name(), result, code }).inc();
        let first = match verb {
            Verb::Add => 0,
            Verb::Del => 2,
            Verb::Assign | Verb::Check | Verb::Gc | Verb::Ready | Verb::Status | Verb::Unknown => return,
        };
        let total = phases.total();
        if let Some(histogram) = self.call_durations.at(first + usize::from(result != OK)) {
            histogram.observe(total.as_secs_f64());
        }
        if verb != Verb::Add {
            return;
        }
        for phase in Phase::ALL {
            if let (Some(took), Some(histogram)) = (phases.took(phase), self.add_phases.at(phase as usize)) {
                histogram.observe(took.as_secs_f64());
            }
        }
        if self.is_slow(verb, phases) {
            self.slow_adds.inc();
        }
    }

    /// Counts a file of the spool that is done with.
    pub fn spooled(&self, outcome: Spooled) {
        if let Some(counter) = self.spool_files.at(outcome as usize) {
            counter.inc();
        }
    }

    /// Counts a look at the address source.
    pub fn source_report(&self, usable: bool) {
        if let Some(counter) = self.source_reports.at(usize::from(!usable)) {
            counter.inc();
        }
    }

    /// Counts a sweep of so many addresses' connections.
    pub fn swept(&self, result: SweepResult, addresses: usize) {
        if let Some(counter) = self.swept_addresses.at(result as usize) {
            counter.inc_by(u64::try_from(addresses).unwrap_or(u64::MAX));
        }
    }
}

/// The failure's cause, if it is one of the table's; a label must not take any text there is.
fn cause_name(failure: &Failure) -> &'static str {
    let known = Cause::ALL.iter().map(|cause| cause.name()).find(|name| *name == failure.cause);
    known.unwrap_or(Cause::Internal.name())
}

#[cfg(test)]
mod strict;
#[cfg(test)]
mod tests;
