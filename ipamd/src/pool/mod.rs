//! The pool: which address is in which state, and whose it is.
//!
//! Pure: no IO, no clock. Callers pass `now`, the time since boot on the monotonic clock, so that a cool-down means the
//! same before and after a restart of the daemon, whatever the wall clock does. Look-ups by key and by address and every
//! change of state take constant time, however many addresses there are; only applying a source's view walks them all.
//!
//! One rule orders calls that overtake each other: **a DEL ends every ADD that was started before it.** A lease remembers
//! when its ADD was started, and a DEL leaves a tombstone with its time, so that an ADD which comes late is told from a new
//! one.
//!
//! A released address rests, and the node's memory of its connections is swept meanwhile, by somebody who can talk to the
//! kernel ([`Pool::begin_sweep`], [`Pool::end_sweep`]). **It is lent again only after a sweep that began when its rest was
//! over**, and not while one is under way, which could take the next pod's connections along.
//!
//! Invariants, checked by `Pool::check` in tests: the counts of the states add up to the total; an address is in the
//! queue of its state and in no other; an assigned address belongs to exactly one lease, which names it back.

mod choose;
mod eligible;
mod lease;
mod outcome;
mod queue;
mod rest;
mod state;
#[cfg(test)]
pub(crate) mod tests;
mod tombstones;
mod view;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use dotfour_protocol::{AttachmentKey, FamilyTotals, PoolCounts};
use ipnet::IpNet;

pub use eligible::{Exclusion, ExclusionReason, PoolAddress, eligible};
pub use lease::{HostLink, Lease, PodAddresses};
pub use outcome::{Adoption, Assignment, Covered, Families, Wish};
use queue::{Place, Queue, Slot, Slots};
pub use rest::{Due, Rest};
pub use state::State;
use tombstones::Tombstones;
use view::VIEWS_UNTIL_WITHDRAWN;
pub use view::ViewChange;

/// Time since boot, on the monotonic clock.
pub type Moment = Duration;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

#[derive(Debug, Clone)]
struct Entry {
    address: IpAddr,
    state: State,
    nic: u32,
    /// How many views in a row did not have it.
    missed_views: u8,
}

/// What grows beyond this makes an ADD slower, the more the larger the pool.
const _: () = assert!(size_of::<Place<Entry>>() == 64, "an entry and its links fill one line of a processor's cache");

impl Entry {
    /// Whether the source does not report it any more. Such an address is not lent, and leaves the pool once nobody uses it and
    /// it has rested: should it come back before, it must not have forgotten whose connections may be alive.
    fn is_withdrawn(&self) -> bool {
        self.missed_views >= VIEWS_UNTIL_WITHDRAWN
    }
}

#[derive(Debug, Clone)]
struct Held {
    lease: Lease,
    /// The places of the lease's addresses.
    slots: [Option<Slot>; 2],
    /// How those rested that were lent before their rest was over: none, but on a NIC that has run dry.
    rested: Vec<(Slot, State)>,
}

/// The free addresses of one NIC, which a pod has all its addresses from. The one free longest is at the head.
#[derive(Debug, Clone, Default)]
struct Group {
    nic: u32,
    v4: Queue,
    v6: Queue,
}

/// The queue of free addresses that this one has its place in. A node has few NICs.
fn free_queue(groups: &mut [Group], nic: u32, address: IpAddr) -> Option<&mut Queue> {
    let group = groups.iter_mut().find(|group| group.nic == nic)?;
    Some(if address.is_ipv4() { &mut group.v4 } else { &mut group.v6 })
}

/// The pool of a node's pod addresses.
#[derive(Debug, Clone)]
pub struct Pool {
    rest: Rest,
    slots: Slots<Entry>,
    by_address: Map<IpAddr, Slot>,
    leases: Map<Arc<AttachmentKey>, Held>,
    groups: Vec<Group>,
    /// The subnets that a view has had. Few, and never forgotten: an address in use may outlive the view that had it.
    subnets: Vec<IpNet>,
    /// Cooling addresses, the one released first at the head.
    cooling: Queue,
    assigned: usize,
    reserved: usize,
    releasing: usize,
    quarantined: usize,
    tombstones: Tombstones,
}

