//! The calls, one file each, and what they share.

mod add;
mod del;
mod gate;
mod status;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dotfour_protocol::{Call, Cause, Failure, Reply, Request};
use rustix::time::{ClockId, clock_gettime};

use crate::nic::Nic;
use crate::pool::{Moment, Pool};
use crate::wiring::{Janitor, Wirer};
use gate::Gate;

pub use add::Added;

/// What all verb threads share.
#[derive(Debug)]
pub struct Node {
    /// The pool. Locked only to look or to change it: never over IO, never over a call into the kernel.
    pool: Mutex<Pool>,
    /// Lets one call at a time work on an attachment.
    gate: Gate,
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
    pub fn new(pool: Pool, nic: Nic, networks: Vec<String>, source: &'static str, janitor: Janitor) -> Arc<Self> {
        Arc::new(Node { pool: Mutex::new(pool), gate: Gate::default(), nic, networks, source, janitor })
    }

    /// The pool, for a moment. A panic while it was locked would have ended the process, so poison says nothing.
    pub fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node_address(&self) -> IpAddr {
        self.nic.address.into()
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

/// Carries out one request. `netns` is the descriptor that came with it.
pub fn answer(request: Result<Request, Failure>, netns: Option<OwnedFd>, node: &Node, wirer: &mut Wirer) -> Answer {
    match request.map(|request| request.call) {
        Ok(Call::Add(add)) => match add::add(add, netns, node, wirer) {
            Ok(answer) => answer,
            Err(e) => Answer::plain(Reply::Failed(e.into())),
        },
        Ok(Call::Del(del)) => Answer::plain(match del::del(&del.key, node, wirer) {
            Ok(()) => Reply::Detached,
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
    match del::del(&added.key, node, wirer) {
        Ok(()) => tracing::warn!(key = %added.key, "the caller of an ADD was gone before its reply; undone"),
        Err(e) => tracing::error!(key = %added.key, "the caller of an ADD was gone, and it cannot be undone: {e}"),
    }
}

/// Time since boot, as the pool wants it.
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
