//! What Dotfour promises about its speed, and whether it was kept in this race. All of it is ratios, which hold from one
//! machine to the next, but for one rate.

use std::time::Duration;

use crate::burst::Size;
use crate::contestant::{DOTFOUR, FLOOR, PTP};
use crate::results::{Results, VERBS};
use crate::samples::ratio;
use crate::table::Table;

/// What a DEL needs beside a process: its route and its link.
const DEL_WORK: Duration = Duration::from_micros(150);

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
    table
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
}