impl Pool {
    /// An empty pool.
    pub fn new(rest: Rest) -> Self {
        Pool {
            rest,
            slots: Slots::default(),
            by_address: Map::default(),
            leases: Map::default(),
            groups: Vec::new(),
            subnets: Vec::new(),
            cooling: Queue::default(),
            assigned: 0,
            reserved: 0,
            releasing: 0,
            quarantined: 0,
            tombstones: Tombstones::default(),
        }
    }

    /// Assigns the addresses that have been free longest, all of one NIC. A key that holds a lease keeps it.
    pub fn assign(&mut self, wish: Wish<'_>, now: Moment) -> Assignment {
        if let Some(held) = self.leases.get_mut(wish.key) {
            if held.lease.delegated != wish.delegated {
                return Assignment::HeldOtherwise;
            }
            // The lease is this ADD's from now on: a DEL from before it has no say any more.
            held.lease.started = held.lease.started.max(wish.started);
            return Assignment::Existing(held.lease.clone());
        }
        let ended = self.tombstones.of(wish.key);
        if ended.is_some_and(|at| wish.started <= at) {
            return Assignment::Overtaken;
        }
        self.thaw(now);
        let slots = match self.choose(&wish, now) {
            Ok(slots) => slots,
            Err(refusal) => return refusal,
        };
        let (mut addresses, mut rested) = (PodAddresses::default(), Vec::new());
        for slot in slots.into_iter().flatten() {
            if let Some(Entry { state: state @ State::Cooling { .. }, .. }) = self.slots.get(slot) {
                rested.push((slot, state.clone()));
            }
            addresses = addresses.with(self.set_state(slot, State::Assigned(Arc::clone(wish.key))));
        }
        if ended.is_some() {
            self.tombstones.remove(wish.key);
        }
        let Wish { pod, started, delegated, .. } = wish;
        let lease = Lease { pod, addresses, link: None, started, delegated };
        self.leases.insert(Arc::clone(wish.key), Held { lease, slots, rested });
        Assignment::New(addresses)
    }

    /// Notes the link of a wired pod, and returns what is known of it then: if it was renamed meanwhile, that comes first.
    /// A key without a lease is left alone.
    pub fn set_link(&mut self, key: &AttachmentKey, link: HostLink) -> HostLink {
        let Some(held) = self.leases.get_mut(key) else { return link };
        let known = held.lease.link.take().filter(|known| known.index == link.index);
        held.lease.link.insert(known.unwrap_or(link)).clone()
    }

    /// Notes that a pod's link has a new name. That may come before [`Pool::set_link`] does; and after the key has another
    /// link, or a lease that never has one, it is without effect.
    pub fn rename_link(&mut self, key: &AttachmentKey, link: HostLink) {
        if let Some(held) = self.leases.get_mut(key)
            && !held.lease.delegated
            && held.lease.link.as_ref().is_none_or(|known| known.index == link.index)
        {
            held.lease.link = Some(link);
        }
    }

    /// Which ADD of a key a DEL of this moment ends. The DEL is remembered: an ADD that was started before it is
    /// [`Assignment::Overtaken`] when it comes.
    pub fn cover(&mut self, key: &Arc<AttachmentKey>, at: Moment, now: Moment) -> Covered {
        // Also beside a lease: a second ADD, as old as the one that made it, may still be on its way.
        self.tombstones.insert(key, at, now);
        match self.leases.get(key) {
            Some(held) if held.lease.started <= at => Covered::Lease(held.lease.clone()),
            Some(_) => Covered::AddedSince,
            None => Covered::Unknown,
        }
    }

    /// Ends a pod's lease; its addresses cool down. `None` if the key holds nothing, which is no error.
    pub fn release(&mut self, key: &AttachmentKey, now: Moment) -> Option<Lease> {
        let Held { lease, slots, .. } = self.leases.remove(key)?;
        for slot in slots.into_iter().flatten() {
            self.set_state(slot, State::Cooling { since: now, swept: None });
        }
        Some(lease)
    }

