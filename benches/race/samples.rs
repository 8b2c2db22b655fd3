//! Many timed calls in a few numbers.

use std::time::Duration;

/// What one call took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// From before the process is made until it is reaped.
    pub(crate) took: Duration,
    /// Processor time of the process, of those it started, and of its daemon.
    pub(crate) cpu: Duration,
}

/// The calls of one contestant, in the order of the rounds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    took: Vec<Duration>,
    cpu: Duration,
}

impl Samples {
    pub(crate) fn push(&mut self, sample: Sample) {
        self.took.push(sample.took);
        self.cpu += sample.cpu;
    }

    /// Adds processor time that no single call can be charged with.
    pub(crate) fn charge(&mut self, cpu: Duration) {
        self.cpu += cpu;
    }

    /// Goes on with the calls of later rounds.
    pub(crate) fn append(&mut self, mut later: Samples) {
        self.took.append(&mut later.took);
        self.cpu += later.cpu;
    }

    /// Every time, in the order of the rounds.
    pub(crate) fn times(&self) -> &[Duration] {
        &self.took
    }

    /// The middle one.
    pub(crate) fn median(&self) -> Duration {
        percentile(&self.took, 50)
    }

    /// The one that 99 of 100 stay below.
    pub(crate) fn p99(&self) -> Duration {
        percentile(&self.took, 99)
    }

    /// The same calls, had each taken that much longer.
    pub(crate) fn longer_by(&self, time: Duration) -> Samples {
        Samples { took: self.took.iter().map(|took| *took + time).collect(), cpu: self.cpu }
    }

    /// The same calls, had each had `instead`'s of the round in place of `part`'s. Only their times: nobody has made them.
    pub(crate) fn with_in_place_of(&self, instead: &Samples, part: &Samples) -> Samples {
        let rounds = self.took.iter().zip(&instead.took).zip(&part.took);
        let took = rounds.map(|((own, instead), part)| (*own + *instead).saturating_sub(*part)).collect();
        Samples { took, cpu: Duration::ZERO }
    }

    /// Processor time per call.
    pub(crate) fn cpu_per_call(&self) -> Duration {
        let calls = u32::try_from(self.took.len()).unwrap_or(u32::MAX);
        self.cpu.checked_div(calls).unwrap_or_default()
    }

    /// How many times as long as `other` a call took: the median of the rounds' own ratios, so that what changes on the
    /// machine from one round to the next drops out.
    pub(crate) fn times_as_long_as(&self, other: &Samples) -> f64 {
        self.spread_against(other).median
    }

    /// As [`Samples::times_as_long_as`], and between what: the ratio of so many rounds says that much and no more.
    pub(crate) fn spread_against(&self, other: &Samples) -> Spread {
        let mut ratios: Vec<f64> = self
            .took
            .iter()
            .zip(&other.took)
            .filter(|(_, other)| !other.is_zero())
            .map(|(own, other)| own.as_secs_f64() / other.as_secs_f64())
            .collect();
        ratios.sort_by(f64::total_cmp);
        Spread::of(&ratios)
    }
}

/// The median of what was observed, and the two observations between which the true one lies in 95 of 100 cases, however
/// the values are distributed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// Of what was not measured.
    pub(crate) const UNKNOWN: Spread = Spread { median: f64::NAN, low: f64::NAN, high: f64::NAN };

    /// Of sorted values. A median has (n ± 1.96 √n) / 2 of n values below it: the sign test's bounds. With fewer than six
    /// values, all of them are not enough for 95 of 100.
    fn of(sorted: &[f64]) -> Self {
        let count = sorted.len();
        let beyond = (count - (count * 384 / 100).isqrt().min(count)) / 2;
        let outside = beyond.saturating_sub(1);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        Spread { median: at(count / 2), low: at(outside), high: at(count.saturating_sub(1 + outside)) }
    }
}

/// By nearest rank: a time that occurred. Zero if there is none.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

/// A time in milliseconds, with as many decimals as tell something.
pub(crate) fn milliseconds(time: Duration) -> String {
    let value = time.as_secs_f64() * 1000.0;
    match value {
        v if v < 1.0 => format!("{v:.3}"),
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// A ratio, likewise.
pub(crate) fn ratio(value: f64) -> String {
    number(value)
}

/// Any number, likewise. A dash for what was not measured.
pub(crate) fn number(value: f64) -> String {
    match value {
        v if v.is_nan() => "–".to_owned(),
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(micros: &[u64]) -> Samples {
        let mut samples = Samples::default();
        for time in micros {
            samples.push(Sample { took: Duration::from_micros(*time), cpu: Duration::from_micros(10) });
        }
        samples
    }

    #[test]
    fn percentiles_are_times_that_occurred() {
        let times: Vec<u64> = (1..=200).rev().collect();
        let all = samples(&times);
        assert_eq!((all.median().as_micros(), all.p99().as_micros()), (100, 198));
        assert_eq!(samples(&[]).median(), Duration::ZERO);
    }

    #[test]
    fn drift_of_the_machine_drops_out_of_a_ratio() {
        // The machine gets ten times as slow half-way, for both.
        let (one, other) = (samples(&[20, 22, 200, 220, 210]), samples(&[10, 11, 100, 110, 105]));
        assert!((one.times_as_long_as(&other) - 2.0).abs() < 1e-9);
        assert!(one.times_as_long_as(&Samples::default()).is_nan());
    }

    #[test]
    fn a_part_of_each_call_can_be_another_one() {
        let other = samples(&[700, 900]).with_in_place_of(&samples(&[300, 350]), &samples(&[200, 210]));
        assert_eq!(other.times().iter().map(Duration::as_micros).collect::<Vec<_>>(), [800, 1040]);
    }

    #[test]
    fn few_rounds_say_less_than_many() {
        let spread = |count: u32| Spread::of(&(1..=count).map(f64::from).collect::<Vec<_>>());
        // Tables of the sign test have these ranks.
        assert_eq!(spread(6), Spread { median: 4.0, low: 1.0, high: 6.0 });
        assert_eq!(spread(25), Spread { median: 13.0, low: 8.0, high: 18.0 });
        assert_eq!(spread(100), Spread { median: 51.0, low: 40.0, high: 61.0 });
        assert!(spread(0).low.is_nan());
    }

    #[test]
    fn time_that_no_call_is_charged_with_is_shared() {
        let mut all = samples(&[1, 1]);
        all.charge(Duration::from_micros(40));
        assert_eq!(all.cpu_per_call(), Duration::from_micros(30));
    }

    #[test]
    fn numbers_have_three_digits_or_so() {
        let shown = [46, 1_236, 23_456, 345_678].map(|micros| milliseconds(Duration::from_micros(micros)));
        assert_eq!(shown, ["0.046", "1.24", "23.5", "346"]);
        assert_eq!([0.5, 12.34, 123.4, f64::NAN].map(ratio), ["0.50", "12.3", "123", "–"]);
    }
}
