//! Status: what `dotfourctl` shows.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use dotfour_protocol::{AttachmentKey, AttachmentStatus, NodeStatus, Status};

use super::{Node, now};

/// How many attachments a reply lists; a message holds about twice as many.
const PAGE: usize = 150;

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
                let (key, pod, delegated) = (AttachmentKey::clone(key), lease.pod.clone(), lease.delegated);
                Some((first, AttachmentStatus { key, pod, addresses, host_ifname, delegated }))
            })
            .filter(|(first, _)| question.after.is_none_or(|after| *first > after))
            .collect();
        (pool.counts(), pool.totals(node.families), attachments)
    };
    attachments.sort_by_key(|(address, _)| *address);
    let more = attachments.len() > PAGE;
    attachments.truncate(PAGE);
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
