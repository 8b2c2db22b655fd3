//! GC: ends what the runtime does not know, as DEL would.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use dotfour_protocol::{AttachmentKey, Failure, Gc, Reply, ValidAttachment};
use tracing::warn;

use super::{Node, Reason, now};
use crate::pool::Moment;
use crate::wiring::Wirer;

/// How long an attachment is spared after its ADD: the runtime may have made its list before.
const GRACE: Duration = Duration::from_secs(60);

/// Carries out a GC. What cannot be ended stays, and is named; the rest ends all the same.
pub(super) fn gc(gc: Gc, node: &Node, wirer: &mut Wirer) -> Reply {
    let valid: HashSet<ValidAttachment> = gc.valid.into_iter().collect();
    let mut refused = None;
    for (key, started) in stale(&gc.network, &valid, node) {
        // Only what was found: an ADD that came since counts for itself.
        if let Err(e) = node.end(&key, started, Reason::Gc, wirer) {
            warn!(%key, "GC has to leave it: {e}");
            refused.get_or_insert_with(|| (e.remedy().0, format!("{key} cannot be ended: {e}")));
        }
    }
    match refused {
        None => Reply::Collected,
        Some((cause, message)) => {
            Reply::Failed(Failure::new(cause, message, "see the daemon's log; the runtime's next GC will try again"))
        }
    }
}

/// The network's attachments that are not valid and older than the grace, with the moments of their ADDs.
fn stale(network: &str, valid: &HashSet<ValidAttachment>, node: &Node) -> Vec<(Arc<AttachmentKey>, Moment)> {
    let Some(latest) = now().checked_sub(GRACE) else { return Vec::new() };
    // Where the moment was lost with the journal, it was before this daemon's start.
    let begun = |started: Moment| if started.is_zero() { node.started } else { started };
    let pool = node.ledger.pool();
    let candidates = pool.leases().filter(|(key, lease)| key.network == network && begun(lease.started) <= latest);
    candidates
        .filter(|(key, _)| {
            let attachment = ValidAttachment { container_id: key.container_id.clone(), ifname: key.ifname.clone() };
            !valid.contains(&attachment)
        })
        .map(|(key, lease)| (Arc::clone(key), lease.started))
        .collect()
}
