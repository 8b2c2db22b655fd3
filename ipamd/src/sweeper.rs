//! The sweeper: what the node remembers of an address's connections is gone before the address is lent again.
//!
//! An entry of the connection table outlives its pod, and each packet of a sender that never pauses renews it: with NAT in
//! it (a host port, a service), the sender would reach nobody, or the address's next pod. The keeper sweeps what was just
//! released, looks every half second for two seconds whether what leads there has come back, so that such a sender finds its
//! way soon, and sweeps once more when the rest is over;
//! only what was swept then is lent ([`crate::pool`]). An ADD that finds nothing else sweeps by itself.
//!
//! The lock is held over a sweep and by nobody else: whoever waits for it would have to sweep too. A sweep that the kernel
//! refuses counts as one all the same, because a pool that lends nothing is worse than an old connection.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dotfour_datapath::Conntrack;
use dotfour_datapath::conntrack::{Place, Swept};
use tracing::{info, warn};

use crate::lease::Ledger;
use crate::lease::ledger::Ticket;
use crate::metrics::{Metrics, SweepResult};
use crate::pool::{Assignment, Moment, Wish};
use crate::verbs::now;

/// How often an ADD sweeps. What one sweep frees, other calls may take before it asks again, and somebody gets it each time.
const ATTEMPTS: u32 = 16;

/// The node's connections, as far as they are to be forgotten.
#[derive(Debug)]
pub struct Sweeper {
    /// `None` where the kernel has no such table.
    table: Mutex<Option<Conntrack>>,
    /// Whether it was said that there is nothing to sweep, or that it does not work.
    untracked_told: AtomicBool,
    failing: AtomicBool,
}

impl Sweeper {
    /// A sweeper for the calling thread's network namespace.
    ///
    /// # Errors
    /// No netlink socket can be had.
    pub fn open() -> io::Result<Self> {
        let table = Mutex::new(Conntrack::open()?);
        Ok(Sweeper { table, untracked_told: AtomicBool::new(false), failing: AtomicBool::new(false) })
    }

    /// Sweeps those of the resting addresses for which it is time. Blocks for as long as the kernel takes to walk its table.
    pub fn sweep(&self, ledger: &Ledger, metrics: &Metrics) {
        let mut table = self.lock();
        let begun = now();
        let due = ledger.pool().begin_due_sweep(begun);
        let wholly = due.wholly.into_iter().map(|address| (address, Place::Anywhere));
        let again = due.again.into_iter().map(|address| (address, Place::Target));
        self.sweep_these(&wholly.chain(again).collect::<Vec<_>>(), &mut table, begun, ledger, metrics);
        // So that counts are true without anybody's ADD.
        ledger.pool().thaw(begun);
    }

    /// [`Ledger::assign`], with a sweep where only that is missing.
    pub fn assign<'w>(&self, wish: impl Fn() -> Wish<'w>, ledger: &Ledger, metrics: &Metrics) -> (Assignment, Ticket) {
        let outcome = ledger.assign(wish(), now());
        if outcome.0 != Assignment::Unswept {
            return outcome;
        }
        let mut table = self.lock();
        for _ in 0..ATTEMPTS {
            let begun = now();
            // Another call may have swept meanwhile, and this one's address may be another's after a sweep.
            let outcome = ledger.assign(wish(), begun);
            if outcome.0 != Assignment::Unswept {
                return outcome;
            }
            let floor = ledger.pool().rest().floor;
            let rested = ledger.pool().begin_sweep(begun.saturating_sub(floor));
            let rested: Vec<_> = rested.into_iter().map(|address| (address, Place::Anywhere)).collect();
            self.sweep_these(&rested, &mut table, begun, ledger, metrics);
        }
        ledger.assign(wish(), now())
    }

    fn sweep_these(
        &self,
        addresses: &[(IpAddr, Place)],
        table: &mut Option<Conntrack>,
        begun: Moment,
        ledger: &Ledger,
        metrics: &Metrics,
    ) {
        if addresses.is_empty() {
            return;
        }
        metrics.swept(self.forget(table.as_mut(), addresses), addresses.len());
        let swept: Vec<IpAddr> = addresses.iter().map(|(address, _)| *address).collect();
        ledger.pool().end_sweep(&swept, begun);
    }

    fn forget(&self, table: Option<&mut Conntrack>, addresses: &[(IpAddr, Place)]) -> SweepResult {
        match table.map_or(Ok(Swept::NotTracked), |table| table.sweep(addresses)) {
            Ok(swept) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    info!("connections of released addresses are removed again");
                }
                if swept == Swept::NotTracked && !self.untracked_told.swap(true, Ordering::Relaxed) {
                    info!("the kernel tracks no connections, so there are none of released addresses to remove");
                }
                SweepResult::Ok
            }
            Err(e) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    warn!(
                        "connections of released addresses stay: {e}; a sender that never pauses may reach the wrong \
                         pod until its entry is gone (conntrack -D does it)"
                    );
                }
                SweepResult::Failed
            }
        }
    }

    /// A panic while it was locked would have ended the process, so poison says nothing.
    fn lock(&self) -> MutexGuard<'_, Option<Conntrack>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
