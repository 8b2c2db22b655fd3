//! Many pods deleted at once, and ADD and DEL while their links are being deleted.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dotfour_e2e::program::Failure;
use dotfour_rig::Place;

use crate::figures::{in_words, percentile};
use crate::stage::{Host, Outcome, ROUNDS, all, vnet};

/// Callers that delete.
const CALLERS: usize = 16;
/// How long it may take from the first DEL until all links are gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// Pods that come and go meanwhile, again and again.
const PASSERS: usize = 16;

/// How many pods there are, and how long any answer may take, in one round of [`ROUNDS`] at least.
pub(crate) struct Burial {
    pub(crate) pods: usize,
    pub(crate) slowest: Duration,
}

pub(crate) fn is_soon_over(place: &Place, burial: &Burial) -> Outcome {
    let vnet = vnet(place, "burial")?;
    let host = Host::start(&vnet, 1)?;
    let mut slow = String::new();
    // Noise ends, and what a call has to wait for does not.
    for _ in 0..ROUNDS {
        host.settle()?;
        slow = round(&host, burial)?.join(", ");
        if slow.is_empty() {
            return Ok(());
        }
        host.wait_for_links(0)?;
    }
    Err(slow.into())
}

/// Deletes so many pods at once; what took too long.
fn round(host: &Host, burial: &Burial) -> Result<Vec<String>, Failure> {
    let pods = host.pods(burial.pods, "web")?;
    let passers = host.sandboxes(PASSERS, "passer")?;
    let doomed = BTreeSet::from_iter(host.links()?);

    let mut slow = Vec::new();
    let begun = Instant::now();
    let answers = all(host.runtime().in_parallel(CALLERS, &pods, |calls, pod| calls.del(pod, None))?)?;
    let answered = begun.elapsed();
    let (mut adds, mut dels) = (Vec::new(), Vec::new());
    let gone = 'gone: loop {
        for pod in &passers {
            adds.push(host.runtime().add(pod)?.took);
            dels.push(host.runtime().del(pod, None)?.took);
        }
        let left = host.links()?.iter().filter(|index| doomed.contains(index)).count();
        let passed = begun.elapsed();
        if left == 0 {
            break 'gone format!("all links gone after {passed:.2?}");
        }
        if passed > GONE_WITHIN {
            let left = format!("{left} of {} links are there {passed:?} after the first DEL", doomed.len());
            slow.push(left.clone());
            break 'gone left;
        }
    };
    let deleted: Vec<Duration> = answers.iter().map(|answer| answer.took).collect();
    println!("  DEL of {} pods by {CALLERS} callers, {}", burial.pods, in_words(&deleted));
    println!("  all answered after {answered:.2?}, {gone}");
    println!("  ADD meanwhile, {}", in_words(&adds));
    println!("  DEL meanwhile, {}", in_words(&dels));
    for (what, times) in [("DEL", &deleted), ("ADD meanwhile", &adds), ("DEL meanwhile", &dels)] {
        let worst = percentile(times, 100);
        if worst > burial.slowest {
            slow.push(format!("the slowest {what} took {worst:.1?}, more than {:?}", burial.slowest));
        }
    }
    Ok(slow)
}
