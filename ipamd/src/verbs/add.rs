//! ADD: addresses, a wired pod, an answer; or nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use dotfour_protocol::{Add, Attachment, AttachmentKey, PodAddress, Reply, ResultFormat, Route};
use tracing::error;

use super::left::{Held, New};
use super::order::{Leased, Order};
use super::{Left, Node, Reason, result, tell};
use crate::caller::Caller;
use crate::errors::AddError;
use crate::metrics::Phase;
use crate::pool::{Lease, Moment};
use crate::wiring::Wirer;
use crate::wiring::names::{HOST_MAC, gateway_for};
use crate::wiring::shape::End;

/// An ADD that succeeded.
struct Added {
    key: Arc<AttachmentKey>,
    started: Moment,
    attachment: Attachment,
    print: Option<ResultFormat>,
    /// Absent where the attachment was there already.
    new: Option<(New, Held)>,
}

/// Carries out an ADD, and answers. If nobody hears the answer, the caller believes that the ADD has failed, and so it does.
pub(super) fn answer(add: Add, netns: Option<OwnedFd>, caller: &Caller, node: &Node, wirer: &mut Wirer) -> Left {
    let Added { key, started, attachment, print, new } = match self::add(add, netns, caller, node, wirer) {
        Ok(added) => added,
        Err(e) => return tell(caller, &Reply::Failed(e.into())),
    };
    caller.phases.enter(Phase::Reply);
    let heard = caller.answer(&result::attached(print.as_ref(), &key.ifname, &attachment));
    let Some((new, held)) = new else { return Left::Nothing };
    let left = Left::Added { new, link: attachment.host_ifname, held };
    if heard { left } else { take_back(left, &key, started, node, wirer) }
}

fn add(add: Add, netns: Option<OwnedFd>, caller: &Caller, node: &Node, wirer: &mut Wirer) -> Result<Added, AddError> {
    let order = Order::take(add, false, caller, node)?;
    let netns = netns.ok_or(AddError::NoNamespace)?;
    let _entered = node.gate.enter(&order.key);
    let begun = Instant::now();
    let addresses = match order.lease(caller, node)? {
        Leased::New(addresses) => addresses,
        Leased::Existing(lease) => {
            caller.phases.enter(Phase::PodBatch);
            let attachment = confirm(&order.key, &lease, netns.as_fd(), node, wirer)?;
            let Order { key, started, print, .. } = order;
            return Ok(Added { key, started, attachment, print, new: None });
        }
    };
    let plan = node.plan(&order.key, order.pod.as_deref(), addresses);
    let renamed = |key: &AttachmentKey, link| node.ledger.pool().rename_link(key, link);
    let wired = match wirer.wire(&plan, netns.as_fd(), &caller.phases, renamed) {
        Ok(wired) => wired,
        Err(e) => {
            order.cancel(node);
            return Err(e.into());
        }
    };
    let Order { key, started, pod, print, .. } = order;
    let link = node.ledger.pool().set_link(&key, wired.link);
    let new = New { key: Arc::clone(&key), pod, addresses, took: begun.elapsed(), index: Some(link.index) };
    let attachment = attachment(link.name, wired.pod);
    Ok(Added { key, started, attachment, print, new: Some((new, Held { _netns: netns, _inside: wired.leftovers })) })
}

/// Undoes an ADD whose reply nobody received: whoever asked believes that it has failed. An ADD of the same key that was started
/// later, and may have been answered by now, is another's.
pub(super) fn take_back(left: Left, key: &Arc<AttachmentKey>, started: Moment, node: &Node, wirer: &mut Wirer) -> Left {
    left.settle(&node.janitor);
    if let Err(e) = node.end(key, started, Reason::ReplyLost, wirer) {
        error!(%key, "nobody received the reply to an ADD, and it cannot be undone: {e}");
    }
    Left::Nothing
}

/// The answer to an ADD that was answered before, provided that the pod is still there.
fn confirm(
    key: &Arc<AttachmentKey>,
    lease: &Lease,
    netns: BorrowedFd<'_>,
    node: &Node,
    wirer: &mut Wirer,
) -> Result<Attachment, AddError> {
    // The gate lets no second call in before the first has set the link or cancelled the lease.
    let link = lease.link.as_ref().ok_or(AddError::NoNamespace)?;
    let plan = node.plan(key, lease.pod.as_deref(), lease.addresses);
    Ok(attachment(link.name.clone(), wirer.confirm(&plan, link, netns)?))
}

/// What a CNI result says of a pod: its end as it was made.
fn attachment(host_ifname: String, pod: End) -> Attachment {
    Attachment {
        host_ifname,
        host_mac: HOST_MAC.to_string(),
        pod_mac: pod.mac.to_string(),
        mtu: pod.mtu,
        addresses: pod
            .addresses
            .into_iter()
            .map(|net| PodAddress { address: net, gateway: gateway_for(net.addr()) })
            .collect(),
        // A result's routes are the pod's; those in a table of their own serve one interface alone.
        routes: pod
            .routes
            .into_iter()
            .filter(|_| !pod.further)
            .map(|route| Route { dst: route.destination, gw: route.gateway })
            .collect(),
    }
}
