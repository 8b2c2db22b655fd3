//! What is counted where, and that the text of a scrape is what the format's specification asks for.

use super::exposition::Exposition;
use super::strict::{Sample, read_strictly};
use super::*;
use crate::pool::Moment;

fn scrape(metrics: &Metrics) -> Vec<Sample> {
    read_strictly(&Exposition::of_metrics(metrics).text().unwrap())
}

fn value(samples: &[Sample], name: &str, labels: &[&str]) -> Option<f64> {
    let fits = |sample: &&Sample| sample.0 == name && labels.iter().all(|label| sample.1.contains(label));
    let found: Vec<&Sample> = samples.iter().filter(fits).collect();
    assert!(found.len() < 2, "{name} {labels:?} are {found:?}");
    found.first().map(|sample| sample.2)
}

/// The phases of an ADD that was dialled so long, and then took no time.
fn dialled(dial: Duration) -> Phases {
    let accepted = Moment::from_secs(1000);
    let phases = Phases::accepted_at(accepted);
    phases.dialled(Some(accepted.saturating_sub(dial)));
    phases
}

fn ok() -> Outcome {
    Outcome::of(&Reply::Detached, true)
}

/// Also if nobody heard it: a failure is a failure.
fn failed(cause: Cause) -> Outcome {
    Outcome::of(&Reply::Failed(Failure::new(cause, "", "")), false)
}

#[test]
fn a_daemon_that_has_done_nothing_shows_zeros_to_begin_with() {
    let samples = scrape(&Metrics::new(Duration::from_millis(100)));
    for verb in ["verb=\"add\"", "verb=\"del\""] {
        assert_eq!(value(&samples, "dotfour_calls_total", &[verb, "result=\"ok\"", "code=\"0\""]), Some(0.0));
    }
    for phase in Phase::ALL {
        let label = format!("phase=\"{}\"", phase.name());
        assert_eq!(value(&samples, "dotfour_add_phase_duration_seconds_count", &[&label]), Some(0.0));
    }
    for outcome in SPOOLED {
        assert_eq!(value(&samples, "dotfour_spool_files_total", &[&format!("\"{outcome}\"")]), Some(0.0));
    }
    assert_eq!(value(&samples, "dotfour_source_reports_total", &["failed"]), Some(0.0));
    assert_eq!(value(&samples, "dotfour_slow_adds_total", &[]), Some(0.0));
    assert_eq!(value(&samples, "dotfour_build_info", &[env!("CARGO_PKG_VERSION")]), Some(1.0));
}

#[test]
fn a_duration_is_in_the_buckets_that_hold_it_and_in_no_smaller_one() {
    let metrics = Metrics::new(Duration::from_secs(60));
    for (milliseconds, times) in [(3, 2), (30, 1), (30_000, 1)] {
        for _ in 0..times {
            metrics.call(Verb::Add, ok(), &dialled(Duration::from_millis(milliseconds)));
        }
    }
    let samples = scrape(&metrics);
    let bucket = |bound: &str| {
        let labels = [&format!("le=\"{bound}\"")[..], "phase=\"dial\""];
        value(&samples, "dotfour_add_phase_duration_seconds_bucket", &labels).unwrap()
    };
    let bounds = ["0.002", "0.005", "0.02", "0.05", "20.0", "+Inf"];
    assert_eq!(bounds.map(bucket), [0.0, 2.0, 2.0, 3.0, 3.0, 4.0]);
    let sum = value(&samples, "dotfour_add_phase_duration_seconds_sum", &["dial"]).unwrap();
    assert!((sum - 30.036).abs() < 1e-9, "{sum} is not the seconds of all four");
    let total = value(&samples, "dotfour_call_duration_seconds_count", &["verb=\"add\"", "result=\"ok\""]);
    assert_eq!(total, Some(4.0));
}

