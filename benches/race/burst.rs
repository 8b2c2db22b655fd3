//! Many pods at once: so many callers that never wait, as a kubelet starting or draining a node's pods.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dotfour_rig::Pod;

use crate::caller::{Attached, Caller};
use crate::contestant::Contestant;
use crate::cpu;
use crate::error::RaceError;
use crate::floor::Shared;
use crate::in_turn::sandboxes;
use crate::samples::{Sample, Samples};
use crate::settle;

/// How many pods, and how many callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Pods to be added, and then deleted.
    pub(crate) pods: usize,
    /// Callers at once.
    pub(crate) callers: usize,
}

/// What one verb of a burst came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rush {
    /// The calls that succeeded.
    pub(crate) samples: Samples,
    /// How many failed.
    pub(crate) refused: usize,
    /// From the first call's start to the last one's end.
    took: Duration,
}

impl Rush {
    /// Calls that succeeded per second.
    pub(crate) fn rate(&self) -> f64 {
        let calls = u32::try_from(self.samples.times().len()).unwrap_or(u32::MAX);
        if self.took.is_zero() { 0.0 } else { f64::from(calls) / self.took.as_secs_f64() }
    }

    /// Puts a repetition beside this one.
    pub(crate) fn append(&mut self, again: Rush) {
        self.samples.append(again.samples);
        self.refused += again.refused;
        self.took += again.took;
    }
}

/// What a burst came to for one contestant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Burst {
    /// The ADDs.
    pub(crate) add: Rush,
    /// The DELs.
    pub(crate) del: Rush,
}

/// Adds the pods and deletes them again. Nothing of it is left.
pub(crate) fn race(contestant: &Contestant, shared: &Shared, size: Size) -> Result<Burst, RaceError> {
    let pods = sandboxes(contestant, "burst", size.pods)?;
    let links = contestant.node.links()?.len();
    let (add, added) = rush(contestant, shared, size.callers, &pods, add)?;
    let (mut del, deleted) = rush(contestant, shared, size.callers, &added, |caller, (pod, attached)| {
        caller.del(pod, attached).map(|sample| ((), sample))
    })?;
    let before = daemon_cpu(contestant);
    drop(deleted);
    let burying = Caller::enter(contestant, shared, |caller| {
        let before = cpu::of_this_thread();
        added.iter().try_for_each(|(_, attached)| caller.bury(attached))?;
        Ok(cpu::of_this_thread() - before)
    })?;
    settle::until_links(contestant, links)?;
    del.samples.charge(burying + daemon_cpu(contestant).saturating_sub(before));
    settle::end(pods)?;
    Ok(Burst { add, del })
}

/// Adds pods that stay. They end with their sandboxes.
pub(crate) fn fill(contestant: &Contestant, shared: &Shared, count: usize) -> Result<Vec<Pod>, RaceError> {
    const CALLERS: usize = 4;
    let pods = sandboxes(contestant, "present", count)?;
    let (Rush { refused, .. }, _) = rush(contestant, shared, CALLERS, &pods, add)?;
    if refused > 0 {
        return Err(RaceError::Refused { name: contestant.name, refused, count });
    }
    Ok(pods)
}

fn add(caller: &mut Caller<'_>, pod: &Pod) -> Result<(Attached, Sample), RaceError> {
    let (attached, sample) = caller.add(pod)?;
    caller.tidy(&attached)?;
    Ok((attached, sample))
}

/// What each call that succeeded was for, with what came of it.
type Done<'i, I, T> = Vec<(&'i I, T)>;

/// Makes a call for each item, from so many threads at once.
fn rush<'i, I: Sync, T: Send>(
    contestant: &Contestant,
    shared: &Shared,
    callers: usize,
    items: &'i [I],
    call: impl Fn(&mut Caller<'_>, &'i I) -> Result<(T, Sample), RaceError> + Sync,
) -> Result<(Rush, Done<'i, I, T>), RaceError> {
    let (next, ready) = (AtomicUsize::new(0), Barrier::new(callers));
    let one_of_many = || {
        let entered = Caller::enter(contestant, shared, |caller| {
            ready.wait();
            let started = Instant::now();
            let mut outcomes = Vec::new();
            while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                outcomes.push((item, call(caller, item)));
            }
            Ok((outcomes, started, Instant::now()))
        });
        if entered.is_err() {
            ready.wait();
        }
        entered
    };
    let cpu_before = cpu::of_children() + daemon_cpu(contestant);
    let callers = thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|_| scope.spawn(one_of_many)).collect();
        let joined = threads.into_iter().map(|thread| {
            let panicked = || std::io::Error::other("it panicked");
            thread.join().unwrap_or_else(|_| Err(RaceError::system("run a caller's thread")(panicked())))
        });
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    let first = callers.iter().map(|(_, started, _)| *started).min();
    let last = callers.iter().map(|(_, _, ended)| *ended).max();
    let took = last.zip(first).map(|(last, first)| last - first).unwrap_or_default();
    let mut rush = Rush { took, ..Rush::default() };
    let mut done = Vec::with_capacity(items.len());
    for (item, outcome) in callers.into_iter().flat_map(|(outcomes, ..)| outcomes) {
        match outcome {
            Ok((result, sample)) => {
                rush.samples.push(sample);
                done.push((item, result));
            }
            Err(RaceError::Call { .. }) => rush.refused += 1,
            Err(e) => return Err(e),
        }
    }
    rush.samples.charge((cpu::of_children() + daemon_cpu(contestant)).saturating_sub(cpu_before));
    Ok((rush, done))
}

fn daemon_cpu(contestant: &Contestant) -> Duration {
    contestant.daemon.map(cpu::of_process).unwrap_or_default()
}
