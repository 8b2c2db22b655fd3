//! DEL: off the network at once, buried later. Whatever else ends an attachment goes the same way.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use dotfour_datapath::KernelError;
use dotfour_protocol::AttachmentKey;
use tracing::info;

use super::add::words;
use super::{Node, now};
use crate::pool::{Covered, Lease, Moment};
use crate::wiring::Wirer;

/// Why an attachment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// CNI DEL.
    Del,
    /// A DEL, or the cancellation of an ADD, that had found no daemon.
    Spooled,
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
            Reason::ReplyLost => "nobody received the reply to its ADD",
            Reason::NamespaceGone => "its network namespace is gone",
        })
    }
}

/// What came of ending an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its addresses cool down.
    Released,
    /// The key was added again since.
    AddedSince,
    /// Nobody knows it; if its ADD is still under way, it will fail.
    Unknown,
}

/// Ends the attachment that was made by an ADD started before `at`.
///
/// The addresses are released only after the kernel carries nothing for the pod any more; if the kernel refuses, the lease
/// stays and the call can be repeated.
pub(super) fn end(
    key: &Arc<AttachmentKey>,
    at: Moment,
    reason: Reason,
    node: &Node,
    wirer: &mut Wirer,
) -> Result<Ended, KernelError> {
    let _entered = node.gate.enter(key);
    let (covered, ticket) = node.ledger.cover(key, at, now());
    match covered {
        Covered::Lease(lease) => end_lease(key, &lease, reason, node, wirer).map(|()| Ended::Released),
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
    reason: Reason,
    node: &Node,
    wirer: &mut Wirer,
) -> Result<(), KernelError> {
    let begun = Instant::now();
    if let Some(link) = &lease.link {
        let group = node.janitor.group();
        wirer.unwire(lease.addresses, link, group)?;
        node.janitor.bury(group);
    }
    let (_, ticket) = node.ledger.release(key, now());
    // If it is not recorded, the next start finds a lease without a link and lets its addresses cool down.
    let _ = node.ledger.commit(ticket);
    info!(%key, addresses = words(lease.addresses), %reason, took = ?begun.elapsed(), "released");
    Ok(())
}
