//! The pool: which address is in which state, and whose it is.
//!
//! Pure: no IO, no clock. Callers pass `now`, the time since boot on the monotonic clock, so that a cool-down means the
//! same before and after a restart of the daemon, whatever the wall clock does. Look-ups by key and by address and every
//! change of state take constant time, however many addresses there are; only applying a source's view walks them all.
//!
//! Invariants, checked by [`Pool::check`] in tests: the counts of the states add up to the total; an address is in the
//! queue of its state and in no other; an assigned address belongs to exactly one lease, which names it back.

mod eligible;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use dotfour_protocol::{AttachmentKey, PodName, PoolCounts};

pub use eligible::{Exclusion, ExclusionReason, PoolAddress, eligible};
use queue::{Queue, Slots};

/// Time since boot, on the monotonic clock.
pub type Moment = Duration;

/// Where one address stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nobody's, and may be assigned.
    Free,
    /// A pod's.
    Assigned(AttachmentKey),
    /// Released, and not to be assigned before this moment, so that caches in the network forget the pod before.
    Cooling {
        /// When it is free again.
        until: Moment,
    },
    /// Kept out of use, because somebody else uses it.
    Reserved {
        /// Who or what does.
        reason: String,
    },
    /// On its way back to Azure.
    Releasing,
    /// Found in a state that nobody can explain; never assigned.
    Quarantined {
        /// What was found.
        reason: String,
    },
}

/// What a pod holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The pod's name, where it is known.
    pub pod: Option<PodName>,
    /// The pod's address.
    pub address: IpAddr,
    /// The pod's link on the node, once it is wired.
    pub link: Option<HostLink>,
}

/// A pod's link on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLink {
    /// Interface index. The pod's end has the same one.
    pub index: u32,
    /// Interface name.
    pub name: String,
}

/// What came of [`Pool::assign`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assignment {
    /// The key holds this address from now on.
    New(IpAddr),
    /// The key held a lease already; nothing changed.
    Existing(Lease),
    /// No address is free.
    Exhausted(PoolCounts),
}

/// What came of [`Pool::adopt`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoption {
    /// The lease is in the pool again.
    Adopted,
    /// Adopted, although no source reports the address; it leaves the pool when it is released.
    AdoptedUnknown,
    /// The address belongs to this other key already.
    Conflict(AttachmentKey),
    /// The key holds this other address already.
    SecondAddress(IpAddr),
}

/// What applying a source's view changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewChange {
    /// Addresses that entered the pool.
    pub added: Vec<IpAddr>,
    /// Addresses that left it.
    pub removed: Vec<IpAddr>,
    /// Addresses that no source reports any more, but a pod still uses.
    pub withdrawn_in_use: Vec<IpAddr>,
}

#[derive(Debug)]
struct Entry {
    address: IpAddr,
    state: State,
    /// How many views in a row did not have it.
    missed_views: u8,
}

/// After how many views without it a free address leaves the pool. One odd answer proves nothing.
const VIEWS_UNTIL_REMOVAL: u8 = 2;

/// The pool of one NIC's pod addresses.
#[derive(Debug)]
pub struct Pool {
    cooldown: Duration,
    slots: Slots<Entry>,
    by_address: HashMap<IpAddr, usize>,
    leases: HashMap<AttachmentKey, Lease>,
    /// Free addresses, the one that has been free longest at the head.
    free: Queue,
    /// Cooling addresses, the one that is ready first at the head.
    cooling: Queue,
    /// Counts of the states that have no queue.
    reserved: usize,
    releasing: usize,
    quarantined: usize,
}

impl Pool {
    /// An empty pool. A released address is not assigned again for `cooldown`.
    pub fn new(cooldown: Duration) -> Self {
        Pool {
            cooldown,
            slots: Slots::default(),
            by_address: HashMap::new(),
            leases: HashMap::new(),
            free: Queue::default(),
            cooling: Queue::default(),
            reserved: 0,
            releasing: 0,
            quarantined: 0,
        }
    }