    /// Takes an assignment back that nobody has used: its addresses are free at once, and last in the queue. Those that had
    /// not rested to the end go on resting as they did.
    pub fn cancel(&mut self, key: &AttachmentKey) -> Option<Lease> {
        let Held { lease, slots, mut rested } = self.leases.remove(key)?;
        for slot in slots.into_iter().flatten() {
            match rested.iter().position(|(resting, _)| *resting == slot) {
                Some(place) => {
                    let (_, state) = rested.swap_remove(place);
                    self.set_state(slot, state);
                }
                None => self.free_or_remove(slot),
            }
        }
        Some(lease)
    }

    /// Registers a lease found in the kernel. Repeating it changes nothing.
    pub fn adopt(&mut self, key: &Arc<AttachmentKey>, lease: Lease, nic: u32) -> Adoption {
        if let Some(held) = self.leases.get(key) {
            return if held.lease.addresses == lease.addresses {
                Adoption::Adopted
            } else {
                Adoption::SecondLease(held.lease.addresses)
            };
        }
        if let Some(owner) = lease.addresses.iter().find_map(|address| self.owner(address)) {
            return Adoption::Conflict(Arc::clone(owner));
        }
        let mut outcome = Adoption::Adopted;
        let mut slots = [None, None];
        for (place, address) in slots.iter_mut().zip(lease.addresses.iter()) {
            let slot = self.by_address.get(&address).copied().unwrap_or_else(|| {
                outcome = Adoption::AdoptedUnknown;
                self.insert_withdrawn(address, nic)
            });
            self.set_state(slot, State::Assigned(Arc::clone(key)));
            *place = Some(slot);
        }
        self.leases.insert(Arc::clone(key), Held { lease, slots, rested: Vec::new() });
        outcome
    }

    /// Remembers a DEL; see [`Pool::cover`].
    pub fn remember_del(&mut self, key: &Arc<AttachmentKey>, at: Moment, now: Moment) {
        self.tombstones.insert(key, at, now);
    }

    /// Sets an address aside that is in a state nobody can explain. True if it took effect: not on an assigned address,
    /// nor on one the pool does not have.
    pub fn quarantine(&mut self, address: IpAddr, reason: String) -> bool {
        self.set_aside(address, State::Quarantined { reason })
    }

    /// Sets a free address aside to be given back to Azure. True if it took effect: only on a free address.
    pub fn begin_return(&mut self, address: IpAddr) -> bool {
        self.state(address) == Some(&State::Free) && self.set_aside(address, State::Releasing)
    }

    /// How many addresses are in which state.
    pub fn counts(&self) -> PoolCounts {
        PoolCounts {
            total: self.by_address.len(),
            free: self.groups.iter().map(|group| group.v4.len() + group.v6.len()).sum(),
            assigned: self.assigned,
            cooling: self.cooling.len(),
            reserved: self.reserved,
            releasing: self.releasing,
            quarantined: self.quarantined,
        }
    }

    /// How many addresses of these families there are, whatever their state.
    pub fn totals(&self, families: Families) -> FamilyTotals {
        let v4 = self.by_address.keys().filter(|address| address.is_ipv4()).count();
        let v6 = self.by_address.len() - v4;
        FamilyTotals { v4: families.v4.then_some(v4), v6: families.v6.then_some(v6) }
    }

    /// A key's lease.
    pub fn lease(&self, key: &AttachmentKey) -> Option<&Lease> {
        self.leases.get(key).map(|held| &held.lease)
    }

    /// All leases, in no particular order.
    pub fn leases(&self) -> impl Iterator<Item = (&Arc<AttachmentKey>, &Lease)> {
        self.leases.iter().map(|(key, held)| (key, &held.lease))
    }

    /// The free addresses, in no particular order.
    pub fn free(&self) -> impl Iterator<Item = IpAddr> {
        let queues = self.groups.iter().flat_map(|group| [&group.v4, &group.v6]);
        queues.flat_map(|queue| queue.iter(&self.slots)).map(|entry| entry.address)
    }

    /// The DELs that are still remembered, with their moments.
    pub fn remembered_dels(&self) -> impl Iterator<Item = (&Arc<AttachmentKey>, Moment)> {
        self.tombstones.iter()
    }

    /// The state of an address; `None` if it is not in the pool.
    pub fn state(&self, address: IpAddr) -> Option<&State> {
        self.by_address.get(&address).and_then(|&slot| self.slots.get(slot)).map(|entry| &entry.state)
    }

