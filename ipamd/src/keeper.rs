//! The keeper: ends what ended without telling.
//!
//! One thread that works off what others only notice: links that vanished with their pod's namespace, DELs in the spool,
//! addresses to take off the NIC, connections of addresses that rest. It believes links and nothing else: a link that exists is a pod that
//! lives. A delegated lease never has one, and is none of its business before there is a DEL for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dotfour_protocol::AttachmentKey;
use ipnet::IpNet;
use rustix::time::ClockId;
use tracing::{error, info, warn};

use crate::pool::Lease;
use crate::spool::Spool;
use crate::verbs::{Node, reading};
use crate::wiring::Wirer;
use crate::wiring::pod::LinkIndices;

/// How often the spool is looked at.
const SPOOL_INTERVAL: Duration = Duration::from_secs(1);

/// How often all leases are compared with all links, in case an event was lost.
const AUDIT_INTERVAL: Duration = Duration::from_secs(30);

/// How often it looks whether addresses rest, whose connections are to be swept. Nobody tells it of a DEL: that would be a
/// system call in each.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// How many times as long as a processor was busy with a sweep there is none: what rests must not cost more than a fiftieth of one.
const SWEEP_SHARE: u32 = 50;

/// What the keeper is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Notice {
    /// The kernel deleted the link with this index.
    LinkGone(u32),
    /// Events were lost: compare everything.
    EventsLost,
    /// Pool addresses on the NIC are to be removed.
    Reclaim(Vec<IpNet>),
    /// The daemon ends.
    Stop,
}

/// Starts the keeper's thread, which ends with [`Notice::Stop`] or with the last sender.
pub fn start(
    node: Arc<Node>,
    indices: &Arc<LinkIndices>,
    spool: PathBuf,
    notices: Receiver<Notice>,
) -> std::io::Result<JoinHandle<()>> {
    let spool = Spool::open(&spool)?;
    let wirer = Wirer::new(Arc::clone(indices))?;
    let mut keeper = Keeper { node, wirer, spool };
    // Before the first caller is served.
    keeper.spool.apply(&keeper.node, &mut keeper.wirer);
    thread::Builder::new().name("keeper".into()).spawn(move || keeper.work(&notices))
}

struct Keeper {
    node: Arc<Node>,
    wirer: Wirer,
    spool: Spool,
}

impl Keeper {
    fn work(&mut self, notices: &Receiver<Notice>) {
        let mut next_spool = Instant::now() + SPOOL_INTERVAL;
        let mut next_audit = Instant::now() + AUDIT_INTERVAL;
        let mut next_sweep = Instant::now();
        loop {
            let next = next_spool.min(next_audit).min(next_sweep);
            let patience = next.saturating_duration_since(Instant::now());
            match notices.recv_timeout(patience) {
                Ok(Notice::LinkGone(index)) => self.collect_link(index),
                Ok(Notice::EventsLost) => self.audit(),
                Ok(Notice::Reclaim(addresses)) => self.reclaim(&addresses),
                Ok(Notice::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if now >= next_spool {
                self.spool.apply(&self.node, &mut self.wirer);
                next_spool = now + SPOOL_INTERVAL;
            }
            if now >= next_audit {
                self.audit();
                next_audit = now + AUDIT_INTERVAL;
            }
            if now >= next_sweep {
                next_sweep = now + self.sweep();
            }
        }
    }

    /// Sweeps what rests. Returns how long there need not be another.
    fn sweep(&self) -> Duration {
        if self.node.ledger.pool().counts().cooling == 0 {
            return SWEEP_INTERVAL;
        }
        let begun = reading(ClockId::ThreadCPUTime);
        self.node.sweeper.sweep(&self.node.ledger, &self.node.metrics);
        let took = reading(ClockId::ThreadCPUTime).saturating_sub(begun);
        SWEEP_INTERVAL.max(took.saturating_mul(SWEEP_SHARE))
    }

    fn collect_link(&mut self, index: u32) {
        let of_it = |lease: &Lease| lease.link_index() == Some(index);
        let key = self.node.ledger.pool().leases().find_map(|(key, lease)| of_it(lease).then(|| Arc::clone(key)));
        if let Some(key) = key {
            self.collect(&key, index);
        }
    }

    /// Compares all leases with all links.
    fn audit(&mut self) {
        // The leases first: one that is wired in between is then not among them.
        let wired = |(key, lease): (&Arc<AttachmentKey>, &Lease)| Some((Arc::clone(key), lease.link_index()?));
        let leases: Vec<(Arc<AttachmentKey>, u32)> = self.node.ledger.pool().leases().filter_map(wired).collect();
        let present = match self.wirer.link_indices() {
            Ok(present) => present,
            Err(e) => {
                warn!("leases are not compared with links this time: {e}");
                return;
            }
        };
        for (key, index) in leases {
            if !present.contains(&index) {
                self.collect(&key, index);
            }
        }
    }

    fn collect(&mut self, key: &Arc<AttachmentKey>, index: u32) {
        if let Err(e) = self.node.collect(key, index, &mut self.wirer) {
            error!(%key, "a lease whose link vanished stays: {e}");
        }
    }

    fn reclaim(&mut self, addresses: &[IpNet]) {
        match self.wirer.remove_addresses(self.node.nic.index, addresses) {
            Ok(()) => info!("removed {} pool addresses from {}", addresses.len(), self.node.nic.name),
            Err(e) => error!("pool addresses stay on {}: {e}", self.node.nic.name),
        }
    }
}
