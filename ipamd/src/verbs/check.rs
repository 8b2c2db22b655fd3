//! CHECK: whether everything is as ADD made it. Of a pod that another plugin has wired, that is its lease.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use dotfour_protocol::{Cause, Check, Failure, Reply};

use super::Node;
use crate::errors::with_source;
use crate::wiring::{CheckError, Wirer};

/// Carries out a CHECK.
pub(super) fn check(check: Check, netns: Option<OwnedFd>, node: &Node, wirer: &mut Wirer) -> Reply {
    match compare(check, netns, node, wirer) {
        Ok(()) => Reply::Checked,
        Err(failure) => Reply::Failed(failure),
    }
}

fn compare(check: Check, netns: Option<OwnedFd>, node: &Node, wirer: &mut Wirer) -> Result<(), Failure> {
    let Check { key, addresses, delegated } = check;
    let key = Arc::new(key);
    if netns.is_none() && !delegated {
        let next_step = "install the plugin and the daemon from the same release";
        return Err(Failure::new(Cause::ProtocolMismatch, "no network namespace came with the CHECK", next_step));
    }
    // No ADD or DEL of this attachment changes what is looked at.
    let _entered = node.gate.enter(&key);
    let lease = node.ledger.pool().lease(&key).cloned();
    // One that is just being wired is none yet.
    let Some(lease) = lease.filter(|lease| lease.delegated == delegated && (delegated || lease.link.is_some())) else {
        return Err(Failure::new(
            Cause::UnknownContainer,
            format!("{key} has no attachment on this node"),
            "add the container again, or forget it",
        ));
    };
    if let Some(missing) = lease.addresses.iter().find(|address| !addresses.contains(address)) {
        return Err(Failure::new(
            Cause::AttachmentDiffers,
            format!("the attachment's address is {missing}, which prevResult does not name"),
            "pass the result of the ADD; if that is what it said, delete the pod and let it be made again",
        ));
    }
    let (Some(link), Some(netns)) = (&lease.link, netns) else { return Ok(()) };
    let plan = node.plan(&key, lease.pod.as_deref(), lease.addresses);
    wirer.check(&plan, link, netns.as_fd()).map_err(|e| match &e {
        CheckError::NotANamespace(_) => Failure::new(
            Cause::InvalidNamespace,
            with_source(&e),
            "pass the path of the pod's network namespace in CNI_NETNS",
        ),
        CheckError::Differs(difference) => {
            Failure::new(Cause::AttachmentDiffers, difference.what.clone(), difference.fix.clone())
        }
        CheckError::Kernel(_) => {
            Failure::new(Cause::KernelRefused, with_source(&e), "see the node's kernel log; the runtime will try again")
        }
    })
}
