//! What Dotfour promises about its speed, and whether it was kept in this race. All of it is ratios, which hold from one
//! machine to the next, but for one rate.

use std::time::Duration;

use crate::burst::{Burst, Rush, Size};
use crate::contestant::{ALONE, DOTFOUR, FLOOR, GLIBC_NO_OP, NO_OP, PTP};
use crate::forwarding::Path;
use crate::results::{Results, VERBS};
use crate::samples::{Samples, Spread, ratio};
use crate::table::Table;

/// What a DEL needs beside a process: its route and its link.
const DEL_WORK: Duration = Duration::from_micros(150);

/// How far forwarding may be from ptp's and still be called the same. Answers on two nodes that are both wired by ptp
/// differ by one or two hundredths; what rounds differ by beyond that, their spread tells.
const SAME: f64 = 0.03;

enum Budget {
    AtMost(f64),
    AtLeast(f64),
    /// Not promised: it says what could be kept at all.
    Bound,
}

impl Budget {
    fn judge(&self, measured: f64) -> (String, &'static str) {
        let (text, kept) = match self {
            Budget::AtMost(limit) => (format!("≤ {limit}"), measured <= *limit),
            Budget::AtLeast(limit) => (format!("≥ {limit}"), measured >= *limit),
            Budget::Bound => return ("–".to_owned(), ""),
        };
        (text, if kept { "kept" } else { "missed" })
    }

    /// As [`Budget::judge`], but missed only if all that the true value may be misses it.
    fn judge_between(&self, measured: Spread) -> (String, &'static str) {
        let best = match self {
            Budget::AtMost(_) => measured.low,
            Budget::AtLeast(_) | Budget::Bound => measured.high,
        };
        let (text, verdict) = self.judge(measured.median);
        let unclear = verdict == "missed" && self.judge(best).1 == "kept";
        (text, if unclear { "unclear" } else { verdict })
    }
}

/// The budgets that this race measures.
pub(crate) fn table(results: &Results) -> Table {
    let mut table = Table::new("Budgets", ["", "budget", "measured", ""]);
    for (what, budget, measured) in calls(results).into_iter().chain(forwarding(results)) {
        let (limit, verdict) = budget.judge_between(measured);
        let Spread { median, low, high } = measured;
        table.row([what, limit, format!("{} ({} to {})", ratio(median), ratio(low), ratio(high)), verdict.to_owned()]);
    }
    for (what, budget, measured) in bursts(results) {
        let (limit, verdict) = budget.judge(measured);
        table.row([what, limit, ratio(measured), verdict.to_owned()]);
    }
    table
}

/// A call against another of the same round.
fn calls(results: &Results) -> Vec<(String, Budget, Spread)> {
    let mut lines = Vec::new();
    let [smallest, glibc, alone, floor, dotfour, ptp] =
        [NO_OP, GLIBC_NO_OP, ALONE, FLOOR, DOTFOUR, PTP].map(|name| results.laps_of(name).cloned().unwrap_or_default());
    let del_floor = smallest.del.longer_by(DEL_WORK);
    let of = |own: &Samples, other: &Samples| own.spread_against(other);
    lines.push(("ADD, in times of the floor".to_owned(), Budget::AtMost(1.25), of(&dotfour.add, &floor.add)));
    let del = "DEL, in times of the smallest process and 0.15 ms".to_owned();
    lines.push((del, Budget::AtMost(1.25), of(&dotfour.del, &del_floor)));
    for ((verb, part), times) in VERBS.into_iter().zip([10.0, 50.0]) {
        let line = format!("{verb} of ptp, in times of dotfour's");
        lines.push((line, Budget::AtLeast(times), of(part(&ptp), part(&dotfour))));
        // With a daemon that takes no time at all.
        let least = part(&floor).with_in_place_of(part(&alone), part(&smallest));
        let line =
            format!("{verb} of ptp, in times of the floor's kernel work and the plugin alone: the most to be had");
        lines.push((line, Budget::Bound, of(part(&ptp), &least)));
    }
    for (verb, part) in VERBS {
        let line = format!(
            "{verb} of the plugin alone, in times of a program that does nothing, linked statically with glibc"
        );
        lines.push((line, Budget::AtMost(1.0), of(part(&alone), part(&glibc))));
    }
    if let (Some((_, add)), Some(most)) = (VERBS.first(), results.crowds.last()) {
        let line = format!("ADD with {} pods there, in times of none", most.present);
        lines.push((line, Budget::AtMost(1.2), results.growth(DOTFOUR, *add)));
    }
    lines
}

/// The burst with a single caller, who adds pod behind pod, and the largest.
fn bursts(results: &Results) -> Vec<(String, Budget, f64)> {
    let mut lines = Vec::new();
    if let Some((Size { pods, .. }, outcomes)) = results.bursts.iter().find(|(size, _)| size.callers == 1) {
        let line = format!("{pods} pods, one after the other: ADD/s, in times of ptp's");
        lines.push((line, Budget::AtLeast(10.0), rate(outcomes, DOTFOUR) / rate(outcomes, PTP)));
    }
    if let Some((Size { pods, callers }, outcomes)) = results.bursts.last() {
        let refused = adds(outcomes, DOTFOUR).map_or(0, |add| add.refused);
        let what = format!("{pods} pods, {callers} callers");
        let against_ptp = rate(outcomes, DOTFOUR) / rate(outcomes, PTP);
        lines.extend([
            (format!("{what}: ADD/s"), Budget::AtLeast(1_000.0), rate(outcomes, DOTFOUR)),
            (format!("{what}: ADD/s, in times of ptp's"), Budget::AtLeast(6.0), against_ptp),
            (format!("{what}: refused"), Budget::AtMost(0.0), f64::from(u32::try_from(refused).unwrap_or(u32::MAX))),
        ]);
    }
    lines
}

fn adds<'o>(outcomes: &'o [(&'static str, Burst)], wanted: &str) -> Option<&'o Rush> {
    outcomes.iter().find(|(name, _)| *name == wanted).map(|(_, burst)| &burst.add)
}

fn rate(outcomes: &[(&'static str, Burst)], wanted: &str) -> f64 {
    adds(outcomes, wanted).map_or(f64::NAN, Rush::rate)
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
        assert_eq!(Budget::Bound.judge(9.1), ("–".to_owned(), ""));
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
