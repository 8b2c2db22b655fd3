//! The comparison. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dotfour_datapath::link::Link;
use dotfour_ipamd::wiring::names::pod_mac;
use dotfour_ipamd::wiring::tag::Tag;
use dotfour_protocol::{AttachmentKey, AttachmentStatus, PoolCounts};

use super::{Belief, Views};

impl Views {
    /// Every disagreement, a sentence each.
    pub fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        self.uniqueness(&mut findings);
        self.leases_and_links(&mut findings);
        self.wiring(&mut findings);
        self.runtime(&mut findings);
        self.fabric(&mut findings);
        findings.extend(counts(&self.daemon.pool, self.leased().count(), self.fabric.len()));
        findings
    }

    /// Every trace of a pod, a sentence each: for a node that should have none.
    pub fn traces(&self) -> Vec<String> {
        let mut traces = self.findings();
        let PoolCounts { total, free, cooling, .. } = self.daemon.pool;
        if free + cooling != total {
            traces.push(format!("of {total} addresses only {free} are free and {cooling} cooling"));
        }
        traces.extend(self.daemon.attachments.iter().map(|lease| format!("there is a lease, {}", words(&lease.key))));
        let kernel = &self.kernel;
        let links = kernel.pods.iter().map(|(link, _)| link).chain(&kernel.condemned).chain(&kernel.unreadable);
        traces.extend(links.map(|link| format!("there is a link, {}", link.name)));
        traces.extend(kernel.routes.iter().map(|route| format!("there is a route to {}", route.destination)));
        traces
    }

    fn leased(&self) -> impl Iterator<Item = (IpAddr, &AttachmentStatus)> {
        self.daemon.attachments.iter().flat_map(|lease| lease.addresses.iter().map(move |address| (*address, lease)))
    }

    fn tagged(&self) -> impl Iterator<Item = (IpAddr, &Link)> {
        self.kernel.pods.iter().flat_map(|(link, tag)| tag.addresses.iter().map(move |address| (address, link)))
    }

    /// No address twice, in any view.
    fn uniqueness(&self, findings: &mut Vec<String>) {
        let leases = self.leased().map(|(address, lease)| (address, words(&lease.key)));
        findings.extend(twice(leases, "is leased twice, to"));
        let links = self.tagged().map(|(address, link)| (address, link.name.clone()));
        findings.extend(twice(links, "is on two links,"));
        let pods = self.runtime.iter().flat_map(|(id, (_, look))| look.addresses.iter().map(|a| (*a, short(id))));
        findings.extend(twice(pods, "is inside two pods,"));
        let believed = self.runtime.iter().flat_map(|(id, (belief, _))| {
            let addresses = if let Belief::Up(addresses) = belief { addresses.as_slice() } else { &[] };
            addresses.iter().map(|address| (*address, short(id)))
        });
        findings.extend(twice(believed, "was given to two pods,"));
    }

    /// A lease has its link, unless another plugin wires its pod, and a live link its lease.
    fn leases_and_links(&self, findings: &mut Vec<String>) {
        let mut links: BTreeMap<&AttachmentKey, Vec<(&Link, &Tag)>> = BTreeMap::new();
        for (link, tag) in &self.kernel.pods {
            links.entry(&tag.key).or_default().push((link, tag));
        }
        for lease in &self.daemon.attachments {
            let who = words(&lease.key);
            match links.remove(&lease.key).as_deref() {
                None if lease.delegated => {}
                Some([(link, _), ..]) if lease.delegated => {
                    findings.push(format!("{who} is for another plugin to wire, and has link {}", link.name));
                }
                None => findings.push(format!("{who} has a lease of {} and no link", list(&lease.addresses))),
                Some([(link, tag)]) => {
                    if !tag.addresses.iter().eq(lease.addresses.iter().copied()) {
                        let said: Vec<IpAddr> = tag.addresses.iter().collect();
                        let (leased, said) = (list(&lease.addresses), list(&said));
                        findings.push(format!("{who} has a lease of {leased}, and its link {} says {said}", link.name));
                    }
                    if link.name != lease.host_ifname {
                        let (says, has) = (&lease.host_ifname, &link.name);
                        findings.push(format!("the daemon calls the link of {who} {says}, the kernel {has}"));
                    }
                }
                Some(several) => {
                    let names = several.iter().map(|(link, _)| link.name.clone()).collect();
                    findings.push(format!("{who} has several links, {}", joined(names)));
                }
            }
        }
        for (link, tag) in links.into_values().flatten() {
            findings.push(format!("link {} of {} has no lease", link.name, words(&tag.key)));
        }
    }

    /// A live link is up, with the route and the neighbour of its address; nothing else has either.
    fn wiring(&self, findings: &mut Vec<String>) {
        let kernel = &self.kernel;
        let mut stray: BTreeSet<usize> = (0..kernel.routes.len()).collect();
        for (link, tag) in &kernel.pods {
            if !link.up {
                findings.push(format!("link {} of {} is down", link.name, words(&tag.key)));
            }
            let mac = pod_mac(tag.addresses);
            for address in tag.addresses.iter() {
                let wanted =
                    |route: &&super::kernel::HostRoute| route.destination == address.into() && route.link == link.index;
                match kernel.routes.iter().position(|route| wanted(&route)) {
                    Some(place) => drop(stray.remove(&place)),
                    None => findings.push(format!("{address} has no host route to its link {}", link.name)),
                }
                let neighbour = kernel.neighbours.iter().find(|n| n.link == link.index && n.address == address);
                if !neighbour.is_some_and(|n| n.permanent && n.mac == Some(mac)) {
                    findings.push(format!("{address} has no permanent neighbour entry with {mac} on {}", link.name));
                }
            }
        }
        for route in stray.into_iter().filter_map(|place| kernel.routes.get(place)) {
            findings.push(format!("the host route to {} leads to no live link of it", route.destination));
        }
        for link in &kernel.unreadable {
            findings.push(format!("link {} looks like a pod's and has no alias that can be read", link.name));
        }
    }

    /// A pod that is up is so everywhere, with the same address; and nobody but the runtime's pods is.
    fn runtime(&self, findings: &mut Vec<String>) {
        for (id, (belief, look)) in &self.runtime {
            let Belief::Up(addresses) = belief else { continue };
            let (who, given) = (short(id), list(addresses));
            let lease = self.daemon.attachments.iter().find(|lease| lease.key.container_id == *id);
            match lease {
                None => findings.push(format!("pod {who} was given {given}, and the daemon has no lease for it")),
                Some(lease) if lease.addresses != *addresses => {
                    findings.push(format!("pod {who} was given {given}, and its lease is {}", list(&lease.addresses)));
                }
                Some(_) => {}
            }
            let of_pod = self.kernel.pods.iter().filter(|(_, tag)| tag.key.container_id == *id);
            let ends: Vec<&Link> = of_pod.map(|(link, _)| link).collect();
            let delegated = lease.is_some_and(|lease| lease.delegated);
            match (&ends[..], &look.link) {
                ([], Some(own)) if delegated && own.up => {}
                ([], None) if delegated => findings.push(format!("pod {who} was given {given}, and has no interface")),
                ([], _) => findings.push(format!("pod {who} was given {given}, and has no link on the node")),
                (_, None) => findings.push(format!("pod {who} was given {given}, and has no interface")),
                (_, Some(own)) if ends.iter().all(|end| end.index != own.index) => {
                    let names = joined(ends.iter().map(|end| end.name.clone()).collect());
                    findings.push(format!("pod {who}'s interface is not the other end of {names}"));
                }
                (_, Some(own)) if !own.up => findings.push(format!("pod {who}'s interface is down")),
                _ => {}
            }
            if look.link.is_some() && look.addresses != *addresses {
                findings.push(format!("pod {who} was given {given}, and has {} inside", list(&look.addresses)));
            }
        }
        let known = |key: &AttachmentKey| self.runtime.contains_key(&key.container_id);
        for lease in self.daemon.attachments.iter().filter(|lease| !known(&lease.key)) {
            findings.push(format!("{} holds {}, and no runtime knows it", words(&lease.key), list(&lease.addresses)));
        }
        for (link, tag) in self.kernel.pods.iter().filter(|(_, tag)| !known(&tag.key)) {
            findings.push(format!("link {} is of {}, which no runtime knows", link.name, words(&tag.key)));
        }
    }

    /// Nothing uses an address that the NIC does not have.
    fn fabric(&self, findings: &mut Vec<String>) {
        let leased = self.leased().map(|(address, lease)| (address, format!("leased to {}", words(&lease.key))));
        let tagged = self.tagged().map(|(address, link)| (address, format!("on link {}", link.name)));
        let inside = self.runtime.iter().flat_map(|(id, (_, look))| {
            look.addresses.iter().map(|address| (*address, format!("inside pod {}", short(id))))
        });
        for (address, place) in leased.chain(tagged).chain(inside) {
            if !self.fabric.contains(&address) {
                findings.push(format!("{address} is {place}, and is no secondary address of the NIC"));
            }
        }
    }
}

