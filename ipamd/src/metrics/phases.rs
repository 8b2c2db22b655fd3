//! A stopwatch for one call: how long each of its phases took.
//!
//! Cheap enough for every ADD: a few words of the thread that carries the call out, one look at the clock
//! when a phase begins, no allocation, no lock.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use crate::pool::Moment;
use crate::verbs::now;

/// A phase of an ADD, in the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// From the plugin's start to the daemon's accept: the plugin's own work, and the wait for a free thread.
    Dial,
    /// From the accept until nobody else works on the attachment: receiving, decoding, waiting for an earlier call.
    Queue,
    /// The pool chooses addresses.
    Assign,
    /// The lease goes on record.
    Record,
    /// The node's half of the wiring.
    HostBatch,
    /// The pod's half of the wiring.
    PodBatch,
    /// Noting the link, encoding the reply, sending it.
    Reply,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Phase; 7] =
        [Phase::Dial, Phase::Queue, Phase::Assign, Phase::Record, Phase::HostBatch, Phase::PodBatch, Phase::Reply];

    /// The name in labels and log lines.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Dial => "dial",
            Phase::Queue => "queue",
            Phase::Assign => "assign",
            Phase::Record => "record",
            Phase::HostBatch => "host-batch",
            Phase::PodBatch => "pod-batch",
            Phase::Reply => "reply",
        }
    }
}

/// The phases of one call. A phase lasts until the next one is entered, so that the phases add up to the whole, and one
/// that fails counts as well: what follows it, undoing included, is its own until the reply.
#[derive(Debug)]
pub struct Phases {
    accepted: Moment,
    current: Cell<Phase>,
    since: Cell<Moment>,
    took: [Cell<Option<Duration>>; Phase::ALL.len()],
}

impl Phases {
    /// Starts the watch: a call was accepted just now, and is in [`Phase::Queue`].
    pub fn accepted() -> Self {
        Phases::accepted_at(now())
    }

    pub(super) fn accepted_at(now: Moment) -> Self {
        let (current, since) = (Cell::new(Phase::Queue), Cell::new(now));
        Phases { accepted: now, current, since, took: Default::default() }
    }

    /// Notes when the plugin started, where it says so, for [`Phase::Dial`]. A moment after the accept counts as none at
    /// all: its clock is not ours.
    pub fn dialled(&self, plugin_started: Option<Moment>) {
        self.note(Phase::Dial, plugin_started.and_then(|started| self.accepted.checked_sub(started)));
    }

    /// Ends the phase that is under way and begins another. A phase entered twice has both times; entering
    /// the one that is under way changes nothing.
    pub fn enter(&self, phase: Phase) {
        if self.current.get() != phase {
            self.enter_at(phase, now());
        }
    }

    fn enter_at(&self, phase: Phase, now: Moment) {
        self.note(self.current.get(), Some(now.saturating_sub(self.since.replace(now))));
        self.current.set(phase);
    }

    /// Ends the phase that is under way. The call is over.
    pub fn finish(&self) {
        self.enter_at(self.current.get(), now());
    }

    fn note(&self, phase: Phase, took: Option<Duration>) {
        if let (Some(took), Some(slot)) = (took, self.took.get(phase as usize)) {
            slot.set(Some(slot.get().unwrap_or_default().saturating_add(took)));
        }
    }

    /// How long a phase took; `None` if the call never came to it.
    pub fn took(&self, phase: Phase) -> Option<Duration> {
        self.took.get(phase as usize).and_then(Cell::get)
    }

    /// How long a caller has waited until its call's turn came: [`Phase::Dial`] and [`Phase::Queue`]. `None` where one of them is not
    /// known, or not over.
    pub fn waited(&self) -> Option<Duration> {
        Some(self.took(Phase::Dial)?.saturating_add(self.took(Phase::Queue)?))
    }

    /// All phases together: from the plugin's start, where that is known, to the end of the reply.
    pub fn total(&self) -> Duration {
        self.took.iter().filter_map(Cell::get).sum()
    }
}

/// Every phase with its time in milliseconds, those without one as `-`.
impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, phase) in Phase::ALL.into_iter().enumerate() {
            let space = if number == 0 { "" } else { " " };
            match self.took(phase) {
                Some(took) => write!(f, "{space}{}={:.3}ms", phase.name(), took.as_secs_f64() * 1e3)?,
                None => write!(f, "{space}{}=-", phase.name())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_phases_add_up_to_the_whole_and_one_entered_twice_has_both_times() {
        let phases = Phases::accepted_at(ms(1000));
        phases.dialled(Some(ms(990)));
        phases.enter_at(Phase::HostBatch, ms(1001));
        phases.enter_at(Phase::PodBatch, ms(1003));
        phases.enter_at(Phase::HostBatch, ms(1006));
        phases.enter_at(Phase::Reply, ms(1010));
        phases.enter_at(Phase::Reply, ms(1015));
        let took = Phase::ALL.map(|phase| phases.took(phase));
        assert_eq!(took, [Some(ms(10)), Some(ms(1)), None, None, Some(ms(6)), Some(ms(3)), Some(ms(5))]);
        assert_eq!(phases.waited(), Some(ms(11)));
        assert_eq!(phases.total(), ms(25), "from the plugin's start at 990 to the end at 1015");
        let words = "dial=10.000ms queue=1.000ms assign=- record=- host-batch=6.000ms pod-batch=3.000ms reply=5.000ms";
        assert_eq!(phases.to_string(), words);
    }

    #[test]
    fn a_plugin_that_says_nothing_or_started_in_the_future_has_no_dial() {
        for started in [None, Some(ms(1001))] {
            let phases = Phases::accepted_at(ms(1000));
            phases.dialled(started);
            assert_eq!(phases.took(Phase::Dial), None);
            assert_eq!(phases.total(), Duration::ZERO);
        }
    }

    #[test]
    fn the_clock_of_the_stopwatch_is_the_monotonic_one() {
        let phases = Phases::accepted();
        std::thread::sleep(ms(3));
        phases.enter(Phase::Assign);
        phases.finish();
        let queue = phases.took(Phase::Queue).unwrap();
        assert!(queue >= ms(3) && queue < ms(20_000), "{phases}");
        assert!(phases.took(Phase::Assign).unwrap() <= phases.total() - queue, "{phases}");
    }
}
