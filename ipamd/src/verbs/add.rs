//! ADD: an address, a wired pod, an answer; or nothing.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use dotfour_protocol::{Add, Attachment, AttachmentKey, PodAddress, Reply, Route};
use tracing::info;

use super::{Answer, Node, now};
use crate::errors::AddError;
use crate::pool::{Assignment, Lease};
use crate::wiring::names::{GATEWAY, HOST_MAC, host_link, pod_mac};
use crate::wiring::tag::Tag;
use crate::wiring::{PodPlan, Wirer};

/// An attachment that an ADD has just made.
#[derive(Debug)]
pub struct Added {
    /// Whose it is.
    pub key: AttachmentKey,
}

pub(super) fn add(add: Add, netns: Option<OwnedFd>, node: &Node, wirer: &mut Wirer) -> Result<Answer, AddError> {
    let Add { key, pod } = add;
    if !node.networks.is_empty() && !node.networks.contains(&key.network) {
        return Err(AddError::UnknownNetwork { network: key.network, served: node.networks.clone() });
    }
    let netns = netns.ok_or(AddError::NoNamespace)?;
    let _entered = node.gate.enter(&key);
    let begun = Instant::now();

    let assignment = node.pool().assign(&key, pod.clone(), now());
    let address = match assignment {
        Assignment::New(address) => address,
        Assignment::Existing(lease) => return confirm(&key, &lease, netns, node, wirer),
        Assignment::Exhausted(counts) => return Err(AddError::Exhausted(counts)),
    };

    let plan = PodPlan {
        tag: Tag { key: key.clone(), address },
        host_link: host_link(&key, pod.as_ref()),
        mtu: node.nic.mtu,
        node_address: node.node_address(),
    };
    let wired = match wirer.wire(&plan, netns.as_fd()) {
        Ok(wired) => wired,
        Err(e) => {
            node.pool().cancel(&key);
            return Err(e.into());
        }
    };
    {
        let mut pool = node.pool();
        pool.set_link(&key, wired.link.clone());
        if let Some(displaced) = wired.displaced {
            pool.set_link(&displaced.key, displaced.link);
        }
    }
    info!(%key, pod = pod.map(|pod| pod.to_string()), %address, link = wired.link.name, took = ?begun.elapsed(), "added");
    let reply = Reply::Attached(attachment(address, wired.link.name, node));
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
    let Some(link) = &lease.link else {
        // The gate lets no second call in before the first has set the link or cancelled the lease.
        return Err(AddError::NoNamespace);
    };
    wirer.confirm(&key.ifname, link, netns.as_fd())?;
    Ok(Answer::plain(Reply::Attached(attachment(lease.address, link.name.clone(), node))))
}

fn attachment(address: IpAddr, host_ifname: String, node: &Node) -> Attachment {
    Attachment {
        host_ifname,
        host_mac: HOST_MAC.to_string(),
        pod_mac: pod_mac(address).to_string(),
        mtu: node.nic.mtu,
        addresses: vec![PodAddress { address: address.into(), gateway: GATEWAY }],
        routes: vec![
            Route { dst: GATEWAY.into(), gw: None },
            Route { dst: ipnet::IpNet::V4(ipnet::Ipv4Net::default()), gw: Some(GATEWAY) },
        ],
    }
}
