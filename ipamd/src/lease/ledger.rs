//! Pool and journal as one: every change of the pool is on record before it is answered.
//!
//! A change and its record are made under one short lock, so that the journal has the pool's own order. The write happens
//! outside it: of the calls that wait, the first takes all that is queued to the file, and the others find theirs written
//! (group commit).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use dotfour_protocol::AttachmentKey;
use tracing::error;

use super::journal::Journal;
use super::record::Record;
use crate::errors::with_source;
use crate::pool::{Adoption, Assignment, Covered, Lease, Moment, Pool, State, Wish};

/// Memory for queued records is kept for the next ones up to here, in bytes: enough for those of some ten calls.
const MOST_KEPT: usize = 4096;

/// The pool, with its journal.
#[derive(Debug)]
pub struct Ledger {
    inner: Mutex<Inner>,
    written: Condvar,
}

#[derive(Debug)]
struct Inner {
    pool: Pool,
    queue: Vec<u8>,
    batch: Arc<Batch>,
    /// Absent while some call writes.
    journal: Option<Journal>,
    /// Whether the next write is to be of the whole file, whatever the journal thinks of it.
    rewrite: bool,
    /// How many calls wait for it. With none there is nobody to wake, which is a system call.
    waiting: usize,
}

/// The records that go to the file together, and what came of it.
#[derive(Debug, Default)]
struct Batch {
    outcome: OnceLock<Result<(), NotRecorded>>,
}

/// A change of the pool that is not on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease cannot be recorded in stateDir")]
pub struct NotRecorded;

/// A change that was queued for the journal.
#[derive(Debug)]
#[must_use = "a change is not on record before it is committed"]
pub struct Ticket(Option<Arc<Batch>>);

impl Ledger {
    /// A ledger whose journal is written anew with the first commit.
    pub fn new(pool: Pool, journal: Journal) -> Self {
        let (queue, batch, journal) = (Vec::new(), Arc::default(), Some(journal));
        let inner = Inner { pool, queue, batch, journal, rewrite: false, waiting: 0 };
        Ledger { inner: Mutex::new(inner), written: Condvar::new() }
    }

