//! Which races are run, in which order.

use crate::burst::{self, Burst, Size};
use crate::contestant::{BRIDGE, Contestant, DOTFOUR, FLOOR, Field, Kind, PTP};
use crate::error::RaceError;
use crate::floor::Shared;
use crate::forwarding::{self, Beside};
use crate::in_turn;
use crate::options::Options;
use crate::results::{Crowd, Entrant, Results};

/// How much is raced.
struct Extent {
    /// Rounds of everybody in turn.
    rounds: usize,
    bursts: &'static [Size],
    /// How often every burst is run.
    repeats: usize,
    /// How many pods are there already.
    present: &'static [usize],
    /// Rounds with so many present.
    rounds_present: usize,
    /// Rounds of forwarding.
    rounds_forwarding: usize,
}

const FULL: Extent = Extent {
    rounds: 200,
    bursts: &[
        Size { pods: 100, callers: 1 },
        Size { pods: 100, callers: 4 },
        Size { pods: 100, callers: 16 },
        Size { pods: 250, callers: 16 },
    ],
    repeats: 2,
    present: &[0, 250, 1_000],
    rounds_present: 40,
    rounds_forwarding: 100,
};

const QUICK: Extent = Extent {
    rounds: 100,
    bursts: &[Size { pods: 100, callers: 16 }],
    repeats: 1,
    present: &[0, 250],
    rounds_present: 20,
    rounds_forwarding: 9,
};

/// Who is raced with pods already there.
const AMONG_PODS: [&str; 4] = [FLOOR, DOTFOUR, PTP, BRIDGE];

/// Runs the races, saying on standard error what is under way.
pub(crate) fn run(field: &Field<'_>, options: &Options) -> Result<Results, RaceError> {
    let mut extent = if options.quick { QUICK } else { FULL };
    let all = field.those(|_| true);
    extent.rounds = in_turn::whole(options.rounds.unwrap_or(extent.rounds), all.len());
    extent.rounds_present = in_turn::whole(extent.rounds_present, AMONG_PODS.len() * extent.present.len());
    let forwarding = field.those(|contestant| contestant.kind == Kind::Plugin);
    extent.rounds_forwarding = in_turn::whole(extent.rounds_forwarding, forwarding.len());
    let shared = Shared::default();
    let mut results = Results::new(extent.rounds, extent.rounds_present, field.contestants.iter().map(entrant));

    eprintln!("  {} rounds of {} contestants in turn …", extent.rounds, all.len());
    results.alone = in_turn::race(&all, &shared, extent.rounds)?;
    if options.rounds.is_some() {
        return Ok(results);
    }

    let wiring = field.those(|contestant| contestant.kind != Kind::NoOp);
    for size in extent.bursts {
        eprintln!("  {} pods, {} at once …", size.pods, size.callers);
        let mut sums = vec![Burst::default(); wiring.len()];
        for repeat in 0..extent.repeats {
            // Everybody is first, and last, once.
            let order: Vec<usize> =
                if repeat % 2 == 0 { (0..sums.len()).collect() } else { (0..sums.len()).rev().collect() };
            for place in order {
                if let (Some(contestant), Some(sum)) = (wiring.get(place), sums.get_mut(place)) {
                    let burst = burst::race(contestant, &shared, *size)?;
                    sum.add.append(burst.add);
                    sum.del.append(burst.del);
                }
            }
        }
        results.bursts.push((*size, wiring.iter().map(|contestant| contestant.name).zip(sums).collect()));
    }

    for beside in Beside::ALL {
        eprintln!("  {} rounds of forwarding, {beside} …", extent.rounds_forwarding);
        results.forwarding.push(forwarding::race(field, beside, extent.rounds_forwarding)?);
    }

    results.crowds = crowds(field, &shared, &extent)?;
    Ok(results)
}

/// Races nodes that have no pods yet against nodes that have many, all in turn. Last, because the pods stay until the
/// sandbox ends.
fn crowds(field: &Field<'_>, shared: &Shared, extent: &Extent) -> Result<Vec<Crowd>, RaceError> {
    let (mut places, mut contestants, mut stay) = (Vec::new(), Vec::new(), Vec::new());
    for present in extent.present {
        eprintln!("  {present} pods on each of {} nodes …", AMONG_PODS.len());
        for name in AMONG_PODS {
            let Some(contestant) = field.another(name, &present.to_string())? else { continue };
            stay.push(burst::fill(&contestant, shared, *present)?);
            places.push((*present, name));
            contestants.push(contestant);
        }
    }
    eprintln!("  {} rounds of these {} in turn …", extent.rounds_present, contestants.len());
    let laps = in_turn::race(&contestants.iter().collect::<Vec<_>>(), shared, extent.rounds_present)?;
    let mut crowds: Vec<Crowd> =
        extent.present.iter().map(|present| Crowd { present: *present, laps: Vec::new() }).collect();
    for ((present, name), laps) in places.into_iter().zip(laps) {
        if let Some(crowd) = crowds.iter_mut().find(|crowd| crowd.present == present) {
            crowd.laps.push((name, laps));
        }
    }
    Ok(crowds)
}

fn entrant(contestant: &Contestant) -> Entrant {
    Entrant { name: contestant.name, about: contestant.about.clone(), kind: contestant.kind }
}
