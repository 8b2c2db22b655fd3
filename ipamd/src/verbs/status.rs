//! Status: what `dotfourctl` shows.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use dotfour_protocol::frame::MAX_MESSAGE;
use dotfour_protocol::{AttachmentKey, AttachmentStatus, NodeStatus, Status};

use super::{Node, now};

/// How many bytes of attachments a reply lists, or one attachment: some 150 usual ones.
const PAGE: usize = MAX_MESSAGE * 5 / 8;

pub(super) fn status(question: &Status, node: &Node) -> NodeStatus {
    let (pool, totals, mut attachments) = {
        let mut pool = node.ledger.pool();
        pool.thaw(now());
        let attachments: Vec<(IpAddr, AttachmentStatus)> = pool
            .leases()
            .filter_map(|(key, lease)| {
                let addresses: Vec<IpAddr> = lease.addresses.iter().collect();
                let first = *addresses.first()?;
                let host_ifname = lease.link.as_ref().map(|link| link.name.clone()).unwrap_or_default();
                let (key, pod) = (AttachmentKey::clone(key), lease.pod.as_deref().cloned());
                Some((first, AttachmentStatus { key, pod, addresses, host_ifname, delegated: lease.delegated }))
            })
            .filter(|(first, _)| question.after.is_none_or(|after| *first > after))
            .collect();
        (pool.counts(), pool.totals(node.families), attachments)
    };
    attachments.sort_by_key(|(address, _)| *address);
    let page = page(attachments.iter().map(|(_, status)| size(status)));
    let more = attachments.len() > page;
    attachments.truncate(page);
    NodeStatus {
        version: env!("CARGO_PKG_VERSION").into(),
        mode: "azure".into(),
        source: node.source.into(),
        nic: node.nic.name.clone(),
        node_address: node.nic.address.into(),
        pool,
        totals,
        collected: node.collected.load(Ordering::Relaxed),
        attachments: attachments.into_iter().map(|(_, status)| status).collect(),
        more,
    }
}

/// How many of these a reply has room for. A first one that is too long by itself is not kept from being told that.
fn page(sizes: impl Iterator<Item = usize>) -> usize {
    let mut room = PAGE;
    let fit = sizes.take_while(|size| {
        let fits = *size <= room;
        room = room.saturating_sub(*size);
        fits
    });
    fit.count().max(1)
}

/// How many bytes an attachment has in a reply.
fn size(status: &AttachmentStatus) -> usize {
    serde_json::to_vec(status).map_or(PAGE, |json| json.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_before_it_is_too_long_and_is_never_empty() {
        assert_eq!(page([PAGE / 3; 10].into_iter()), 3);
        assert_eq!(page([PAGE + 1, 1].into_iter()), 1);
        assert_eq!(page([1, PAGE + 1, 1].into_iter()), 1);
        assert_eq!(page([10; 5].into_iter()), 5);
    }
}
