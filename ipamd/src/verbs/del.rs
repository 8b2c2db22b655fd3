//! DEL: off the network at once, buried later.

use std::time::Instant;

use dotfour_datapath::KernelError;
use dotfour_protocol::AttachmentKey;
use tracing::info;

use super::{Node, now};
use crate::wiring::Wirer;

/// Ends an attachment. One that nobody knows is ended already.
///
/// The address is released only after the kernel carries nothing for the pod any more; if the kernel refuses, the lease
/// stays and the call can be repeated.
pub(super) fn del(key: &AttachmentKey, node: &Node, wirer: &mut Wirer) -> Result<(), KernelError> {
    let _entered = node.gate.enter(key);
    let begun = Instant::now();
    let lease = node.pool().lease(key).cloned();
    let Some(lease) = lease else { return Ok(()) };
    if let Some(link) = &lease.link {
        let group = node.janitor.group();
        wirer.unwire(lease.address, link, group)?;
        node.janitor.bury(group);
    }
    node.pool().release(key, now());
    info!(%key, address = %lease.address, took = ?begun.elapsed(), "deleted");
    Ok(())
}
