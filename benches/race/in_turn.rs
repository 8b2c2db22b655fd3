//! One caller, one contestant after the other, round by round: what changes on the machine changes for all of them.
//!
//! In a round everybody adds a pod, then everybody deletes it. Who comes behind whom matters: behind a large program the
//! caches are cold. So the order changes from round to round until everybody has been behind everybody equally often (a
//! Williams design), which takes [`whole`] rounds. After each DEL the race waits until its link is gone: a plugin that
//! deletes links later shall not do it in somebody else's time. After an ADD nobody waits, for a processor that has slept
//! takes a tenth of a millisecond longer for any process.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use dotfour_rig::Pod;

use crate::caller::{Attached, Caller};
use crate::contestant::Contestant;
use crate::cpu;
use crate::error::RaceError;
use crate::floor::Shared;
use crate::samples::{Sample, Samples};
use crate::settle;

/// Rounds whose sandboxes are made together beforehand.
const HEAT: usize = 25;
/// Rounds that are not counted.
const WARM_UP: usize = 3;

/// What came of it for one contestant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Laps {
    /// The ADDs.
    pub(crate) add: Samples,
    /// The DELs.
    pub(crate) del: Samples,
}

/// Races so many rounds. The laps are in the order of the contestants.
pub(crate) fn race(contestants: &[&Contestant], shared: &Shared, rounds: usize) -> Result<Vec<Laps>, RaceError> {
    heat(contestants, shared, 0..WARM_UP)?;
    let mut all = vec![Laps::default(); contestants.len()];
    for first in (0..rounds).step_by(HEAT) {
        let laps = heat(contestants, shared, first..rounds.min(first + HEAT))?;
        for (all, laps) in all.iter_mut().zip(laps) {
            all.add.append(laps.add);
            all.del.append(laps.del);
        }
    }
    Ok(all)
}

/// At least so many rounds, and as many as it takes until everybody has been behind everybody equally often.
pub(crate) fn whole(rounds: usize, contestants: usize) -> usize {
    rounds.next_multiple_of(if contestants.is_multiple_of(2) { contestants } else { 2 * contestants }.max(1))
}

/// What a lane is to do next.
enum Turn {
    Add,
    Del,
}

/// A contestant's thread, seen from outside.
struct Lane {
    turns: SyncSender<Turn>,
    done: Receiver<()>,
}

fn heat(contestants: &[&Contestant], shared: &Shared, rounds: Range<usize>) -> Result<Vec<Laps>, RaceError> {
    let mut pods = contestants
        .iter()
        .map(|contestant| sandboxes(contestant, "turn", rounds.len()))
        .collect::<Result<Vec<_>, _>>()?;
    let laps = thread::scope(|scope| {
        let (lanes, threads): (Vec<_>, Vec<_>) = contestants
            .iter()
            .zip(&pods)
            .map(|(contestant, pods)| {
                let (turns, taken) = sync_channel(0);
                let (finished, done) = sync_channel(0);
                let lane =
                    || Caller::enter(contestant, shared, |caller| run(contestant, caller, pods, taken, finished));
                (Lane { turns, done }, scope.spawn(lane))
            })
            .unzip();
        let raced = rounds.clone().try_for_each(|round| one_round(contestants, &lanes, round));
        drop(lanes);
        let joined = threads.into_iter().map(|thread| {
            let panicked = || std::io::Error::other("it panicked");
            thread.join().unwrap_or_else(|_| Err(RaceError::system("run a contestant's thread")(panicked())))
        });
        let laps = joined.collect::<Result<Vec<_>, _>>()?;
        raced.map(|()| laps)
    })?;
    settle::end(pods.drain(..).flatten().collect())?;
    Ok(laps)
}

/// Everybody's ADD, and then everybody's DEL.
fn one_round(contestants: &[&Contestant], lanes: &[Lane], round: usize) -> Result<(), RaceError> {
    let order = || order(lanes.len(), round).filter_map(|place| contestants.get(place).zip(lanes.get(place)));
    // Counted before and behind all ADDs: a list of a thousand links would warm or chill the caches for whoever is next.
    let count =
        || order().map(|(contestant, _)| Ok(contestant.node.links()?.len())).collect::<Result<Vec<_>, RaceError>>();
    let before = count()?;
    for (_, lane) in order() {
        lane.take(Turn::Add);
    }
    // One of the new links is the pod's. A plugin may make more, once, for all pods: they stay.
    let without_pod =
        before.iter().zip(count()?).map(|(before, with)| *before.max(&with.saturating_sub(1))).collect::<Vec<_>>();
    for ((contestant, lane), links) in order().zip(without_pod) {
        lane.take(Turn::Del);
        settle::until_links(contestant, links)?;
    }
    Ok(())
}

