//! Status: what `dotfourctl` shows.

use std::net::IpAddr;

use dotfour_protocol::{AttachmentStatus, NodeStatus, Status};

use super::Node;

/// How many attachments a reply lists; a message holds about twice as many.
const PAGE: usize = 150;

pub(super) fn status(question: &Status, node: &Node) -> NodeStatus {
    let (pool, mut attachments) = {
        let pool = node.pool();
        let attachments: Vec<(IpAddr, AttachmentStatus)> = pool
            .leases()
            .filter(|(_, lease)| question.after.is_none_or(|after| lease.address > after))
            .map(|(key, lease)| {
                let status = AttachmentStatus {
                    key: key.clone(),
                    pod: lease.pod.clone(),
                    addresses: vec![lease.address],
                    host_ifname: lease.link.as_ref().map(|link| link.name.clone()).unwrap_or_default(),
                };
                (lease.address, status)
            })
            .collect();
        (pool.counts(), attachments)
    };
    attachments.sort_by_key(|(address, _)| *address);
    let more = attachments.len() > PAGE;
    attachments.truncate(PAGE);
    NodeStatus {
        version: env!("CARGO_PKG_VERSION").into(),
        mode: "azure".into(),
        source: node.source.into(),
        nic: node.nic.name.clone(),
        node_address: node.node_address(),
        pool,
        attachments: attachments.into_iter().map(|(_, status)| status).collect(),
        more,
    }
}