    /// Assigns the address that has been free longest. A key that holds one keeps it.
    pub fn assign(&mut self, key: &AttachmentKey, pod: Option<PodName>, now: Moment) -> Assignment {
        if let Some(lease) = self.leases.get(key) {
            return Assignment::Existing(lease.clone());
        }
        self.thaw(now);
        let Some(slot) = self.free.head() else { return Assignment::Exhausted(self.counts()) };
        let Some(address) = self.slots.get(slot).map(|entry| entry.address) else {
            return Assignment::Exhausted(self.counts());
        };
        self.set_state(slot, State::Assigned(key.clone()));
        self.leases.insert(key.clone(), Lease { pod, address, link: None });
        Assignment::New(address)
    }

    /// Notes the link of a wired pod. A key without a lease is left alone.
    pub fn set_link(&mut self, key: &AttachmentKey, link: HostLink) {
        if let Some(lease) = self.leases.get_mut(key) {
            lease.link = Some(link);
        }
    }

    /// Ends a pod's lease; its address cools down. `None` if the key holds nothing, which is no error.
    pub fn release(&mut self, key: &AttachmentKey, now: Moment) -> Option<Lease> {
        self.end_lease(key, State::Cooling { until: now.saturating_add(self.cooldown) })
    }

    /// Takes an assignment back that nobody has used: the address is free at once, and last in the queue.
    pub fn cancel(&mut self, key: &AttachmentKey) -> Option<Lease> {
        self.end_lease(key, State::Free)
    }

    /// Registers a lease found in the kernel. Repeating it changes nothing.
    pub fn adopt(&mut self, key: AttachmentKey, lease: Lease) -> Adoption {
        if let Some(held) = self.leases.get(&key) {
            return if held.address == lease.address {
                Adoption::Adopted
            } else {
                Adoption::SecondAddress(held.address)
            };
        }
        let (slot, outcome) = match self.by_address.get(&lease.address) {
            Some(&slot) => (slot, Adoption::Adopted),
            None => {
                let slot = self.insert(lease.address);
                if let Some(entry) = self.slots.get_mut(slot) {
                    entry.missed_views = VIEWS_UNTIL_REMOVAL;
                }
                (slot, Adoption::AdoptedUnknown)
            }
        };
        if let Some(Entry { state: State::Assigned(owner), .. }) = self.slots.get(slot) {
            return Adoption::Conflict(owner.clone());
        }
        self.set_state(slot, State::Assigned(key.clone()));
        self.leases.insert(key, lease);
        outcome
    }

    /// Keeps an address out of use. Without effect on one that is assigned or not in the pool; true if it took effect.
    pub fn reserve(&mut self, address: IpAddr, reason: String) -> bool {
        self.set_aside(address, State::Reserved { reason })
    }

    /// Sets an address aside that is in a state nobody can explain. Without effect on one that is not in the pool.
    pub fn quarantine(&mut self, address: IpAddr, reason: String) -> bool {
        self.set_aside(address, State::Quarantined { reason })
    }

    /// Makes a source's complete view the pool's: new addresses are added in the order given, and those that two views
    /// in a row did not have are removed once nobody uses them. Addresses in use are never dropped.
    pub fn apply_view(&mut self, view: &[PoolAddress]) -> ViewChange {
        let mut change = ViewChange::default();
        for slot in self.slots.indices() {
            if let Some(entry) = self.slots.get_mut(slot) {
                entry.missed_views = entry.missed_views.saturating_add(1);
            }
        }
        for PoolAddress { address, .. } in view {
            let slot = match self.by_address.get(address) {
                Some(&slot) => slot,
                None => {
                    change.added.push(*address);
                    self.insert(*address)
                }
            };
            if let Some(entry) = self.slots.get_mut(slot) {
                entry.missed_views = 0;
            }
        }
        for slot in self.slots.indices() {
            let Some(entry) = self.slots.get(slot) else { continue };
            if entry.missed_views < VIEWS_UNTIL_REMOVAL {
                continue;
            }
            if matches!(entry.state, State::Assigned(_)) {
                change.withdrawn_in_use.push(entry.address);
            } else {
                change.removed.push(entry.address);
                self.remove(slot);
            }
        }
        change
    }