    /// The pool, to look at, or to change what needs no record: links, views of the source, reservations. Never to be
    /// held over IO or a call into the kernel.
    pub fn pool(&self) -> PoolGuard<'_> {
        PoolGuard(self.lock())
    }

    /// [`Pool::assign`], on record.
    pub fn assign(&self, wish: Wish<'_>, now: Moment) -> (Assignment, Ticket) {
        let mut inner = self.lock();
        let (key, pod, started, delegated) = (Arc::clone(wish.key), wish.pod.clone(), wish.started, wish.delegated);
        let assignment = inner.pool.assign(wish, now);
        let ticket = match &assignment {
            Assignment::New(addresses) => {
                let addresses = addresses.iter().collect();
                inner.queue(&Record::Assigned { key, pod, addresses, started, delegated })
            }
            // The lease is this ADD's from now on.
            Assignment::Existing(lease) if lease.started == started => inner.queue(&assigned(&key, lease)),
            _ => Ticket(None),
        };
        (assignment, ticket)
    }

    /// [`Pool::cover`], on record.
    pub fn cover(&self, key: &Arc<AttachmentKey>, at: Moment, now: Moment) -> (Covered, Ticket) {
        let mut inner = self.lock();
        let covered = inner.pool.cover(key, at, now);
        let ticket = match covered {
            Covered::Unknown => inner.queue(&Record::Ended { key: Arc::clone(key), at }),
            Covered::Lease(_) | Covered::AddedSince => Ticket(None),
        };
        (covered, ticket)
    }

    /// [`Pool::release`], on record.
    pub fn release(&self, key: &Arc<AttachmentKey>, now: Moment) -> (Option<Lease>, Ticket) {
        let mut inner = self.lock();
        let lease = inner.pool.release(key, now);
        let ticket = match lease {
            Some(_) => inner.queue(&Record::Released { key: Arc::clone(key), since: now }),
            None => Ticket(None),
        };
        (lease, ticket)
    }

    /// Puts a lease back whose release could not be recorded, and records that it is there: another call may have written the
    /// whole file meanwhile, without it. Where this cannot be recorded either, the file is still from before. False if
    /// an address is another's by now: then the lease is over, whatever the file says.
    pub fn restore(&self, key: &Arc<AttachmentKey>, lease: &Lease, nic: u32) -> bool {
        let ticket = {
            let mut inner = self.lock();
            if let Adoption::Conflict(_) = inner.pool.adopt(key, lease.clone(), nic) {
                return false;
            }
            inner.queue(&assigned(key, lease))
        };
        let _ = self.commit(ticket);
        true
    }

    /// [`Pool::cancel`], on record.
    pub fn cancel(&self, key: &Arc<AttachmentKey>) -> Ticket {
        let mut inner = self.lock();
        let Some(lease) = inner.pool.cancel(key) else { return Ticket(None) };
        let mut ticket = inner.queue(&Record::Cancelled { key: Arc::clone(key) });
        for address in lease.addresses.iter() {
            if let Some(&State::Cooling { since, .. }) = inner.pool.state(address) {
                ticket = inner.queue(&Record::Cooling { address, since });
            }
        }
        ticket
    }

    /// Returns once a change is on record, or cannot be.
    ///
    /// # Errors
    /// The file cannot be written. The pool keeps the change; the caller decides what that means. The next commit tries to
    /// write the whole file anew.
    pub fn commit(&self, ticket: Ticket) -> Result<(), NotRecorded> {
        let Some(batch) = ticket.0 else { return Ok(()) };
        let mut inner = self.lock();
        loop {
            if let Some(outcome) = batch.outcome.get() {
                return *outcome;
            }
            inner = match inner.journal.take() {
                Some(journal) => self.write(inner, journal),
                None => {
                    inner.waiting += 1;
                    let mut inner = self.written.wait(inner).unwrap_or_else(PoisonError::into_inner);
                    inner.waiting -= 1;
                    inner
                }
            };
        }
    }

    /// Takes all that is queued to the file, without the lock.
    fn write<'l>(&'l self, mut inner: MutexGuard<'l, Inner>, mut journal: Journal) -> MutexGuard<'l, Inner> {
        let batch = std::mem::take(&mut inner.batch);
        let mut queued = std::mem::take(&mut inner.queue);
        // A snapshot has the effect of all that is queued.
        let rewrite = std::mem::take(&mut inner.rewrite) || journal.wants_rewrite();
        let snapshot = rewrite.then(|| snapshot(&inner.pool));
        drop(inner);
        let outcome = match &snapshot {
            Some(snapshot) => journal.rewrite(snapshot),
            None => journal.append(&queued),
        };
        if let Err(e) = &outcome {
            error!("{}", with_source(e));
        }
        // Only the writer sets it, and once.
        let _ = batch.outcome.set(outcome.map_err(|_| NotRecorded));
        let mut inner = self.lock();
        inner.journal = Some(journal);
        if inner.queue.capacity() == 0 && queued.capacity() <= MOST_KEPT {
            queued.clear();
            inner.queue = queued;
        }
        if inner.waiting > 0 {
            self.written.notify_all();
        }
        inner
    }

    /// A panic while it was locked would have ended the process, so poison says nothing.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the journal anew, with the pool as it is, or as it is later.
    ///
    /// # Errors
    /// As of [`Ledger::commit`].
    pub fn checkpoint(&self) -> Result<(), NotRecorded> {
        let ticket = {
            let mut inner = self.lock();
            inner.rewrite = true;
            Ticket(Some(Arc::clone(&inner.batch)))
        };
        self.commit(ticket)
    }
}

impl Inner {
    fn queue(&mut self, record: &Record) -> Ticket {
        record.append_to(&mut self.queue);
        Ticket(Some(Arc::clone(&self.batch)))
    }
}

/// The locked pool.
#[derive(Debug)]
pub struct PoolGuard<'l>(MutexGuard<'l, Inner>);

impl std::ops::Deref for PoolGuard<'_> {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.0.pool
    }
}

impl std::ops::DerefMut for PoolGuard<'_> {
    fn deref_mut(&mut self) -> &mut Pool {
        &mut self.0.pool
    }
}

/// The record of a lease.
fn assigned(key: &Arc<AttachmentKey>, lease: &Lease) -> Record {
    Record::Assigned {
        key: Arc::clone(key),
        pod: lease.pod.clone(),
        addresses: lease.addresses.iter().collect(),
        started: lease.started,
        delegated: lease.delegated,
    }
}

/// The records that lead to the pool as it is.
pub fn snapshot(pool: &Pool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (address, since) in pool.cooling() {
        Record::Cooling { address, since }.append_to(&mut bytes);
    }
    // Its use may end while nobody looks: it rests from the start on then, which is the latest moment there is.
    for address in pool.reserved() {
        Record::Cooling { address, since: Moment::MAX }.append_to(&mut bytes);
    }
    for (key, at) in pool.remembered_dels() {
        Record::Ended { key: Arc::clone(key), at }.append_to(&mut bytes);
    }
    for (key, lease) in pool.leases() {
        assigned(key, lease).append_to(&mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests;
