//! How many pods a second.

use std::fmt::Write as _;

use super::{MARGIN, WIDTH, colour_of, text};
use crate::results::Results;

/// From one bar to the next.
const BAR: f64 = 17.0;
/// Between bursts.
const GAP: f64 = 26.0;
/// Room for the names.
const NAMES: f64 = 92.0;
/// Room for the numbers behind the bars.
const NUMBERS: f64 = 52.0;

/// Draws the bursts' rates on the left; returns where they end.
pub(super) fn panel(out: &mut String, results: &Results, top: f64) -> f64 {
    let left = MARGIN + NAMES;
    let width = WIDTH / 2.0 - left - NUMBERS - 12.0;
    let rates = results.bursts.iter().flat_map(|(_, outcomes)| outcomes.iter().map(|(_, burst)| burst.add.rate()));
    let most = rates.fold(1.0, f64::max);
    text(out, left, top, "head", "start", "Bursts: ADDs per second");
    let mut y = top + 10.0;
    for (size, outcomes) in &results.bursts {
        y += GAP - 8.0;
        let callers = if size.callers == 1 { "caller" } else { "callers" };
        text(out, left, y, "small", "start", &format!("{} pods, {} {callers}", size.pods, size.callers));
        y += 6.0;
        for (name, burst) in outcomes {
            let rate = burst.add.rate();
            let length = rate / most * width;
            let colour = colour_of(results, name);
            text(out, left - 10.0, y + 11.5, "", "end", name);
            let _ = writeln!(
                out,
                "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{colour}\" \
                 fill-opacity=\"0.8\"/>",
                BAR - 3.0
            );
            text(out, left + length + 6.0, y + 11.5, "", "start", &format!("{rate:.0}"));
            y += BAR;
        }
    }
    y
}
