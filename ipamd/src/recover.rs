//! What the kernel remembers of the pods that were wired before this daemon started.
//!
//! The record is the alias of each pod's host link. A veth's host end exists exactly as long as its pod's namespace, so
//! a link that is there is a pod that lives, and a link that is gone is a lease that is over.

use std::collections::BTreeSet;

use dotfour_datapath::link::Link;
use dotfour_protocol::AttachmentKey;

use crate::pool::{Adoption, HostLink, Lease, Pool};
use crate::wiring::names::{CONDEMNED_GROUPS, LINK_PREFIX};
use crate::wiring::tag::{self, Tag};

/// What links say about the past.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Pods that live.
    pub leases: Vec<(AttachmentKey, Lease)>,
    /// Groups with links that were condemned and not deleted yet.
    pub condemned_groups: BTreeSet<u32>,
    /// Links that look like a pod's and are not readable as ours, by name.
    pub foreign: Vec<String>,
}

/// Reads the node's links.
pub fn recover(links: &[Link]) -> Recovered {
    let mut recovered = Recovered::default();
    for link in links {
        let alias = link.alias.as_deref().unwrap_or_default();
        if CONDEMNED_GROUPS.contains(&link.group) && tag::is_ours(alias) {
            recovered.condemned_groups.insert(link.group);
        } else if let Ok(Tag { key, address }) = alias.parse() {
            let host_link = HostLink { index: link.index, name: link.name.clone() };
            recovered.leases.push((key, Lease { pod: None, address, link: Some(host_link) }));
        } else if tag::is_ours(alias) || link.name.starts_with(LINK_PREFIX) {
            recovered.foreign.push(link.name.clone());
        }
    }
    recovered
}

/// Gives the recovered leases back to the pool. Returns one sentence for each thing that is not as it should be; none
/// of them is a reason not to start.
pub fn adopt(pool: &mut Pool, recovered: &[(AttachmentKey, Lease)]) -> Vec<String> {
    let mut findings = Vec::new();
    for (key, lease) in recovered {
        let address = lease.address;
        match pool.adopt(key.clone(), lease.clone()) {
            Adoption::Adopted => {}
            Adoption::AdoptedUnknown => {
                findings.push(format!("{key} uses {address}, which the source does not report; kept until its DEL"));
            }
            Adoption::Conflict(owner) => {
                findings.push(format!("{key} claims {address}, which is {owner}'s; its link is left alone"));
            }
            Adoption::SecondAddress(held) => {
                pool.quarantine(address, format!("on a second link of {key}"));
                findings.push(format!("{key} has a second link with {address} beside {held}; quarantined"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pool::{PoolAddress, State};

    fn link(index: u32, name: &str, alias: &str, group: u32) -> Link {
        Link { index, name: name.into(), alias: Some(alias.into()), group, ..Link::default() }
    }

    fn pool() -> Pool {
        let mut pool = Pool::new(Duration::ZERO);
        let address =
            |text: &str| PoolAddress { address: text.parse().unwrap(), subnet: "10.240.0.0/16".parse().unwrap() };
        pool.apply_view(&[address("10.240.0.5"), address("10.240.0.6")]);
        pool
    }

    #[test]
    fn each_kind_of_link_is_told_apart() {
        let recovered = recover(&[
            link(2, "eth0", "", 0),
            link(70, "azv1", "dotfour/1 eth0 10.240.0.5 azure c1", 0),
            link(71, "azv2", "dotfour/1 eth0 10.240.0.6 azure c2", *CONDEMNED_GROUPS.start()),
            link(72, "azv3", "", 0),
            link(73, "azv4", "dotfour/9 of the future", 0),
            link(74, "br0", "somebody's", *CONDEMNED_GROUPS.start()),
        ]);
        assert_eq!(recovered.leases.len(), 1);
        assert_eq!(recovered.leases[0].0.container_id, "c1");
        assert_eq!(recovered.leases[0].1.link.as_ref().unwrap().index, 70);
        assert_eq!(recovered.condemned_groups, [*CONDEMNED_GROUPS.start()].into());
        assert_eq!(recovered.foreign, ["azv3", "azv4"]);
    }

    #[test]
    fn two_links_with_one_address_keep_it_from_a_third_and_are_reported() {
        let mut pool = pool();
        let recovered = recover(&[
            link(70, "azv1", "dotfour/1 eth0 10.240.0.5 azure c1", 0),
            link(71, "azv2", "dotfour/1 eth0 10.240.0.5 azure c2", 0),
            link(72, "azv3", "dotfour/1 eth0 10.240.0.6 azure c1", 0),
            link(73, "azv4", "dotfour/1 eth0 10.240.0.99 azure c3", 0),
        ]);
        let findings = adopt(&mut pool, &recovered.leases);
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert!(matches!(pool.state("10.240.0.6".parse().unwrap()), Some(State::Quarantined { .. })));
        assert_eq!(pool.counts().assigned, 2);
        assert_eq!(pool.counts().free, 0);
    }
}