#[test]
fn each_call_is_counted_by_its_verb_and_what_came_of_it() {
    let metrics = Metrics::new(Duration::from_secs(60));
    let phases = Phases::accepted();
    for _ in 0..3 {
        metrics.call(Verb::Del, ok(), &phases);
    }
    metrics.call(Verb::Del, failed(Cause::KernelRefused), &phases);
    metrics.call(Verb::Add, Outcome::of(&Reply::Detached, false), &phases);
    metrics.call(Verb::Add, failed(Cause::PoolExhausted), &phases);
    metrics.call(Verb::Unknown, failed(Cause::ProtocolMismatch), &phases);
    let unheard =
        Failure { cause: "some \"new\" cause".into(), code: 77, message: String::new(), next_step: String::new() };
    metrics.call(Verb::Status, Outcome::of(&Reply::Failed(unheard), true), &phases);
    let samples = scrape(&metrics);
    let counted = |verb: &str, result: &str, code: u32| {
        let labels = [format!("verb=\"{verb}\""), format!("result=\"{result}\""), format!("code=\"{code}\"")];
        value(&samples, "dotfour_calls_total", &[&labels[0], &labels[1], &labels[2]])
    };
    assert_eq!(counted("del", "ok", 0), Some(3.0));
    assert_eq!(counted("del", "kernel-refused", 101), Some(1.0));
    assert_eq!(counted("add", "ok", 0), Some(0.0));
    assert_eq!(counted("add", "reply-lost", 0), Some(1.0));
    assert_eq!(counted("add", "pool-exhausted", 11), Some(1.0));
    assert_eq!(counted("unknown", "protocol-mismatch", 102), Some(1.0));
    assert_eq!(counted("dotfourctl", "internal", 77), Some(1.0), "a label takes no text from elsewhere");
    let durations = |verb: &str, result: &str| {
        let labels = [&format!("verb=\"{verb}\"")[..], &format!("result=\"{result}\"")];
        value(&samples, "dotfour_call_duration_seconds_count", &labels)
    };
    assert_eq!([durations("add", "ok"), durations("add", "failed")], [Some(0.0), Some(2.0)]);
    assert_eq!([durations("del", "ok"), durations("del", "failed")], [Some(3.0), Some(1.0)]);
}

#[test]
fn a_phase_that_an_add_never_came_to_is_not_counted_and_one_that_failed_is() {
    let metrics = Metrics::new(Duration::from_secs(60));
    let phases = Phases::accepted();
    phases.enter(Phase::Assign);
    phases.enter(Phase::Reply);
    phases.finish();
    metrics.call(Verb::Add, failed(Cause::PoolExhausted), &phases);
    // The phases are an ADD's.
    metrics.call(Verb::Del, ok(), &phases);
    let samples = scrape(&metrics);
    let counts = Phase::ALL.map(|phase| {
        let label = format!("phase=\"{}\"", phase.name());
        value(&samples, "dotfour_add_phase_duration_seconds_count", &[&label]).unwrap()
    });
    assert_eq!(counts, [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn only_an_add_that_takes_as_long_as_the_threshold_is_slow() {
    let metrics = Metrics::new(Duration::from_millis(100));
    let calls = [
        (Verb::Add, ok(), 99, false),
        (Verb::Add, ok(), 100, true),
        (Verb::Add, failed(Cause::KernelRefused), 200, true),
        (Verb::Del, ok(), 200, false),
    ];
    for (verb, outcome, milliseconds, slow) in calls {
        let phases = dialled(Duration::from_millis(milliseconds));
        assert_eq!(metrics.is_slow(verb, &phases), slow);
        metrics.call(verb, outcome, &phases);
    }
    assert_eq!(value(&scrape(&metrics), "dotfour_slow_adds_total", &[]), Some(2.0));
}

#[test]
fn files_of_the_spool_and_reports_of_the_source_are_counted_by_what_came_of_them() {
    let metrics = Metrics::new(Duration::ZERO);
    for outcome in [Spooled::Released, Spooled::AddedSince, Spooled::AddedSince, Spooled::Unknown, Spooled::SetAside] {
        metrics.spooled(outcome);
    }
    for usable in [true, false, false] {
        metrics.source_report(usable);
    }
    let samples = scrape(&metrics);
    let spooled = SPOOLED.map(|name| value(&samples, "dotfour_spool_files_total", &[&format!("\"{name}\"")]).unwrap());
    assert_eq!(spooled, [1.0, 2.0, 1.0, 1.0]);
    let reports = ["ok", "failed"].map(|result| value(&samples, "dotfour_source_reports_total", &[result]).unwrap());
    assert_eq!(reports, [1.0, 2.0]);
}

#[test]
fn nothing_is_lost_when_threads_count_at_once() {
    let metrics = Metrics::new(Duration::from_secs(60));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let phases = dialled(Duration::from_millis(1));
                for _ in 0..500 {
                    metrics.call(Verb::Add, ok(), &phases);
                }
            });
        }
    });
    let samples = scrape(&metrics);
    assert_eq!(value(&samples, "dotfour_add_phase_duration_seconds_count", &["dial"]), Some(2000.0));
    assert_eq!(value(&samples, "dotfour_calls_total", &["add", "ok"]), Some(2000.0));
}
