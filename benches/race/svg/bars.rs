//! Numbers side by side, in groups.

use std::fmt::Write as _;

use super::{colour_of, text};
use crate::results::Results;
use crate::samples::number;

/// From one bar to the next.
const BAR: f64 = 17.0;
/// Between groups.
const GAP: f64 = 26.0;
/// Room for the names.
pub(super) const NAMES: f64 = 92.0;
/// Room for the numbers behind the bars.
const NUMBERS: f64 = 52.0;

/// Bars that belong together.
#[derive(Debug)]
pub(super) struct Group {
    /// What they are of.
    pub(super) title: String,
    /// Whose they are, and how long. What was not measured is left out.
    pub(super) bars: Vec<(&'static str, f64)>,
}

/// Draws groups below each other, with the names left of `left`; returns where they end.
pub(super) fn draw(
    out: &mut String,
    results: &Results,
    head: &str,
    groups: &[Group],
    (left, right): (f64, f64),
    top: f64,
) -> f64 {
    let most = longest(groups);
    text(out, left, top, "head", "start", head);
    let mut y = top + 10.0;
    for Group { title, bars } in groups {
        y += GAP - 8.0;
        text(out, left, y, "small", "start", title);
        y += 6.0;
        for (name, value) in bars.iter().filter(|(_, value)| !value.is_nan()) {
            let length = value / most * (right - NUMBERS - left);
            let colour = colour_of(results, name);
            text(out, left - 10.0, y + 11.5, "", "end", name);
            let _ = writeln!(
                out,
                "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{colour}\" \
                 fill-opacity=\"0.8\"/>",
                BAR - 3.0
            );
            text(out, left + length + 6.0, y + 11.5, "", "start", &number(*value));
            y += BAR;
        }
    }
    y
}

/// What the whole width stands for.
fn longest(groups: &[Group]) -> f64 {
    // `max` passes over what is not a number.
    let longest = groups.iter().flat_map(|group| &group.bars).map(|(_, value)| *value).fold(0.0, f64::max);
    if longest > 0.0 { longest } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_of_all_groups_has_the_whole_width() {
        let group = |values: &[f64]| Group {
            title: String::new(),
            bars: values.iter().map(|value| ("somebody", *value)).collect(),
        };
        assert!((longest(&[group(&[0.2, f64::NAN]), group(&[0.4, 0.1])]) - 0.4).abs() < 1e-9);
        assert!((longest(&[group(&[f64::NAN]), group(&[])]) - 1.0).abs() < 1e-9, "nothing to divide by");
    }

    #[test]
    fn what_was_not_measured_has_no_bar() {
        let results = Results::new(0, 0, std::iter::empty());
        let groups = [Group { title: "gone".to_owned(), bars: vec![("here", 3.0), ("absent", f64::NAN)] }];
        let mut out = String::new();
        let below = draw(&mut out, &results, "head", &groups, (100.0, 300.0), 0.0);
        assert!(out.contains(">here<") && !out.contains("absent"), "{out}");
        assert!(below < 10.0 + GAP + 2.0 * BAR);
    }
}
