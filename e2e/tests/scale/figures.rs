//! Times of many calls, in a few numbers.

use std::time::Duration;

/// The time that `percent` of these do not exceed, by nearest rank; zero of none.
pub(crate) fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

/// How many, and what they took.
pub(crate) fn in_words(times: &[Duration]) -> String {
    let [p50, p99, worst] = [50, 99, 100].map(|percent| percentile(times, percent).as_secs_f64() * 1_000.0);
    format!("{} (p50 {p50:.2} ms, p99 {p99:.2} ms, worst {worst:.2} ms)", times.len())
}

/// What two did in turn, pair by pair, so that whatever else the machine does meets both.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    usual: Vec<Duration>,
    loaded: Vec<Duration>,
}

impl Pairs {
    pub(crate) fn push(&mut self, usual: Duration, loaded: Duration) {
        self.usual.push(usual);
        self.loaded.push(loaded);
    }

    /// How many times longer the second of a pair took than the first, by the median of all pairs; zero of none.
    pub(crate) fn ratio(&self) -> f64 {
        let ratio = |(usual, loaded): (&Duration, &Duration)| loaded.as_secs_f64() / usual.as_secs_f64();
        let mut ratios: Vec<f64> = self.usual.iter().zip(&self.loaded).map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied().unwrap_or_default()
    }

    /// What both took.
    pub(crate) fn in_words(&self) -> (String, String) {
        (in_words(&self.usual), in_words(&self.loaded))
    }
}
