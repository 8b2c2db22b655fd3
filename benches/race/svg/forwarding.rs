//! What pods get out of their network in the company that a cluster's nodes have.

use super::bars::{self, Group, NAMES};
use super::{MARGIN, WIDTH};
use crate::forwarding::{Beside, Path, Turns, gigabits, microseconds};
use crate::results::Results;

/// Draws throughput on the left and the time of an answer on the right; returns where they end.
pub(super) fn panel(out: &mut String, results: &Results, top: f64) -> f64 {
    let middle = WIDTH / 2.0;
    let throughput = groups(results, |turns| gigabits(&turns.one));
    let answers = groups(results, |turns| microseconds(&turns.answer));
    let (left, right) = ((MARGIN + NAMES, middle - 12.0), (middle + 30.0 + NAMES, WIDTH - MARGIN));
    let bottoms = [
        bars::draw(
            out,
            results,
            "Forwarding beside kube-proxy's rules, one TCP stream: Gbit/s",
            &throughput,
            left,
            top,
        ),
        bars::draw(out, results, "A one-byte answer: µs", &answers, right, top),
    ];
    bottoms.into_iter().fold(top, f64::max)
}

fn groups(results: &Results, value: impl Fn(&Turns) -> f64) -> Vec<Group> {
    let group = |path: Path| Group {
        title: path.to_string(),
        bars: results
            .forwarding
            .iter()
            .find(|company| company.beside == Beside::KubeProxy)
            .map_or_else(Vec::new, |company| company.on(path).map(|(name, turns)| (name, value(turns))).collect()),
    };
    Path::ALL.map(group).into()
}
