//! What pods get out of their network once they are wired: throughput and the time of an answer.
//!
//! In a round every contestant has one short turn for each measurement, one contestant right after the other in an order
//! that changes from round to round, so that what changes on the machine from one round to the next changes for all.
//!
//! [`stage`] wires two pods on everybody's node, [`path`] says who talks to whom; [`stream`] and [`exchange`] are the two
//! ways to talk, on processors that [`processors`] chooses; [`beside`] says in which company, and [`outcome`] is what came
//! of it.

mod beside;
mod exchange;
mod outcome;
mod path;
mod processors;
mod stage;
mod stream;

use std::io;
use std::time::Duration;

pub(crate) use self::beside::Beside;
pub(crate) use self::outcome::{Forwarding, Turns, gigabits, microseconds};
pub(crate) use self::path::Path;
use self::stage::{Ends, Stage};
use crate::contestant::{Field, Kind};
use crate::error::RaceError;
use crate::in_turn;
use crate::samples::Sample;

/// How long is measured in one turn, after [`WARM_UP`].
pub(crate) const TURN: Duration = Duration::from_millis(20);
/// What is not measured at the start of a turn: TCP finds its pace.
const WARM_UP: Duration = Duration::from_millis(5);
/// How many connections "several" are.
pub(crate) const SEVERAL: usize = 4;
/// How long one end waits for the other at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is measured in a turn.
#[derive(Debug, Clone, Copy)]
enum Measure {
    /// Throughput of so many connections.
    Streams(usize),
    /// The time of an answer.
    Exchange,
}

/// Measures all plugins in this company, so many rounds. Nothing of it is left.
pub(crate) fn race(field: &Field<'_>, beside: Beside, rounds: usize) -> Result<Forwarding, RaceError> {
    let other = field.node("nobody")?;
    let plugins = field.those(|contestant| contestant.kind == Kind::Plugin);
    let stages = plugins
        .iter()
        .map(|contestant| Stage::build(field.vnet(), contestant, beside))
        .collect::<Result<Vec<_>, _>>()?;
    let mut forwarding = Forwarding::new(beside, rounds, stages.iter().map(Stage::name));
    for round in 0..rounds {
        for path in Path::ALL {
            for measure in [Measure::Streams(1), Measure::Streams(SEVERAL), Measure::Exchange] {
                for stage in in_turn::order(stages.len(), round).filter_map(|place| stages.get(place)) {
                    let name = stage.name();
                    if let (Some(ends), Some(turns)) = (stage.ends(path, &other), forwarding.turns(name, path)) {
                        take(&ends, measure, turns).map_err(|source| RaceError::Forwarding { name, path, source })?;
                    }
                }
            }
        }
    }
    stages.into_iter().try_for_each(|stage| stage.clear(field.vnet()))?;
    Ok(forwarding)
}

/// One turn.
fn take(ends: &Ends<'_>, measure: Measure, turns: &mut Turns) -> io::Result<()> {
    let sample = |took| Sample { took, ..Sample::default() };
    match measure {
        Measure::Streams(connections) => {
            let gigabyte = stream::gigabyte(ends, connections)?;
            if connections == 1 { turns.one.push(gigabyte) } else { turns.several.push(gigabyte) }
        }
        Measure::Exchange => {
            let answers = exchange::answers(ends)?;
            turns.answer.push(sample(answers.median()));
            turns.late_answer.push(sample(answers.p99()));
        }
    }
    Ok(())
}
