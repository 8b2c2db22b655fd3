//! How many pods a second.

use super::bars::{self, Group, NAMES};
use super::{MARGIN, WIDTH};
use crate::results::Results;

/// Draws the bursts' rates on the left; returns where they end.
pub(super) fn panel(out: &mut String, results: &Results, top: f64) -> f64 {
    let group = |(size, outcomes): &(crate::burst::Size, Vec<(&'static str, crate::burst::Burst)>)| {
        let callers = if size.callers == 1 { "caller" } else { "callers" };
        Group {
            title: format!("{} pods, {} {callers}", size.pods, size.callers),
            bars: outcomes.iter().map(|(name, burst)| (*name, burst.add.rate())).collect(),
        }
    };
    let groups: Vec<Group> = results.bursts.iter().map(group).collect();
    let sides = (MARGIN + NAMES, WIDTH / 2.0 - 12.0);
    bars::draw(out, results, "Bursts: ADDs per second", &groups, sides, top)
}
