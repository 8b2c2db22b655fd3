//! Keeping the node's links as they should be, at the start and behind everybody's back: nothing here is on a pod's path.

use std::collections::HashSet;

use dotfour_datapath::link::{LinkChange, LinkId};
use dotfour_datapath::{Batch, KernelError};
use ipnet::IpNet;
use rustix::io::Errno;

use super::pod::Wirer;
use crate::pool::HostLink;

impl Wirer {
    /// The indexes of all links of the node. For audits, not for a pod's path.
    pub fn link_indices(&mut self) -> Result<HashSet<u32>, KernelError> {
        Ok(self.node.links()?.into_iter().map(|link| link.index).collect())
    }

    /// Puts a live host link into a group. A link that is gone is fine.
    pub fn regroup(&mut self, link: &HostLink, group: u32) -> Result<(), KernelError> {
        let mut batch = Batch::new();
        let change = LinkChange { group: Some(group), ..LinkChange::default() };
        batch.change_link("put a host link into its group", LinkId::Index(link.index), &change);
        batch.tolerate(Errno::NODEV);
        self.node.run(batch)
    }

    /// Takes the multicast routes away that the kernel has given to host links. Nobody sends there, and at every link's change it
    /// walks all of the node's IPv6 routes: with a thousand of these, an ADD takes half as long again. Links that are gone, and
    /// those that have none, are fine.
    pub fn remove_multicast_routes(&mut self, links: impl IntoIterator<Item = u32>) -> Result<(), KernelError> {
        if !self.ipv6 {
            return Ok(());
        }
        let mut batch = Batch::new();
        for link in links {
            batch.delete_multicast_route("remove a host link's multicast route", link);
            batch.tolerate(Errno::SRCH);
        }
        self.node.run(batch)
    }

    /// Takes addresses off a link of the node. One that is not there is fine.
    pub fn remove_addresses(&mut self, link: u32, addresses: &[IpNet]) -> Result<(), KernelError> {
        let mut batch = Batch::new();
        for address in addresses {
            batch.delete_address("remove a pool address from the NIC", link, *address);
            batch.tolerate(Errno::ADDRNOTAVAIL);
        }
        self.node.run(batch)
    }
}
