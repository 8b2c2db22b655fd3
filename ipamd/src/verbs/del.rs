//! DEL: off the network at once, buried later. Whatever else ends an attachment goes the same way.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dotfour_protocol::{AttachmentKey, Del, Reply};
use tracing::info;

use super::left::words;
use super::{Left, Node, now, started, tell};
use crate::caller::Caller;
use crate::errors::EndError;
use crate::pool::{Covered, Lease, Moment, PodAddresses};
use crate::wiring::{Janitor, Wirer};

/// Why an attachment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// CNI DEL.
    Del,
    /// A DEL, or the cancellation of an ADD, that had found no daemon.
    Spooled,
    /// CNI GC: the runtime does not know it.
    Gc,
    /// Nobody received the ADD's reply.
    ReplyLost,
    /// The pod's network namespace died, and took the link along.
    NamespaceGone,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Del => "DEL",
            Reason::Spooled => "spooled DEL",
            Reason::Gc => "GC: the runtime does not know it",
            Reason::ReplyLost => "nobody received the reply to its ADD",
            Reason::NamespaceGone => "its network namespace is gone",
        })
    }
}

/// An attachment that has ended, but for what nobody needs to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a condemned link is not buried before somebody asks for it"]
pub struct Released {
    addresses: PodAddresses,
    took: Duration,
    /// The group of its condemned link, if it had one.
    condemned: Option<u32>,
}

impl Released {
    /// Has the link buried, and says in the log what happened.
    pub fn close(&self, key: &AttachmentKey, reason: Reason, janitor: &Janitor) {
        if let Some(group) = self.condemned {
            janitor.bury(group);
        }
        info!(%key, addresses = words(self.addresses), %reason, took = ?self.took, "released");
    }
}

/// What came of ending an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its addresses cool down.
    Released(Released),
    /// The key was added again since.
    AddedSince,
    /// Nobody knows it; if its ADD is still under way, it will fail.
    Unknown,
}

/// Carries out a DEL, and answers.
pub(super) fn answer(del: Del, caller: &Caller, node: &Node, wirer: &mut Wirer) -> Left {
    let key = Arc::new(del.key);
    match end(&key, started(del.started_ns), node, wirer) {
        Ok(ended) => {
            let nothing = tell(caller, &Reply::Detached);
            match ended {
                Ended::Released(released) => Left::Released { key, released, reason: Reason::Del },
                Ended::AddedSince | Ended::Unknown => nothing,
            }
        }
        Err(e) => tell(caller, &Reply::Failed(e.into())),
    }
}

/// Ends the attachment that was made by an ADD started before `at`.
///
/// The addresses are released only after the kernel carries nothing for the pod any more; if the kernel refuses, or the end
/// of a delegated lease cannot be recorded, the lease stays and the call can be repeated.
pub(super) fn end(key: &Arc<AttachmentKey>, at: Moment, node: &Node, wirer: &mut Wirer) -> Result<Ended, EndError> {
    let _entered = node.gate.enter(key);
    let (covered, ticket) = node.ledger.cover(key, at, now());
    match covered {
        Covered::Lease(lease) => end_lease(key, &lease, node, wirer).map(Ended::Released),
        Covered::AddedSince => Ok(Ended::AddedSince),
        Covered::Unknown => {
            // Not on record only matters if the daemon dies before the late ADD comes; the ADD's own reply is then lost too.
            let _ = node.ledger.commit(ticket);
            Ok(Ended::Unknown)
        }
    }
}

/// Ends a lease. The caller is in the gate.
pub(super) fn end_lease(
    key: &Arc<AttachmentKey>,
    lease: &Lease,
    node: &Node,
    wirer: &mut Wirer,
) -> Result<Released, EndError> {
    let begun = Instant::now();
    let mut condemned = None;
    if let Some(link) = &lease.link {
        let group = node.janitor.group();
        wirer.unwire(lease.addresses, link, group)?;
        condemned = Some(group);
    }
    let (_, ticket) = node.ledger.release(key, now());
    // Nothing but the record would tell the next start that a delegated lease is over, so it is not.
    if let Err(e) = node.ledger.commit(ticket)
        && lease.delegated
        && node.ledger.restore(key, lease, node.nic.index)
    {
        return Err(e.into());
    }
    // Of any other lease the next start finds no link, and lets its addresses cool down.
    Ok(Released { addresses: lease.addresses, took: begun.elapsed(), condemned })
}
