//! The bare kernel work of a pod, done by the caller itself: no process, no daemon, no record, no waiting in line.
//!
//! It is the daemon's own wiring, so that floor and contestant ask the kernel for the same: a pair with its tag, route and
//! neighbour on the node, and address, routes and neighbour in the pod. DEL is the route and the link condemned; the link itself is
//! deleted behind the caller's back, and outside the timing; so is the multicast route that it got.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use dotfour_datapath::link::LinkId;
use dotfour_datapath::{Batch, Netns, Socket};
use dotfour_ipamd::metrics::Phases;
use dotfour_ipamd::nic::Nic;
use dotfour_ipamd::pool::{HostLink, PodAddresses};
use dotfour_ipamd::wiring::names::{CONDEMNED_GROUPS, POD_GROUP, keyed_host_link};
use dotfour_ipamd::wiring::pod::LinkIndices;
use dotfour_ipamd::wiring::tag::Tag;
use dotfour_ipamd::wiring::{PodPlan, WireError, Wirer};
use dotfour_protocol::AttachmentKey;
use dotfour_rig::Pod;

use crate::cpu;
use crate::error::RaceError;
use crate::samples::Sample;

/// What all callers of the floor's node share: no two pods get one address or one index.
#[derive(Debug)]
pub(crate) struct Shared {
    next: AtomicU32,
    indices: Arc<LinkIndices>,
}

impl Default for Shared {
    fn default() -> Self {
        Shared { next: AtomicU32::new(1), indices: Arc::new(LinkIndices::starting_at(0)) }
    }
}

/// Does the work, on a thread inside the node's namespace.
#[derive(Debug)]
pub(crate) struct Kernel<'s> {
    shared: &'s Shared,
    wirer: Wirer,
    // Deletes links, which the wirer leaves to others.
    undertaker: Socket,
    nic: Nic,
}

/// A pod that has been wired.
#[derive(Debug)]
pub(crate) struct WiredPod {
    addresses: PodAddresses,
    link: HostLink,
}

impl<'s> Kernel<'s> {
    /// For the calling thread, which must be in the node's namespace and stay there.
    pub(crate) fn open(shared: &'s Shared, node_address: Ipv4Addr) -> Result<Self, RaceError> {
        let wirer = Wirer::new(Arc::clone(&shared.indices)).map_err(RaceError::system("open a netlink socket"))?;
        let undertaker = Socket::open().map_err(RaceError::system("open a netlink socket"))?;
        // Its index is of no use to a pod's wiring.
        let nic = Nic { index: 0, name: "eth0".into(), mtu: 1500, address: node_address, address_v6: None };
        Ok(Kernel { shared, wirer, undertaker, nic })
    }

    /// Wires a pod.
    pub(crate) fn wire(&mut self, pod: &Pod) -> Result<(WiredPod, Sample), RaceError> {
        let netns = Netns::open(pod.netns_path()).map_err(RaceError::system("open a sandbox"))?;
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let addresses = IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 88, 0, 0).to_bits() + number)).into();
        let key = AttachmentKey {
            network: "floor".into(),
            container_id: pod.container_id.clone(),
            ifname: pod.ifname.clone(),
        };
        let host_link = keyed_host_link(&key);
        let plan = PodPlan { tag: Tag { key: Arc::new(key), addresses }, host_link, nic: &self.nic, group: POD_GROUP };
        let (wired, sample) = timed(|| self.wirer.wire(&plan, netns.as_fd(), &Phases::accepted(), |_, _| {}));
        Ok((WiredPod { addresses, link: wired?.link }, sample))
    }

    /// Takes the multicast route away that the kernel gives a new link, as the daemon does once it has answered: with a thousand
    /// of them an ADD takes longer. Belongs to no call's time.
    pub(crate) fn tidy(&mut self, pod: &WiredPod) -> Result<(), RaceError> {
        Ok(self.wirer.remove_multicast_routes([pod.link.index]).map_err(WireError::from)?)
    }

    /// Takes a pod off the network.
    pub(crate) fn unwire(&mut self, pod: &WiredPod) -> Result<Sample, RaceError> {
        let (outcome, sample) =
            timed(|| self.wirer.unwire(pod.addresses, &pod.link, *CONDEMNED_GROUPS.start()).map_err(WireError::from));
        outcome?;
        Ok(sample)
    }

    /// Deletes the link of a pod that was taken off the network. Belongs to no call's time.
    pub(crate) fn bury(&mut self, pod: &WiredPod) -> Result<(), RaceError> {
        let mut batch = Batch::new();
        batch.delete_link("delete a link", LinkId::Index(pod.link.index));
        Ok(self.undertaker.run(batch).map_err(WireError::from)?)
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Sample) {
    let (cpu, started) = (cpu::of_this_thread(), Instant::now());
    let outcome = work();
    let took = started.elapsed();
    (outcome, Sample { took, cpu: cpu::of_this_thread().saturating_sub(cpu) })
}