/// Sandboxes on a contestant's node, made before anybody's time is taken.
pub(crate) fn sandboxes(contestant: &Contestant, name: &str, count: usize) -> Result<Vec<Pod>, RaceError> {
    let pods = (0..count).map(|number| Pod::create(&contestant.node, "race", &format!("{name}-{number}")));
    Ok(pods.collect::<Result<_, _>>()?)
}

/// The order of a round: first and last, second and last but one, and so on, taken in turn, and everybody one further each
/// round. In twice as many rounds as there are contestants, each comes directly behind each other one twice: where their
/// number is odd, that takes every second round backwards.
pub(crate) fn order(count: usize, round: usize) -> impl Iterator<Item = usize> {
    let (shift, backwards) =
        if count.is_multiple_of(2) { (round, false) } else { (round / 2, !round.is_multiple_of(2)) };
    (0..count).map(move |place| {
        let place = if backwards { count - 1 - place } else { place };
        let folded = if place.is_multiple_of(2) { place / 2 } else { count - 1 - place / 2 };
        (folded + shift) % count
    })
}

impl Lane {
    /// Lets the contestant take a turn and waits until it is over. One that has failed is gone, and says so when its thread
    /// is joined.
    fn take(&self, turn: Turn) {
        if self.turns.send(turn).is_ok() {
            let _ = self.done.recv();
        }
    }
}

/// A contestant's thread: takes its turns until there are no more.
fn run(
    contestant: &Contestant,
    caller: &mut Caller<'_>,
    pods: &[Pod],
    turns: Receiver<Turn>,
    done: SyncSender<()>,
) -> Result<Laps, RaceError> {
    let mut laps = Laps::default();
    let daemon = || contestant.daemon.map(cpu::of_process).unwrap_or_default();
    let before = daemon();
    let (mut before_add, mut daemon_in_adds) = (before, std::time::Duration::ZERO);
    let mut pods = pods.iter();
    let mut attached: Option<(&Pod, Attached)> = None;
    while let Ok(turn) = turns.recv() {
        match turn {
            Turn::Add => {
                let Some(pod) = pods.next() else { break };
                let children = cpu::of_children();
                before_add = daemon();
                let (made, sample) = caller.add(pod)?;
                let own = cpu::of_this_thread();
                caller.tidy(&made)?;
                laps.add.charge(cpu::of_this_thread() - own);
                laps.add.push(Sample { cpu: sample.cpu + cpu::of_children() - children, ..sample });
                attached = Some((pod, made));
            }
            Turn::Del => {
                let Some((pod, made)) = attached.take() else { continue };
                // What it did behind its answer, while others had their turns, it did for the ADD.
                let in_daemon = daemon().saturating_sub(before_add);
                daemon_in_adds += in_daemon;
                laps.add.charge(in_daemon);
                let children = cpu::of_children();
                let sample = caller.del(pod, &made)?;
                laps.del.push(Sample { cpu: sample.cpu + cpu::of_children() - children, ..sample });
                let burying = cpu::of_this_thread();
                caller.bury(&made)?;
                laps.del.charge(cpu::of_this_thread() - burying);
            }
        }
        if done.send(()).is_err() {
            break;
        }
    }
    // The rest it does because of DELs: it deletes links.
    laps.del.charge(daemon().saturating_sub(before).saturating_sub(daemon_in_adds));
    Ok(laps)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    #[test]
    fn everybody_has_one_turn_a_round_and_is_behind_everybody_else_equally_often() {
        for count in 2..12 {
            let mut behind: BTreeMap<(usize, usize), usize> = BTreeMap::new();
            // However many are asked for, what is raced is balanced.
            let rounds = super::whole(25, count);
            assert!((25..25 + 2 * count).contains(&rounds));
            for round in 0..rounds {
                let order: Vec<usize> = super::order(count, round).collect();
                for pair in order.windows(2) {
                    *behind.entry((pair[0], pair[1])).or_default() += 1;
                }
                let mut sorted = order;
                sorted.sort_unstable();
                assert_eq!(sorted, (0..count).collect::<Vec<_>>());
            }
            assert_eq!(behind.len(), count * (count - 1), "of {count}");
            assert!(behind.values().all(|times| *times == rounds / count), "of {count}: {behind:?}");
        }
    }
}