/// The counts of the pool add up, and are those of the leases and of the NIC.
fn counts(pool: &PoolCounts, leased: usize, on_nic: usize) -> Vec<String> {
    let PoolCounts { total, free, assigned, cooling, reserved, releasing, quarantined } = *pool;
    let mut findings = Vec::new();
    let sum = free + assigned + cooling + reserved + releasing + quarantined;
    if sum != total {
        findings.push(format!("the pool's states add up to {sum}, and its total is {total}"));
    }
    if assigned != leased {
        findings.push(format!("the pool counts {assigned} assigned addresses, and its leases hold {leased}"));
    }
    if total != on_nic {
        findings.push(format!("the pool has {total} addresses, and the NIC {on_nic} secondary ones"));
    }
    let withheld = reserved + releasing + quarantined;
    if withheld != 0 {
        findings.push(format!("{withheld} addresses are reserved, releasing or quarantined, without a reason"));
    }
    findings
}

/// A sentence for each address that has several owners.
fn twice(owners: impl Iterator<Item = (IpAddr, String)>, what: &str) -> Vec<String> {
    let mut by_address: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for (address, owner) in owners {
        by_address.entry(address).or_default().push(owner);
    }
    let several = by_address.into_iter().filter(|(_, owners)| owners.len() > 1);
    several.map(|(address, owners)| format!("{address} {what} {}", joined(owners))).collect()
}

fn joined(mut names: Vec<String>) -> String {
    names.sort();
    names.join(" and ")
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(",") }
}

/// Whose attachment it is. A container id is told from others by less than its 64 digits.
fn words(key: &AttachmentKey) -> String {
    format!("{}/{}/{}", key.network, short(&key.container_id), key.ifname)
}

/// The first digits of a container id.
pub fn short(id: &str) -> String {
    id.get(..12).unwrap_or(id).to_owned()
}
