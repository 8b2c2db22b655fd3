//! What kernel and journal remember of the pods that were wired before this daemon started. Pure.
//!
//! Links decide who has which address: a veth's host end exists exactly as long as its pod's namespace, so a link that is
//! there is a pod that lives, and a link that is gone is a lease that is over. The journal adds what links cannot say, and
//! decides alone about delegated leases: there never was a link of theirs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use dotfour_datapath::link::Link;
use dotfour_protocol::AttachmentKey;

use super::journal::Remembered;
use super::record::Record;
use crate::pool::{Adoption, HostLink, Lease, Moment, PodAddresses, Pool};
use crate::wiring::names::{CONDEMNED_GROUPS, LINK_PREFIX};
use crate::wiring::tag::{self, Tag};

/// What links say about the past.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Pods that live.
    pub pods: Vec<(Tag, HostLink)>,
    /// Groups with links that were condemned and not deleted yet.
    pub condemned_groups: BTreeSet<u32>,
    /// Links that look like a pod's and are not readable as ours, by name.
    pub foreign: Vec<String>,
}

/// Reads the node's links.
pub fn find(links: &[Link]) -> Found {
    let mut found = Found::default();
    for link in links {
        let alias = link.alias.as_deref().unwrap_or_default();
        if CONDEMNED_GROUPS.contains(&link.group) && tag::is_ours(alias) {
            found.condemned_groups.insert(link.group);
        } else if let Ok(tag) = alias.parse() {
            found.pods.push((tag, HostLink { index: link.index, name: link.name.clone() }));
        } else if tag::is_ours(alias) || link.name.starts_with(LINK_PREFIX) {
            found.foreign.push(link.name.clone());
        }
    }
    found
}

/// A journal's records, played through to their end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Who held what. No link is known.
    pub leases: HashMap<Arc<AttachmentKey>, Lease>,
    /// Since when an address rests.
    pub cooling: HashMap<IpAddr, Moment>,
    /// DELs that came before their ADD.
    pub ended: HashMap<Arc<AttachmentKey>, Moment>,
}

impl Replayed {
    fn remember(&mut self, key: &Arc<AttachmentKey>, at: Moment) {
        let latest = self.ended.entry(Arc::clone(key)).or_default();
        *latest = (*latest).max(at);
    }
}

/// Plays a journal's records through.
pub fn replay(records: &[Record]) -> Replayed {
    let mut state = Replayed::default();
    for record in records {
        match record {
            Record::Header { .. } => {}
            Record::Assigned { key, pod, addresses, started, delegated } => {
                let addresses: PodAddresses = addresses.iter().copied().collect();
                for address in addresses.iter() {
                    state.cooling.remove(&address);
                }
                state.ended.remove(key);
                let (pod, started, delegated) = (pod.clone(), *started, *delegated);
                state.leases.insert(Arc::clone(key), Lease { pod, addresses, link: None, started, delegated });
            }
            Record::Released { key, since } => {
                if let Some(held) = state.leases.remove(key) {
                    state.cooling.extend(held.addresses.iter().map(|address| (address, *since)));
                }
                // The DEL behind it came before.
                state.remember(key, *since);
            }
            Record::Cancelled { key } => {
                state.leases.remove(key);
            }
            Record::Cooling { address, since } => {
                state.cooling.insert(*address, *since);
            }
            Record::Ended { key, at } => state.remember(key, *at),
        }
    }
    state
}

/// What [`restore`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// How many pods have their lease again, whoever has wired them.
    pub pods: usize,
    /// Leases of the journal whose pod is gone; their addresses cool down from now.
    pub collected: Vec<Arc<AttachmentKey>>,
    /// One sentence for each thing that is not as it should be; none is a reason not to start.
    pub findings: Vec<String>,
}

/// Gives the pool back what it knew. The pool must hold the source's view and nothing else.
pub fn restore(pool: &mut Pool, found: &Found, remembered: &Remembered, nic: u32, now: Moment) -> Restored {
    let mut restored = Restored::default();
    let mut journal = replay(&remembered.records);
    for (tag, link) in &found.pods {
        let key = Arc::clone(&tag.key);
        // What the journal says of the key counts only if it means the same addresses.
        let (pod, started) = match journal.leases.remove(&key) {
            Some(lease) if lease.addresses == tag.addresses => (lease.pod, lease.started),
            _ => (None, Moment::ZERO),
        };
        let lease = Lease { pod, addresses: tag.addresses, link: Some(link.clone()), started, delegated: false };
        adopt(pool, &key, lease, nic, &mut restored);
    }
    // In the order of their keys, so that a journal always comes to the same.
    let (delegated, ended): (BTreeMap<_, _>, BTreeMap<_, _>) =
        journal.leases.into_iter().partition(|(_, lease)| lease.delegated);
    for (key, lease) in delegated {
        adopt(pool, &key, lease, nic, &mut restored);
    }

    // In the order of the moments, which is the order in which they are lent again.
    let mut cooling: BTreeSet<(Moment, IpAddr)> =
        journal.cooling.iter().map(|(address, since)| (*since, *address)).collect();
    for (key, lease) in ended {
        cooling.extend(lease.addresses.iter().map(|address| (now, address)));
        restored.collected.push(key);
    }
    for (since, address) in cooling {
        // A moment in the future is not of this boot's clock.
        pool.cool_again(address, nic, since.min(now));
    }
    // In their order too, in which they are forgotten.
    let ended: BTreeSet<_> = journal.ended.iter().map(|(key, at)| ((*at).min(now), key)).collect();
    for (at, key) in ended {
        pool.remember_del(key, at, now);
    }
    // Something was recorded that is lost. Any address may have been released a moment ago, so all rest.
    if remembered.incomplete && pool.counts().assigned > 0 {
        let free: Vec<IpAddr> = pool.free().collect();
        free.into_iter().for_each(|address| pool.cool(address, now));
        restored.findings.push("the journal is incomplete; every address that is not in use cools down first".into());
    }
    restored
}

fn adopt(pool: &mut Pool, key: &Arc<AttachmentKey>, lease: Lease, nic: u32, restored: &mut Restored) {
    let (addresses, delegated) = (lease.addresses, lease.delegated);
    let listed = || addresses.iter().map(|address| address.to_string()).collect::<Vec<_>>().join(" and ");
    match pool.adopt(key, lease, nic) {
        Adoption::Adopted => restored.pods += 1,
        Adoption::AdoptedUnknown => {
            restored.pods += 1;
            restored
                .findings
                .push(format!("{key} uses {}, which the source does not report; kept until its DEL", listed()));
        }
        Adoption::Conflict(owner) => {
            // Its other address, if it has one, is in use as well; the owner's is not touched by this.
            for address in addresses.iter() {
                pool.quarantine(address, format!("claimed by {key}, which has no lease"));
            }
            let whose = if delegated { "its pod" } else { "its link" };
            restored.findings.push(format!("{key} claims {}, which is {owner}'s; {whose} is left alone", listed()));
        }
        Adoption::SecondLease(_) => {
            for address in addresses.iter() {
                pool.quarantine(address, format!("on a second link of {key}"));
            }
            restored.findings.push(format!("{key} has a second link with {}; quarantined", listed()));
        }
    }
}

#[cfg(test)]
mod tests;
