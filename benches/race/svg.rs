//! The picture: distributions, bursts, crowds and forwarding, in one file that needs nothing else.

mod bars;
mod bursts;
mod density;
mod forwarding;
mod lines;
mod scale;

use std::fmt::Write as _;

use crate::contestant::{DOTFOUR, FLOOR, PTP};
use crate::machine::Machine;
use crate::results::Results;

/// Width of the picture.
const WIDTH: f64 = 920.0;
/// Room at each side.
const MARGIN: f64 = 24.0;

const STYLE: &str = "text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;font-size:12px;fill:#24292f}\
.title{font-size:18px;font-weight:600}.head{font-size:13px;font-weight:600}.small{font-size:11px;fill:#57606a}\
.grid{stroke:#d8dee4;stroke-width:1}.axis{stroke:#8c959f;stroke-width:1}";

/// Draws everything.
pub(crate) fn draw(machine: &Machine, results: &Results) -> String {
    let mut body = String::new();
    let mut y = MARGIN + 14.0;
    text(&mut body, MARGIN, y, "title", "start", "A pod's ADD and DEL, whole plugins");
    y += 20.0;
    text(&mut body, MARGIN, y, "small", "start", &machine.to_string());
    y += 30.0;
    y = density::panels(&mut body, results, y) + 40.0;
    let below = [bursts::panel(&mut body, results, y), lines::panel(&mut body, results, y)];
    y = below.into_iter().fold(y, f64::max) + 40.0;
    let height = forwarding::panel(&mut body, results, y) + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" width=\"{WIDTH:.0}\" \
         height=\"{height:.0}\" role=\"img\"><title>Times of CNI plugins</title><style>{STYLE}</style>\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

/// The colour of the contestant at a place in the table.
fn colour(name: &str, place: usize) -> &'static str {
    const OTHERS: [&str; 5] = ["#7c3aed", "#0f766e", "#be123c", "#4d7c0f", "#a16207"];
    match name {
        DOTFOUR => "#0078d4",
        FLOOR => "#24292f",
        PTP => "#d97706",
        name if name.starts_with("no-op") => "#8c959f",
        _ => OTHERS.get(place % OTHERS.len()).copied().unwrap_or("#7c3aed"),
    }
}

/// The colour of a contestant by its name.
fn colour_of(results: &Results, name: &str) -> &'static str {
    let place = results.entrants.iter().position(|entrant| entrant.name == name);
    colour(name, place.unwrap_or_default())
}

/// One piece of text. `anchor` says which end of it is at `x`.
fn text(out: &mut String, x: f64, y: f64, class: &str, anchor: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    // Writing to a String cannot fail.
    let _ =
        writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{content}</text>");
}

fn line(out: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(out, "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>");
}
