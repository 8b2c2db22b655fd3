//! What Dotfour promises about its speed, and whether it was kept in this race. All of it is ratios, which hold from one
//! machine to the next, but for one rate.

use std::time::Duration;

use crate::burst::Size;
use crate::contestant::{DOTFOUR, FLOOR, PTP};
use crate::forwarding::Path;
use crate::results::{Results, VERBS};
use crate::samples::{Spread, ratio};
use crate::table::Table;

/// What a DEL needs beside a process: its route and its link.
const DEL_WORK: Duration = Duration::from_micros(150);

/// How far forwarding may be from ptp's and still be called the same. Answers on two nodes that are both wired by ptp
/// differ by one or two hundredths; what rounds differ by beyond that, their spread tells.
const SAME: f64 = 0.03;

enum Budget {
    AtMost(f64),
    AtLeast(f64),
}

impl Budget {
    fn judge(&self, measured: f64) -> (String, &'static str) {
        let (text, kept) = match self {
            Budget::AtMost(limit) => (format!("≤ {limit}"), measured <= *limit),
            Budget::AtLeast(limit) => (format!("≥ {limit}"), measured >= *limit),
        };
        (text, if kept { "kept" } else { "missed" })
    }

    /// As [`Budget::judge`], but missed only if all that the true value may be misses it.
    fn judge_between(&self, measured: Spread) -> (String, &'static str) {
        let best = match self {
            Budget::AtMost(_) => measured.low,
            Budget::AtLeast(_) => measured.high,
        };
        let (text, verdict) = self.judge(measured.median);
        let unclear = verdict == "missed" && self.judge(best).1 == "kept";
        (text, if unclear { "unclear" } else { verdict })
    }
}

/// The budgets that this race measures.
pub(crate) fn table(results: &Results) -> Table {
    let mut table = Table::new("Budgets", ["", "budget", "measured", ""]);
    let mut line = |what: &str, budget: Budget, measured: f64| {
        if !measured.is_nan() {
            let (limit, verdict) = budget.judge(measured);
            table.row([what.to_owned(), limit, ratio(measured), verdict.to_owned()]);
        }
    };
    if let [Some(smallest), Some(floor), Some(dotfour), Some(ptp)] =
        ["no-op", FLOOR, DOTFOUR, PTP].map(|name| results.laps_of(name))
    {
        line("ADD, in times of the floor", Budget::AtMost(1.25), dotfour.add.times_as_long_as(&floor.add));
        line("ADD of ptp, in times of dotfour's", Budget::AtLeast(10.0), ptp.add.times_as_long_as(&dotfour.add));
        let del_floor = smallest.del.longer_by(DEL_WORK);
        line(
            "DEL, in times of the smallest process and 0.15 ms",
            Budget::AtMost(1.25),
            dotfour.del.times_as_long_as(&del_floor),
        );
        line("DEL of ptp, in times of dotfour's", Budget::AtLeast(50.0), ptp.del.times_as_long_as(&dotfour.del));
    }
    if let Some((Size { pods, callers }, outcomes)) = results.bursts.last() {
        let rate = |wanted: &str| {
            outcomes.iter().find(|(name, _)| *name == wanted).map_or(f64::NAN, |(_, burst)| burst.add.rate())
        };
        line(&format!("{pods} pods, {callers} callers: ADD/s"), Budget::AtLeast(1_000.0), rate(DOTFOUR));
        line(
            &format!("{pods} pods, {callers} callers: ADD/s, in times of ptp's"),
            Budget::AtLeast(6.0),
            rate(DOTFOUR) / rate(PTP),
        );
    }
    if let (Some((_, add)), Some(most)) = (VERBS.first(), results.crowds.last()) {
        let grown = results.growth(DOTFOUR, *add);
        line(&format!("ADD with {} pods there, in times of none", most.present), Budget::AtMost(1.2), grown);
    }
    for (what, budget, measured) in forwarding(results) {
        let (limit, verdict) = budget.judge_between(measured);
        let Spread { median, low, high } = measured;
        table.row([what, limit, format!("{} ({} to {})", ratio(median), ratio(low), ratio(high)), verdict.to_owned()]);
    }
    table
}

/// Forwarding is not below ptp's, as far as so many rounds can tell: behind the ratio stands between what it lies.
fn forwarding(results: &Results) -> Vec<(String, Budget, Spread)> {
    let all = results.forwarding.iter().flat_map(|company| Path::ALL.map(|path| (company, path)));
    let lines = all.filter_map(|(company, path)| {
        let (dotfour, ptp) = company.of(DOTFOUR, path).zip(company.of(PTP, path))?;
        let path = format!("{path}, {}", company.beside);
        let throughput = (
            format!("{path}: throughput, in times of ptp's"),
            Budget::AtLeast(1.0 - SAME),
            dotfour.throughput_against(ptp),
        );
        let answer =
            (format!("{path}: an answer, in times of ptp's"), Budget::AtMost(1.0 + SAME), dotfour.answer_against(ptp));
        Some([throughput, answer])
    });
    lines.flatten().filter(|(_, _, measured)| !measured.median.is_nan()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_kept_at_its_limit() {
        assert_eq!(Budget::AtMost(1.25).judge(1.25), ("≤ 1.25".to_owned(), "kept"));
        assert_eq!(Budget::AtMost(1.25).judge(1.26).1, "missed");
        assert_eq!(Budget::AtLeast(50.0).judge(50.0), ("≥ 50".to_owned(), "kept"));
        assert_eq!(Budget::AtLeast(50.0).judge(49.9).1, "missed");
    }

    #[test]
    fn a_budget_is_missed_only_beyond_doubt() {
        let verdict = |budget: Budget, low, median, high| budget.judge_between(Spread { median, low, high }).1;
        assert_eq!(verdict(Budget::AtLeast(0.97), 0.8, 0.97, 1.2), "kept");
        assert_eq!(verdict(Budget::AtLeast(0.97), 0.8, 0.96, 0.98), "unclear");
        assert_eq!(verdict(Budget::AtLeast(0.97), 0.8, 0.90, 0.96), "missed");
        assert_eq!(verdict(Budget::AtMost(1.03), 0.9, 1.03, 1.2), "kept");
        assert_eq!(verdict(Budget::AtMost(1.03), 1.02, 1.04, 1.2), "unclear");
        assert_eq!(verdict(Budget::AtMost(1.03), 1.04, 1.1, 1.2), "missed");
    }
}