    /// How many addresses are in which state.
    pub fn counts(&self) -> PoolCounts {
        PoolCounts {
            total: self.by_address.len(),
            free: self.free.len(),
            assigned: self.leases.len(),
            cooling: self.cooling.len(),
            reserved: self.reserved,
            releasing: self.releasing,
            quarantined: self.quarantined,
        }
    }

    /// A key's lease.
    pub fn lease(&self, key: &AttachmentKey) -> Option<&Lease> {
        self.leases.get(key)
    }

    /// All leases, in no particular order.
    pub fn leases(&self) -> impl Iterator<Item = (&AttachmentKey, &Lease)> {
        self.leases.iter()
    }

    /// The state of an address; `None` if it is not in the pool.
    pub fn state(&self, address: IpAddr) -> Option<&State> {
        self.by_address.get(&address).and_then(|&slot| self.slots.get(slot)).map(|entry| &entry.state)
    }

    /// Moves what has cooled down to the end of the free queue.
    fn thaw(&mut self, now: Moment) {
        while let Some(slot) = self.cooling.head() {
            match self.slots.get(slot).map(|entry| &entry.state) {
                Some(State::Cooling { until }) if *until <= now => self.set_state(slot, State::Free),
                _ => return,
            }
        }
    }

    fn end_lease(&mut self, key: &AttachmentKey, next: State) -> Option<Lease> {
        let lease = self.leases.remove(key)?;
        if let Some(&slot) = self.by_address.get(&lease.address) {
            if self.slots.get(slot).is_some_and(|entry| entry.missed_views >= VIEWS_UNTIL_REMOVAL) {
                self.remove(slot);
            } else {
                self.set_state(slot, next);
            }
        }
        Some(lease)
    }

    fn set_aside(&mut self, address: IpAddr, state: State) -> bool {
        let Some(&slot) = self.by_address.get(&address) else { return false };
        if matches!(self.slots.get(slot), Some(Entry { state: State::Assigned(_), .. }) | None) {
            return false;
        }
        self.set_state(slot, state);
        true
    }

    fn insert(&mut self, address: IpAddr) -> usize {
        let slot = self.slots.insert(Entry { address, state: State::Free, missed_views: 0 });
        self.free.push_back(&mut self.slots, slot);
        self.by_address.insert(address, slot);
        slot
    }

    fn remove(&mut self, slot: usize) {
        self.leave_state(slot);
        if let Some(entry) = self.slots.remove(slot) {
            self.by_address.remove(&entry.address);
        }
    }

    fn set_state(&mut self, slot: usize, state: State) {
        self.leave_state(slot);
        match &state {
            State::Free => self.free.push_back(&mut self.slots, slot),
            State::Cooling { .. } => self.cooling.push_back(&mut self.slots, slot),
            State::Reserved { .. } => self.reserved += 1,
            State::Releasing => self.releasing += 1,
            State::Quarantined { .. } => self.quarantined += 1,
            // Counted by the leases.
            State::Assigned(_) => {}
        }
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.state = state;
        }
    }

    fn leave_state(&mut self, slot: usize) {
        match self.slots.get(slot).map(|entry| &entry.state) {
            Some(State::Free) => self.free.unlink(&mut self.slots, slot),
            Some(State::Cooling { .. }) => self.cooling.unlink(&mut self.slots, slot),
            Some(State::Reserved { .. }) => self.reserved -= 1,
            Some(State::Releasing) => self.releasing -= 1,
            Some(State::Quarantined { .. }) => self.quarantined -= 1,
            Some(State::Assigned(_)) | None => {}
        }
    }
}
