//! What the races came to, and the tables of it.

use std::time::Duration;

use crate::burst::{Burst, Rush, Size};
use crate::contestant::{FLOOR, Kind, PTP};
use crate::forwarding::Forwarding;
use crate::in_turn::Laps;
use crate::samples::{Samples, Spread, milliseconds, ratio};
use crate::table::Table;

/// Somebody who took part.
#[derive(Debug)]
pub(crate) struct Entrant {
    /// What it is called.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) about: String,
    /// What it does.
    pub(crate) kind: Kind,
}

/// Laps with so many pods already there.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// How many.
    pub(crate) present: usize,
    /// By contestant.
    pub(crate) laps: Vec<(&'static str, Laps)>,
}

impl Crowd {
    fn of(&self, name: &str) -> Option<&Laps> {
        self.laps.iter().find(|(other, _)| *other == name).map(|(_, laps)| laps)
    }
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Results {
    /// Rounds in turn.
    pub(crate) rounds: usize,
    rounds_present: usize,
    /// Who took part.
    pub(crate) entrants: Vec<Entrant>,
    /// One caller, everybody in turn; in the order of the entrants.
    pub(crate) alone: Vec<Laps>,
    /// Bursts, by contestant.
    pub(crate) bursts: Vec<(Size, Vec<(&'static str, Burst)>)>,
    /// With pods already there.
    pub(crate) crowds: Vec<Crowd>,
    /// Between pods that are wired, in each company.
    pub(crate) forwarding: Vec<Forwarding>,
    /// What went on beside the race, as the rest of a sentence.
    pub(crate) beside: String,
}

/// Either verb's part of something.
pub(crate) type Part<T, P> = fn(&T) -> &P;

/// The verbs, and where their samples are among laps.
pub(crate) const VERBS: [(&str, Part<Laps, Samples>); 2] = [("ADD", |laps| &laps.add), ("DEL", |laps| &laps.del)];

impl Results {
    /// Nothing yet.
    pub(crate) fn new(rounds: usize, rounds_present: usize, entrants: impl Iterator<Item = Entrant>) -> Self {
        let entrants = entrants.collect();
        Results {
            rounds,
            rounds_present,
            entrants,
            alone: Vec::new(),
            bursts: Vec::new(),
            crowds: Vec::new(),
            forwarding: Vec::new(),
            beside: String::new(),
        }
    }

    /// Who took part, with their laps.
    pub(crate) fn alone(&self) -> impl Iterator<Item = (&Entrant, &Laps)> {
        self.entrants.iter().zip(&self.alone)
    }

    /// One contestant's laps.
    pub(crate) fn laps_of(&self, name: &str) -> Option<&Laps> {
        self.alone().find(|(entrant, _)| entrant.name == name).map(|(_, laps)| laps)
    }

    /// All tables, in the order of the races.
    pub(crate) fn tables(&self) -> Vec<Table> {
        let mut tables = vec![self.in_turn()];
        tables.extend(VERBS.iter().map(|(verb, part)| self.against_each_other(verb, *part)));
        if self.bursts.is_empty() {
            return tables;
        }
        tables.push(self.burst_table("ADD", |burst| &burst.add));
        tables.push(self.burst_table("DEL", |burst| &burst.del));
        tables.push(self.crowd_table());
        tables.extend(self.forwarding.iter().map(Forwarding::table));
        tables
    }

    fn in_turn(&self) -> Table {
        let title = format!("One caller, {} rounds in turn: ms", self.rounds);
        let head = ["", "ADD median", "p99", "CPU", "× floor", "DEL median", "p99", "CPU", "× floor"];
        let mut table = Table::new(title, head);
        let floor = self.laps_of(FLOOR).cloned().unwrap_or_default();
        for (entrant, laps) in self.alone() {
            let mut cells = vec![entrant.name.to_owned()];
            for (_, part) in VERBS {
                cells.extend(times(part(laps)));
                cells.push(ratio(part(laps).times_as_long_as(part(&floor))));
            }
            table.row(cells);
        }
        table
    }

    fn against_each_other(&self, verb: &str, part: Part<Laps, Samples>) -> Table {
        let against = || self.alone().filter(|(entrant, _)| entrant.kind != Kind::NoOp);
        let head = std::iter::once("").chain(against().map(|(entrant, _)| entrant.name));
        let mut table = Table::new(format!("{verb} of the row, in times of that of the column"), head);
        for (entrant, laps) in against() {
            let ratios = against().map(|(_, other)| ratio(part(laps).times_as_long_as(part(other))));
            table.row(std::iter::once(entrant.name.to_owned()).chain(ratios));
        }
        table
    }

    fn burst_table(&self, verb: &str, part: Part<Burst, Rush>) -> Table {
        let head = [
            "",
            "pods",
            "callers",
            &format!("{verb}/s"),
            "median",
            "p99",
            "CPU",
            "× floor's rate",
            "× ptp's rate",
            "refused",
        ];
        let mut table = Table::new(format!("Bursts: {verb}, ms"), head);
        for (size, outcomes) in &self.bursts {
            let rate_of = |wanted| {
                let other = outcomes.iter().find(|(name, _)| *name == wanted);
                other.map(|(_, burst)| part(burst).rate()).filter(|rate| *rate > 0.0).unwrap_or(f64::NAN)
            };
            for (name, burst) in outcomes {
                let rush = part(burst);
                let mut cells = vec![(*name).to_owned(), size.pods.to_string(), size.callers.to_string()];
                cells.push(format!("{:.0}", rush.rate()));
                cells.extend(times(&rush.samples));
                cells.extend([FLOOR, PTP].map(|other| ratio(rush.rate() / rate_of(other))));
                cells.push(rush.refused.to_string());
                table.row(cells);
            }
        }
        table
    }

    fn crowd_table(&self) -> Table {
        let mut head = vec![String::new()];
        for (verb, _) in VERBS {
            head.extend(self.crowds.iter().map(|crowd| format!("{verb} with {}", crowd.present)));
            head.push("last ÷ first".to_owned());
        }
        let title = format!("With pods already there, {} rounds each: median, ms", self.rounds_present);
        let mut table = Table::new(title, head);
        let names = self.crowds.first().map(|crowd| crowd.laps.iter().map(|(name, _)| *name)).into_iter().flatten();
        for name in names {
            let mut cells = vec![name.to_owned()];
            for (_, part) in VERBS {
                cells.extend(self.medians_by_crowd(name, part).iter().map(|(_, median)| milliseconds(*median)));
                cells.push(ratio(self.growth(name, part).median));
            }
            table.row(cells);
        }
        table
    }

    /// A contestant's median for each number of pods already there.
    pub(crate) fn medians_by_crowd(&self, name: &str, part: Part<Laps, Samples>) -> Vec<(usize, Duration)> {
        self.crowds.iter().filter_map(|crowd| Some((crowd.present, part(crowd.of(name)?).median()))).collect()
    }

    /// How many times as long a contestant takes on the fullest node as on the emptiest.
    pub(crate) fn growth(&self, name: &str, part: Part<Laps, Samples>) -> Spread {
        let ends = [self.crowds.first(), self.crowds.last()].map(|crowd| crowd.and_then(|crowd| crowd.of(name)));
        match ends {
            [Some(first), Some(last)] => part(last).spread_against(part(first)),
            _ => Spread::UNKNOWN,
        }
    }
}

/// Median, 99th percentile and processor time.
fn times(samples: &Samples) -> [String; 3] {
    [milliseconds(samples.median()), milliseconds(samples.p99()), milliseconds(samples.cpu_per_call())]
}
