//! The calls, one file each, and what they share.

mod add;
mod assign;
mod check;
mod del;
mod gate;
mod gc;
mod left;
mod order;
pub mod result;
mod status;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dotfour_protocol::{AttachmentKey, Call, PodName, Reply};
use rustix::time::{ClockId, clock_gettime};

use crate::caller::{Caller, Question};
use crate::errors::EndError;
use crate::lease::Ledger;
use crate::metrics::Metrics;
use crate::nic::Nic;
use crate::pool::{Families, Moment, PodAddresses};
use crate::sweeper::Sweeper;
use crate::wiring::names::{EXEMPT_GROUP, POD_GROUP, host_link};
use crate::wiring::tag::Tag;
use crate::wiring::{Janitor, PodPlan, Wirer};
use gate::Gate;

pub use del::{Ended, Reason, Released};
pub use left::Left;

/// What all verb threads share.
#[derive(Debug)]
pub struct Node {
    /// The pool and its journal.
    pub ledger: Ledger,
    /// Lets one call at a time work on an attachment.
    gate: Gate,
    /// How many leases were collected without a DEL since the start.
    collected: AtomicU64,
    /// The NIC the pods' addresses belong to.
    pub nic: Nic,
    /// The families that every pod gets an address of.
    pub families: Families,
    /// Whom it serves, and how.
    pub served: Served,
    /// The source's name, for the status.
    pub source: &'static str,
    /// Deletes what DEL condemned.
    pub janitor: Janitor,
    /// Removes released addresses' connections.
    pub sweeper: Sweeper,
    /// What is counted and timed.
    pub metrics: Metrics,
    /// When this daemon started to serve.
    started: Moment,
}

/// What the configuration says of networks and pods.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// The networks that are served; all where empty.
    pub networks: Vec<String>,
    /// The Kubernetes namespaces that the guard of the metadata service lets through.
    pub exempt_namespaces: BTreeSet<String>,
}

impl Served {
    /// The group of a pod's host link. A pod without a name is of no namespace.
    pub fn group_of(&self, pod: Option<&PodName>) -> u32 {
        let exempt = pod.is_some_and(|pod| self.exempt_namespaces.contains(&pod.namespace));
        if exempt { EXEMPT_GROUP } else { POD_GROUP }
    }
}

impl Node {
    /// A node that is ready to serve, in the calling thread's network namespace.
    ///
    /// # Errors
    /// No netlink socket can be had.
    pub fn new(
        ledger: Ledger,
        nic: Nic,
        families: Families,
        served: Served,
        source: &'static str,
        janitor: Janitor,
        metrics: Metrics,
    ) -> std::io::Result<Arc<Self>> {
        let (gate, collected) = (Gate::default(), AtomicU64::new(0));
        let sweeper = Sweeper::open()?;
        Ok(Arc::new(Node {
            ledger,
            gate,
            collected,
            nic,
            families,
            served,
            source,
            janitor,
            sweeper,
            metrics,
            started: now(),
        }))
    }

    /// How many leases were collected without a DEL since the start.
    pub fn collected(&self) -> u64 {
        self.collected.load(Ordering::Relaxed)
    }

    /// What a pod with these addresses is to get.
    fn plan(&self, key: &Arc<AttachmentKey>, pod: Option<&PodName>, addresses: PodAddresses) -> PodPlan<'_> {
        let group = self.served.group_of(pod);
        PodPlan { tag: Tag { key: Arc::clone(key), addresses }, host_link: host_link(key, pod), nic: &self.nic, group }
    }

    /// Ends the attachment that was made by an ADD started before `at`. Repeating it does no harm.
    ///
    /// # Errors
    /// The kernel refused, or the end of a delegated lease is not on record; the lease stays.
    pub fn end(
        &self,
        key: &Arc<AttachmentKey>,
        at: Moment,
        reason: Reason,
        wirer: &mut Wirer,
    ) -> Result<Ended, EndError> {
        let ended = del::end(key, at, self, wirer)?;
        if let Ended::Released(released) = &ended {
            released.close(key, reason, &self.janitor);
        }
        Ok(ended)
    }

    /// Releases a lease whose link is gone, and only then: asks the kernel once more, with all other calls for the
    /// attachment kept out. The link is known by its index, because another call, of a newer sandbox of the pod, may rename it at
    /// any moment. True if there was something to collect.
    ///
    /// # Errors
    /// The kernel did not answer; the lease stays.
    pub fn collect(&self, key: &Arc<AttachmentKey>, index: u32, wirer: &mut Wirer) -> Result<bool, EndError> {
        let _entered = self.gate.enter(key);
        let lease = self.ledger.pool().lease(key).cloned();
        match lease {
            Some(lease) if lease.link_index() == Some(index) && !wirer.has_link(index)? => {
                del::end_lease(key, &lease, self, wirer)?.close(key, Reason::NamespaceGone, &self.janitor);
                self.collected.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// Carries out what a caller asks, and answers. What can wait, such as a line in the log, is what it returns: a pod waits for
/// each of these microseconds.
pub fn answer(question: Question, caller: &Caller, node: &Node, wirer: &mut Wirer) -> Left {
    match question.request.map(|request| request.call) {
        Ok(Call::Add(add)) => add::answer(add, question.netns, caller, node, wirer),
        Ok(Call::Assign(add)) => assign::answer(add, caller, node, wirer),
        Ok(Call::Del(del)) => del::answer(del, caller, node, wirer),
        Ok(Call::Check(check)) => tell(caller, &check::check(check, question.netns, node, wirer)),
        Ok(Call::Gc(gc)) => tell(caller, &gc::gc(gc, node, wirer)),
        // The socket appears when the daemon is ready, and it stays so: an exhausted pool is a matter of pods, not of the
        // node.
        Ok(Call::Ready) => tell(caller, &Reply::Ready),
        Ok(Call::Status(status)) => tell(caller, &Reply::Status(status::status(&status, node))),
        Err(failure) => tell(caller, &Reply::Failed(failure)),
    }
}

/// Answers where nothing is to be undone if nobody hears it, and nothing is left to do.
fn tell(caller: &Caller, reply: &Reply) -> Left {
    let _ = caller.answer(reply);
    Left::Nothing
}

/// When a plugin says that it was started, or this moment. No call was started later than now.
fn started(ns: Option<u64>) -> Moment {
    let now = now();
    ns.map_or(now, |ns| Duration::from_nanos(ns).min(now))
}

/// Time since boot, as the pool wants it.
pub fn now() -> Moment {
    reading(ClockId::Monotonic)
}

/// What a clock of the kernel's shows.
pub fn reading(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
