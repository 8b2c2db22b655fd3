//! The calls, one file each, and what they share.

mod add;
mod del;
mod gate;
mod status;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dotfour_datapath::KernelError;
use dotfour_protocol::{AttachmentKey, Call, Cause, Failure, Reply, Request};
use rustix::time::{ClockId, clock_gettime};

use crate::lease::Ledger;
use crate::nic::Nic;
use crate::pool::{HostLink, Moment};
use crate::wiring::{Janitor, Wirer};
use gate::Gate;

pub use add::Added;
pub use del::{Ended, Reason};

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
    /// The networks that are served; all where empty.
    pub networks: Vec<String>,
    /// The source's name, for the status.
    pub source: &'static str,
    /// Deletes what DEL condemned.
    pub janitor: Janitor,
}

impl Node {
    /// A node that is ready to serve.
    pub fn new(ledger: Ledger, nic: Nic, networks: Vec<String>, source: &'static str, janitor: Janitor) -> Arc<Self> {
        let (gate, collected) = (Gate::default(), AtomicU64::new(0));
        Arc::new(Node { ledger, gate, collected, nic, networks, source, janitor })
    }

    fn node_address(&self) -> IpAddr {
        self.nic.address.into()
    }

    /// Ends the attachment that was made by an ADD started before `at`. Repeating it does no harm.
    ///
    /// # Errors
    /// The kernel refused; the lease stays.
    pub fn end(
        &self,
        key: &Arc<AttachmentKey>,
        at: Moment,
        reason: Reason,
        wirer: &mut Wirer,
    ) -> Result<Ended, KernelError> {
        del::end(key, at, reason, self, wirer)
    }

    /// Releases a lease whose link is gone, and only then: asks the kernel once more, with all other calls for the
    /// attachment kept out. True if there was something to collect.
    ///
    /// # Errors
    /// The kernel did not answer; the lease stays.
    pub fn collect(&self, key: &Arc<AttachmentKey>, link: &HostLink, wirer: &mut Wirer) -> Result<bool, KernelError> {
        let _entered = self.gate.enter(key);
        let lease = self.ledger.pool().lease(key).cloned();
        match lease {
            Some(lease) if lease.link.as_ref() == Some(link) && !wirer.has_link(link)? => {
                del::end_lease(key, &lease, Reason::NamespaceGone, self, wirer)?;
                self.collected.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// A reply, and what to take back if nobody receives it.
#[derive(Debug)]
pub struct Answer {
    /// What to send.
    pub reply: Reply,
    /// An attachment that this call made.
    pub added: Option<Added>,
}

impl Answer {
    fn plain(reply: Reply) -> Self {
        Answer { reply, added: None }
    }
}

/// Carries out one request. `netns` is the descriptor that came with it; `caller_waits` tells whether there is still
/// somebody to answer.
pub fn answer(
    request: Result<Request, Failure>,
    netns: Option<OwnedFd>,
    node: &Node,
    wirer: &mut Wirer,
    caller_waits: impl FnOnce() -> bool,
) -> Answer {
    match request.map(|request| request.call) {
        Ok(Call::Add(add)) => match add::add(add, netns, node, wirer, caller_waits) {
            Ok(answer) => answer,
            Err(e) => Answer::plain(Reply::Failed(e.into())),
        },
        Ok(Call::Del(del)) => Answer::plain(match node.end(&Arc::new(del.key), now(), Reason::Del, wirer) {
            Ok(_) => Reply::Detached,
            Err(e) => Reply::Failed(Failure::new(
                Cause::KernelRefused,
                e.to_string(),
                "see the node's kernel log; the runtime will try again",
            )),
        }),
        Ok(Call::Status(status)) => Answer::plain(Reply::Status(status::status(&status, node))),
        Err(failure) => Answer::plain(Reply::Failed(failure)),
    }
}

/// Takes back what an ADD did whose reply nobody received: its caller believes that it failed.
pub fn take_back(added: &Added, node: &Node, wirer: &mut Wirer) {
    if let Err(e) = node.end(&added.key, now(), Reason::ReplyLost, wirer) {
        tracing::error!(key = %added.key, "nobody received the reply to an ADD, and it cannot be undone: {e}");
    }
}

/// Time since boot, as the pool wants it.
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
