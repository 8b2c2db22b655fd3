//! Times of many calls, in a few numbers.

use std::time::Duration;

/// The time that `percent` of these do not exceed, by nearest rank; zero of none.
pub(crate) fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

pub(crate) fn median(times: &[Duration]) -> Duration {
    percentile(times, 50)
}

/// How many, and what they took.
pub(crate) fn in_words(times: &[Duration]) -> String {
    let [p50, p99, worst] = [50, 99, 100].map(|percent| percentile(times, percent).as_secs_f64() * 1_000.0);
    format!("{} (p50 {p50:.2} ms, p99 {p99:.2} ms, worst {worst:.2} ms)", times.len())
}
