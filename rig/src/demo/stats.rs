//! Times of many calls in a few numbers and one line.

use std::time::Duration;

/// The bars of a histogram, from nothing to most.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The smallest, the median, the 99th percentile and the largest, by nearest rank. Zeros if there are none.
pub(super) fn summary(times: &[Duration]) -> [Duration; 4] {
    let mut sorted = times.to_vec();
    sorted.sort();
    let rank = |percent: usize| {
        let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(place).copied().unwrap_or_default()
    };
    [rank(0), rank(50), rank(99), rank(100)]
}

/// How many times fall into each of `width` equal steps from the smallest to the largest, as bars.
pub(super) fn histogram(times: &[Duration], width: usize) -> String {
    let [smallest, .., largest] = summary(times);
    let span = largest.saturating_sub(smallest).as_nanos().max(1);
    let mut counts = vec![0_usize; width];
    for time in times {
        let steps = u128::try_from(width).unwrap_or_default();
        let step = time.saturating_sub(smallest).as_nanos() * steps / span;
        let place = usize::try_from(step).unwrap_or_default().min(width.saturating_sub(1));
        if let Some(count) = counts.get_mut(place) {
            *count += 1;
        }
    }
    let most = counts.iter().copied().max().unwrap_or_default().max(1);
    let bar = |count: &usize| BARS.get((count * 8).div_ceil(most)).copied().unwrap_or(' ');
    counts.iter().map(bar).collect()
}

/// Milliseconds with two decimals.
pub(super) fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(times: &[u64]) -> Vec<Duration> {
        times.iter().map(|time| Duration::from_micros(*time)).collect()
    }

    #[test]
    fn percentiles_are_times_that_occurred() {
        let times: Vec<u64> = (1..=200).rev().collect();
        assert_eq!(summary(&micros(&times)).map(|time| time.as_micros()), [1, 100, 198, 200]);
        assert_eq!(summary(&micros(&[7])).map(|time| time.as_micros()), [7; 4]);
        assert_eq!(summary(&[]), [Duration::ZERO; 4]);
    }

    #[test]
    fn a_histogram_shows_where_most_are_and_never_hides_one() {
        let mut times = vec![100; 80];
        times.push(200);
        assert_eq!(histogram(&micros(&times), 5), "█   ▁");
        assert_eq!(histogram(&micros(&[5, 5, 5]), 3), "█  ");
        assert_eq!(histogram(&[], 3), "   ");
    }

    #[test]
    fn times_are_milliseconds_with_two_decimals() {
        assert_eq!(milliseconds(Duration::from_micros(1_236)), "1.24");
    }
}
