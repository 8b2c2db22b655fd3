//! Whether pods that are there slow down those that come.

use std::fmt::Write as _;
use std::time::Duration;

use super::scale::{LogScale, logarithm};
use super::{MARGIN, WIDTH, colour_of, line, text};
use crate::results::{Results, VERBS};
use crate::samples::milliseconds;

/// Height of one verb's plot.
const HEIGHT: f64 = 118.0;
/// Between the verbs, with the axis's numbers.
const GAP: f64 = 46.0;
/// Room for the names behind the lines.
const NAMES: f64 = 88.0;
/// Height of a name.
const LABEL: f64 = 15.0;
/// Room for the axis's numbers.
const AXIS: f64 = 34.0;

/// Draws the crowds' medians on the right; returns where they end.
pub(super) fn panel(out: &mut String, results: &Results, top: f64) -> f64 {
    let (left, right) = (WIDTH / 2.0 + 30.0 + AXIS, WIDTH - MARGIN - NAMES);
    let names: Vec<&str> =
        results.crowds.first().map(|crowd| crowd.laps.iter().map(|(name, _)| *name).collect()).unwrap_or_default();
    let most = results.crowds.last().map_or(1, |crowd| crowd.present.max(1));
    let x = |present: usize| left + fraction(present, most) * (right - left);
    let mut y = top;
    for (verb, part) in VERBS {
        text(out, left - AXIS, y, "head", "start", &format!("{verb} with pods already there: median, ms"));
        let lines: Vec<_> = names.iter().map(|name| (*name, results.medians_by_crowd(name, part))).collect();
        let times: Vec<Duration> = lines.iter().flat_map(|(_, points)| points.iter().map(|(_, t)| *t)).collect();
        let (upper, lower) = (y + 12.0, y + 12.0 + HEIGHT);
        let scale = LogScale::fitting(times.iter(), (lower, upper));
        for (place, mark) in scale.marks() {
            line(out, "grid", (left, place), (right, place));
            text(out, left - 6.0, place + 4.0, "small", "end", &mark);
        }
        for crowd in &results.crowds {
            text(out, x(crowd.present), lower + 14.0, "small", "middle", &crowd.present.to_string());
        }
        line(out, "axis", (left, lower), (right, lower));
        let mut labels = Vec::new();
        for (name, points) in lines {
            let colour = colour_of(results, name);
            let places: Vec<(f64, f64)> =
                points.iter().map(|(present, time)| (x(*present), scale.place(logarithm(*time)))).collect();
            let path: String = places.iter().map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
            let _ = writeln!(out, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
            for (x, y) in &places {
                let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
            if let (Some((_, y)), Some((_, last))) = (places.last(), points.last()) {
                labels.push((*y, format!("{name} {}", milliseconds(*last))));
            }
        }
        for (y, label) in apart(labels) {
            text(out, right + 8.0, y + 4.0, "", "start", &label);
        }
        y = lower + GAP;
    }
    y - GAP + 16.0
}

/// Moves labels up until none covers another.
fn apart(mut labels: Vec<(f64, String)>) -> Vec<(f64, String)> {
    labels.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let mut free = f64::INFINITY;
    for (y, _) in &mut labels {
        *y = y.min(free);
        free = *y - LABEL;
    }
    labels
}

fn fraction(part: usize, whole: usize) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    number(part) / number(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_covers_another() {
        let named = |y: f64| (y, y.to_string());
        let placed: Vec<f64> =
            apart(vec![named(40.0), named(100.0), named(98.0)]).into_iter().map(|(y, _)| y).collect();
        assert_eq!(placed, [100.0, 85.0, 40.0]);
    }
}
