//! What came of it.

use std::time::Duration;

use super::{Beside, Path, SEVERAL, TURN};
use crate::contestant::PTP;
use crate::samples::{Samples, Spread, number, ratio};
use crate::table::Table;

/// The turns of one contestant on one path: one sample a round of each kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns {
    /// How long a gigabyte takes over one connection, and the processor time of both ends.
    pub(crate) one: Samples,
    /// The same over several.
    pub(crate) several: Samples,
    /// The median time of an answer.
    pub(crate) answer: Samples,
    /// The time that 99 of 100 answers stay below.
    pub(crate) late_answer: Samples,
}

impl Turns {
    /// How many times as much arrives over one connection as arrives with `other`, and between what.
    pub(crate) fn throughput_against(&self, other: &Turns) -> Spread {
        other.one.spread_against(&self.one)
    }

    /// How many times as long as with `other` an answer takes, and between what.
    pub(crate) fn answer_against(&self, other: &Turns) -> Spread {
        self.answer.spread_against(&other.answer)
    }
}

/// Everybody's turns.
#[derive(Debug)]
pub(crate) struct Forwarding {
    /// In which company.
    pub(crate) beside: Beside,
    rounds: usize,
    turns: Vec<(&'static str, Path, Turns)>,
}

impl Forwarding {
    /// No turns yet.
    pub(super) fn new(beside: Beside, rounds: usize, names: impl Iterator<Item = &'static str> + Clone) -> Self {
        let of_path = |path| names.clone().map(move |name| (name, path, Turns::default()));
        Forwarding { beside, rounds, turns: Path::ALL.into_iter().flat_map(of_path).collect() }
    }

    pub(super) fn turns(&mut self, name: &str, path: Path) -> Option<&mut Turns> {
        self.turns.iter_mut().find(|(n, p, _)| *n == name && *p == path).map(|(_, _, turns)| turns)
    }

    /// One contestant's turns on a path.
    pub(crate) fn of(&self, name: &str, path: Path) -> Option<&Turns> {
        self.on(path).find(|(other, _)| *other == name).map(|(_, turns)| turns)
    }

    /// Everybody's turns on a path.
    pub(crate) fn on(&self, path: Path) -> impl Iterator<Item = (&'static str, &Turns)> {
        self.turns.iter().filter(move |(_, p, _)| *p == path).map(|(name, _, turns)| (*name, turns))
    }

    /// Numbers, and how they compare with ptp's.
    pub(crate) fn table(&self) -> Table {
        let title = format!(
            "Forwarding, plugins {}, {} turns of {} ms: Gbit/s, processor time in ms per gigabyte, µs",
            self.beside,
            self.rounds,
            TURN.as_millis()
        );
        let several = format!("{SEVERAL} streams");
        let head = ["", "1 stream", "× ptp", "CPU", &several, "× ptp", "answer median", "× ptp", "p99", "× ptp"];
        let mut table = Table::new(title, head);
        for path in Path::ALL {
            let ptp = self.of(PTP, path).cloned().unwrap_or_default();
            for (name, own) in self.on(path) {
                table.row([
                    format!("{path}: {name}"),
                    number(gigabits(&own.one)),
                    ratio(own.throughput_against(&ptp).median),
                    number(measured(own.one.cpu_per_call()) * 1e3),
                    number(gigabits(&own.several)),
                    ratio(ptp.several.times_as_long_as(&own.several)),
                    number(microseconds(&own.answer)),
                    ratio(own.answer_against(&ptp).median),
                    number(microseconds(&own.late_answer)),
                    ratio(own.late_answer.times_as_long_as(&ptp.late_answer)),
                ]);
            }
        }
        table
    }
}

/// Throughput in gigabits per second, by the median of the times of a gigabyte.
pub(crate) fn gigabits(gigabyte: &Samples) -> f64 {
    8.0 / measured(gigabyte.median())
}

/// A median in microseconds.
pub(crate) fn microseconds(samples: &Samples) -> f64 {
    measured(samples.median()) * 1e6
}

/// In seconds. What took no time at all was not measured.
fn measured(time: Duration) -> f64 {
    if time.is_zero() { f64::NAN } else { time.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Sample;

    fn turns(gigabyte: u64, answer: u64) -> Turns {
        let mut turns = Turns::default();
        turns.one.push(Sample { took: Duration::from_millis(gigabyte), ..Sample::default() });
        turns.answer.push(Sample { took: Duration::from_micros(answer), ..Sample::default() });
        turns
    }

    #[test]
    fn more_throughput_is_a_ratio_above_one_and_so_is_a_later_answer() {
        let (fast, slow) = (turns(500, 20), turns(1_000, 30));
        assert!((fast.throughput_against(&slow).median - 2.0).abs() < 1e-9);
        assert!((slow.answer_against(&fast).median - 1.5).abs() < 1e-9);
        assert!((gigabits(&fast.one) - 16.0).abs() < 1e-9);
        assert!((microseconds(&slow.answer) - 30.0).abs() < 1e-9);
    }

    #[test]
    fn a_path_that_leads_nowhere_has_dashes_and_no_ratio() {
        let mut forwarding = Forwarding::new(Beside::Nothing, 1, ["here", PTP].into_iter());
        *forwarding.turns("here", Path::PodToNode).unwrap() = turns(500, 20);
        *forwarding.turns(PTP, Path::PodToPod).unwrap() = turns(1_000, 20);
        let text = forwarding.table().text();
        let cells = |start: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(start)).unwrap();
            line.trim_start().trim_start_matches(start).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(cells("pod → pod, same node: ptp")[..2], ["8.00", "1.00"]);
        assert_eq!(cells("pod → pod, same node: here")[..2], ["–", "–"]);
        assert!(cells("other node → pod: here").iter().all(|cell| cell == "–"), "{text}");
        assert_eq!(cells("pod → other node: here")[..2], ["16.0", "–"], "ptp was not there");
    }
}
