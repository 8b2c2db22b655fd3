//! ADD: addresses, a wired pod, an answer; or nothing.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dotfour_protocol::{Add, Attachment, AttachmentKey, PodAddress, Reply, Route};
use tracing::info;

use super::{Answer, Node, now};
use crate::errors::AddError;
use crate::pool::{Assignment, Families, Lease, PodAddresses, Wish};
use crate::wiring::names::{GATEWAY, HOST_MAC, host_link, pod_mac};
use crate::wiring::tag::Tag;
use crate::wiring::{PodPlan, Wirer};

/// An attachment that an ADD has just made.
#[derive(Debug)]
pub struct Added {
    /// Whose it is.
    pub key: Arc<AttachmentKey>,
}

/// Carries out an ADD. `caller_waits` tells whether there is still somebody to answer.
pub(super) fn add(
    add: Add,
    netns: Option<OwnedFd>,
    node: &Node,
    wirer: &mut Wirer,
    caller_waits: impl FnOnce() -> bool,
) -> Result<Answer, AddError> {
    let started = add.started_ns.map_or_else(now, Duration::from_nanos);
    let (key, pod) = (Arc::new(add.key), add.pod);
    if !node.networks.is_empty() && !node.networks.contains(&key.network) {
        return Err(AddError::UnknownNetwork { network: key.network.clone(), served: node.networks.clone() });
    }
    let netns = netns.ok_or(AddError::NoNamespace)?;
    let _entered = node.gate.enter(&key);
    // Calls may have waited in line for long. What nobody waits for is not worth a pod's wiring.
    if !caller_waits() {
        return Err(AddError::CallerGone);
    }
    let begun = Instant::now();

    let asked: PodAddresses = add.asked.into_iter().collect();
    let wish = Wish { key: &key, pod: pod.clone(), families: Families::V4, asked, started };
    let (assignment, ticket) = node.ledger.assign(wish, now());
    let addresses = match assignment {
        Assignment::New(addresses) => addresses,
        Assignment::Existing(lease) => {
            node.ledger.commit(ticket)?;
            if let Some(other) = asked.iter().find(|asked| !lease.addresses.iter().any(|held| held == *asked)) {
                return Err(AddError::AskedOther(other));
            }
            return confirm(&key, &lease, netns, node, wirer);
        }
        Assignment::Exhausted(counts) => return Err(AddError::Exhausted(counts)),
        Assignment::AskedUnknown(address) => return Err(AddError::AskedUnknown(address)),
        Assignment::AskedTaken(address) => return Err(AddError::AskedTaken(address)),
        Assignment::Overtaken => return Err(AddError::Overtaken),
    };
    let plan = PodPlan {
        tag: Tag { key: AttachmentKey::clone(&key), addresses },
        host_link: host_link(&key, pod.as_ref()),
        mtu: node.nic.mtu,
        node_address: node.node_address(),
    };
    let recorded = node.ledger.commit(ticket).map_err(AddError::from);
    let renamed = |key: &AttachmentKey, link| node.ledger.pool().rename_link(key, link);
    let link = match recorded.and_then(|()| Ok(wirer.wire(&plan, netns.as_fd(), renamed)?)) {
        Ok(link) => link,
        Err(e) => {
            // If this is not recorded either, the next start finds a lease without a link and collects it.
            let _ = node.ledger.commit(node.ledger.cancel(&key));
            return Err(e);
        }
    };
    let link = node.ledger.pool().set_link(&key, link);
    info!(
        %key, pod = pod.map(|pod| pod.to_string()), addresses = words(addresses), link = link.name,
        took = ?begun.elapsed(), "added"
    );
    let reply = Reply::Attached(attachment(addresses, link.name, node));
    Ok(Answer { reply, added: Some(Added { key }) })
}

/// The answer to an ADD that was answered before, provided that the pod is still there.
fn confirm(
    key: &AttachmentKey,
    lease: &Lease,
    netns: OwnedFd,
    node: &Node,
    wirer: &mut Wirer,
) -> Result<Answer, AddError> {
    // The gate lets no second call in before the first has set the link or cancelled the lease.
    let link = lease.link.as_ref().ok_or(AddError::NoNamespace)?;
    wirer.confirm(&key.ifname, link, netns.as_fd())?;
    Ok(Answer::plain(Reply::Attached(attachment(lease.addresses, link.name.clone(), node))))
}

fn attachment(addresses: PodAddresses, host_ifname: String, node: &Node) -> Attachment {
    Attachment {
        host_ifname,
        host_mac: HOST_MAC.to_string(),
        pod_mac: pod_mac(addresses).to_string(),
        mtu: node.nic.mtu,
        addresses: addresses.iter().map(|a| PodAddress { address: a.into(), gateway: GATEWAY }).collect(),
        routes: vec![
            Route { dst: GATEWAY.into(), gw: None },
            Route { dst: ipnet::IpNet::V4(ipnet::Ipv4Net::default()), gw: Some(GATEWAY) },
        ],
    }
}

/// A pod's addresses for the log.
pub(super) fn words(addresses: PodAddresses) -> String {
    addresses.iter().map(|address| address.to_string()).collect::<Vec<_>>().join(",")
}
