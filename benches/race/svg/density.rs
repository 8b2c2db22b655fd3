//! Where the times of each contestant lie.

use std::fmt::Write as _;
use std::time::Duration;

use super::scale::{LogScale, logarithm};
use super::{MARGIN, WIDTH, colour_of, line, text};
use crate::results::{Results, VERBS};
use crate::samples::{Samples, milliseconds};

/// From one contestant to the next.
const ROW: f64 = 42.0;
/// The highest point of a curve above its line.
const HEIGHT: f64 = 32.0;
/// Room for the names.
const NAMES: f64 = 92.0;
/// Room for the numbers behind a curve.
const NUMBERS: f64 = 96.0;
/// Between the verbs.
const GAP: f64 = 22.0;
/// Points of a curve.
const POINTS: u32 = 220;

/// Draws ADD and DEL side by side on one axis; returns where they end.
pub(super) fn panels(out: &mut String, results: &Results, top: f64) -> f64 {
    let width = (WIDTH - 2.0 * MARGIN - NAMES - GAP) / 2.0;
    let all = results.alone().flat_map(|(_, laps)| laps.add.times().iter().chain(laps.del.times()));
    let scale = LogScale::fitting(all, (0.0, 1.0));
    let mut bottom = top;
    for (column, (verb, part)) in (0_u8..).zip(VERBS) {
        let left = MARGIN + NAMES + f64::from(column) * (width + GAP);
        let scale = scale.at((left, left + width - NUMBERS));
        text(out, left, top, "head", "start", &format!("{verb}, ms"));
        text(out, left + width, top, "small", "end", "median · p99");
        let first = top + HEIGHT + 16.0;
        bottom = first + ROW * rows(results.alone.len() - 1) + 8.0;
        axis(out, &scale, (top + 10.0, bottom), (left, left + width - NUMBERS));
        for (row, (entrant, laps)) in (0_u16..).zip(results.alone()) {
            let baseline = first + ROW * f64::from(row);
            if column == 0 {
                text(out, left - 10.0, baseline, "", "end", entrant.name);
            }
            let samples = part(laps);
            curve(out, &scale, samples, baseline, colour_of(results, entrant.name));
            let numbers = format!("{} · {}", milliseconds(samples.median()), milliseconds(samples.p99()));
            text(out, left + width, baseline, "", "end", &numbers);
        }
    }
    bottom + 16.0
}

fn rows(count: usize) -> f64 {
    f64::from(u16::try_from(count).unwrap_or(u16::MAX))
}

fn axis(out: &mut String, scale: &LogScale, (top, bottom): (f64, f64), (left, right): (f64, f64)) {
    for (x, mark) in scale.marks() {
        line(out, "grid", (x, top), (x, bottom));
        text(out, x, bottom + 14.0, "small", "middle", &mark);
    }
    line(out, "axis", (left, bottom), (right, bottom));
}

/// A curve over its line, with the median marked.
fn curve(out: &mut String, scale: &LogScale, samples: &Samples, baseline: f64, colour: &str) {
    let logarithms: Vec<f64> = samples.times().iter().map(|time| logarithm(*time)).collect();
    let points: Vec<(f64, f64)> = scale.steps(POINTS).map(|at| (at, density(&logarithms, at))).collect();
    let most = points.iter().map(|(_, density)| *density).fold(f64::MIN_POSITIVE, f64::max);
    let mut path = String::new();
    for (at, density) in points {
        let _ = write!(path, "{:.1},{:.1} ", scale.place(at), baseline - density / most * HEIGHT);
    }
    let (from, to) = (scale.steps(1).next().unwrap_or_default(), scale.steps(1).last().unwrap_or_default());
    let _ = writeln!(
        out,
        "<polygon points=\"{:.1},{baseline:.1} {path}{:.1},{baseline:.1}\" fill=\"{colour}\" fill-opacity=\"0.28\" \
         stroke=\"{colour}\" stroke-width=\"1.2\" stroke-linejoin=\"round\"/>",
        scale.place(from),
        scale.place(to)
    );
    let x = scale.place(logarithm(samples.median().max(Duration::from_nanos(1))));
    let _ = writeln!(
        out,
        "<line x1=\"{x:.1}\" y1=\"{baseline:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        baseline - HEIGHT - 3.0
    );
}

/// How dense the times are around one, as a sum of small bells.
fn density(logarithms: &[f64], at: f64) -> f64 {
    /// Width of a bell: some 4 % of a time.
    const WIDTH: f64 = 0.04;
    logarithms.iter().map(|value| (-0.5 * ((value - at) / WIDTH).powi(2)).exp()).sum()
}