    /// Whether an address is the pool's, and not withdrawn by its source.
    pub fn offers(&self, address: IpAddr) -> bool {
        self.by_address.get(&address).and_then(|&slot| self.slots.get(slot)).is_some_and(|entry| !entry.is_withdrawn())
    }

    /// The subnet that an address is from: the smallest, should one be inside another.
    pub fn subnet_of(&self, address: IpAddr) -> Option<IpNet> {
        let of = self.subnets.iter().filter(|subnet| subnet.contains(&address));
        of.max_by_key(|subnet| subnet.prefix_len()).copied()
    }

    /// The pod that holds an address.
    pub fn owner(&self, address: IpAddr) -> Option<&Arc<AttachmentKey>> {
        match self.state(address) {
            Some(State::Assigned(key)) => Some(key),
            _ => None,
        }
    }

    /// Frees an address, or removes it if no source reports it any more.
    fn free_or_remove(&mut self, slot: Slot) {
        if self.slots.get(slot).is_some_and(Entry::is_withdrawn) {
            self.remove(slot);
        } else {
            self.set_state(slot, State::Free);
        }
    }

    fn set_aside(&mut self, address: IpAddr, state: State) -> bool {
        let Some(&slot) = self.by_address.get(&address) else { return false };
        if matches!(self.slots.get(slot), Some(Entry { state: State::Assigned(_), .. }) | None) {
            return false;
        }
        self.set_state(slot, state);
        true
    }

    fn insert(&mut self, address: IpAddr, nic: u32) -> Slot {
        if !self.groups.iter().any(|group| group.nic == nic) {
            self.groups.push(Group { nic, ..Group::default() });
        }
        let slot = self.slots.insert(Entry { address, state: State::Free, nic, missed_views: 0 });
        if let Some(queue) = free_queue(&mut self.groups, nic, address) {
            queue.push_back(&mut self.slots, slot);
        }
        self.by_address.insert(address, slot);
        slot
    }

    /// An address that no source reports.
    fn insert_withdrawn(&mut self, address: IpAddr, nic: u32) -> Slot {
        let slot = self.insert(address, nic);
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.missed_views = VIEWS_UNTIL_WITHDRAWN;
        }
        slot
    }

    fn remove(&mut self, slot: Slot) {
        self.leave_state(slot);
        if let Some(entry) = self.slots.remove(slot) {
            self.by_address.remove(&entry.address);
        }
    }

    /// Changes an entry's state, with all queues and counts. Returns its address.
    // The caller's state is made in its place, not copied there.
    #[inline(always)]
    fn set_state(&mut self, slot: Slot, state: State) -> IpAddr {
        self.leave_state(slot);
        let Some(entry) = self.slots.get(slot) else { return IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let (address, nic) = (entry.address, entry.nic);
        match &state {
            State::Free => {
                if let Some(queue) = free_queue(&mut self.groups, nic, address) {
                    queue.push_back(&mut self.slots, slot);
                }
            }
            State::Cooling { since, .. } => {
                let released_later = |entry: &Entry| entry.state.was_released_after(*since);
                self.cooling.insert_before(&mut self.slots, slot, released_later);
            }
            State::Assigned(_) => self.assigned += 1,
            State::Reserved { .. } => self.reserved += 1,
            State::Releasing => self.releasing += 1,
            State::Quarantined { .. } => self.quarantined += 1,
        }
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.state = state;
        }
        address
    }

    fn leave_state(&mut self, slot: Slot) {
        let Some(entry) = self.slots.get(slot) else { return };
        let (address, nic) = (entry.address, entry.nic);
        match &entry.state {
            State::Free => {
                if let Some(queue) = free_queue(&mut self.groups, nic, address) {
                    queue.unlink(&mut self.slots, slot);
                }
            }
            State::Cooling { .. } => self.cooling.unlink(&mut self.slots, slot),
            State::Assigned(_) => self.assigned -= 1,
            State::Reserved { .. } => self.reserved -= 1,
            State::Releasing => self.releasing -= 1,
            State::Quarantined { .. } => self.quarantined -= 1,
        }
    }
}
