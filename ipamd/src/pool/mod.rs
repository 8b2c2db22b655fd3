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

mod eligible;
mod lease;
mod outcome;
mod queue;
#[cfg(test)]
pub(crate) mod tests;
mod tombstones;
mod view;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use dotfour_protocol::{AttachmentKey, PoolCounts};
use ipnet::IpNet;

pub use eligible::{Exclusion, ExclusionReason, PoolAddress, eligible};
pub use lease::{HostLink, Lease, PodAddresses};
pub use outcome::{Adoption, Assignment, Covered, Families, Wish};
use queue::{Queue, Slots};
use tombstones::Tombstones;
use view::VIEWS_UNTIL_REMOVAL;
pub use view::ViewChange;

/// Time since boot, on the monotonic clock.
pub type Moment = Duration;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// How long after its release an address is swept again and again: until then those who send to it, a service's rules
/// above all, have been told that its pod is gone.
const FRESH: Duration = Duration::from_secs(2);

/// Where one address stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nobody's, and may be assigned.
    Free,
    /// A pod's.
    Assigned(Arc<AttachmentKey>),
    /// Released, and resting, so that caches in the network forget the pod before.
    Cooling {
        /// When it was released.
        since: Moment,
        /// When the last sweep of its connections began; `None` before there was one, and while one is under way.
        swept: Option<Moment>,
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

impl State {
    /// Whether this is an address that has rested for so long.
    fn has_rested(&self, rest: Duration, now: Moment) -> bool {
        matches!(self, State::Cooling { since, .. } if since.saturating_add(rest) <= now)
    }

    /// Whether this is a resting address whose connections are to be swept now.
    fn is_due(&self, rest: Rest, now: Moment) -> bool {
        let State::Cooling { since, swept } = self else { return false };
        let over = |rest| self.has_rested(rest, now) && !self.is_swept(rest);
        swept.is_none() || now.saturating_sub(*since) <= FRESH || over(rest.floor) || over(rest.cooldown)
    }

    /// Whether this is an address whose connections were swept after a rest of so long.
    fn is_swept(&self, rest: Duration) -> bool {
        matches!(self, State::Cooling { since, swept: Some(swept) } if since.saturating_add(rest) <= *swept)
    }
}

#[derive(Debug, Clone)]
struct Entry {
    address: IpAddr,
    state: State,
    group: usize,
    /// How many views in a row did not have it.
    missed_views: u8,
}

#[derive(Debug, Clone)]
struct Held {
    lease: Lease,
    /// The places of the lease's addresses.
    slots: [Option<usize>; 2],
}

/// The free addresses of one NIC, which a pod has all its addresses from. The one free longest is at the head.
#[derive(Debug, Clone, Default)]
struct Group {
    nic: u32,
    v4: Queue,
    v6: Queue,
}

impl Group {
    fn free(&mut self, address: IpAddr) -> &mut Queue {
        if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

/// How long a released address rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// What it gets.
    pub cooldown: Duration,
    /// What is enough when no other address is left: a pool that only cools must not be a dead end.
    pub floor: Duration,
}

/// The pool of a node's pod addresses.
#[derive(Debug, Clone)]
pub struct Pool {
    rest: Rest,
    slots: Slots<Entry>,
    by_address: Map<IpAddr, usize>,
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
        if self.tombstones.ends(wish.key, wish.started) {
            return Assignment::Overtaken;
        }
        self.thaw(now);
        let slots = match self.choose(&wish, now) {
            Ok(slots) => slots,
            Err(refusal) => return refusal,
        };
        let mut addresses = PodAddresses::default();
        for slot in slots.into_iter().flatten() {
            addresses = addresses.with(self.set_state(slot, State::Assigned(Arc::clone(wish.key))));
        }
        self.tombstones.remove(wish.key);
        let Wish { pod, started, delegated, .. } = wish;
        let lease = Lease { pod, addresses, link: None, started, delegated };
        self.leases.insert(Arc::clone(wish.key), Held { lease, slots });
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
    /// link, it is without effect.
    pub fn rename_link(&mut self, key: &AttachmentKey, link: HostLink) {
        if let Some(held) = self.leases.get_mut(key)
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
        self.end_lease(key, |_| State::Cooling { since: now, swept: None })
    }

    /// Takes an assignment back that nobody has used: its addresses are free at once, and last in the queue.
    pub fn cancel(&mut self, key: &AttachmentKey) -> Option<Lease> {
        self.end_lease(key, |_| State::Free)
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
                let slot = self.insert(address, nic);
                if let Some(entry) = self.slots.get_mut(slot) {
                    entry.missed_views = VIEWS_UNTIL_REMOVAL;
                }
                slot
            });
            self.set_state(slot, State::Assigned(Arc::clone(key)));
            *place = Some(slot);
        }
        self.leases.insert(Arc::clone(key), Held { lease, slots });
        outcome
    }

    /// Lets a free address rest, as one released at `since` does. Without effect on any other. To be called in the order
    /// of the moments.
    pub fn cool(&mut self, address: IpAddr, since: Moment) {
        if let Some(&slot) = self.by_address.get(&address)
            && self.slots.get(slot).is_some_and(|entry| entry.state == State::Free)
        {
            self.set_state(slot, State::Cooling { since, swept: None });
        }
    }

    /// The resting addresses that were released no later than this. Until [`Pool::end_sweep`] says that nothing remembers
    /// their connections any more, none of them is lent.
    pub fn begin_sweep(&mut self, released_until: Moment) -> Vec<IpAddr> {
        self.begin_sweep_of(|state| matches!(state, State::Cooling { since, .. } if *since <= released_until))
    }

    /// As [`Pool::begin_sweep`], of those resting addresses alone for which it is time: released a moment ago, while
    /// whoever sends to them is still being told; or at the end of their rest, or of its floor, and not swept since.
    pub fn begin_due_sweep(&mut self, now: Moment) -> Vec<IpAddr> {
        let rest = self.rest;
        self.begin_sweep_of(|state| state.is_due(rest, now))
    }

    fn begin_sweep_of(&mut self, wanted: impl Fn(&State) -> bool) -> Vec<IpAddr> {
        let slots: Vec<usize> = self.cooling.slots(&self.slots).collect();
        let mut addresses = Vec::with_capacity(slots.len());
        for slot in slots {
            if let Some(entry) = self.slots.get_mut(slot)
                && wanted(&entry.state)
                && let State::Cooling { swept, .. } = &mut entry.state
            {
                *swept = None;
                addresses.push(entry.address);
            }
        }
        addresses
    }

    /// Notes that a sweep which began at this moment is over. Without effect on addresses that do not rest, or not since
    /// before it.
    pub fn end_sweep(&mut self, addresses: &[IpAddr], begun: Moment) {
        for address in addresses {
            if let Some(&slot) = self.by_address.get(address)
                && let Some(Entry { state: State::Cooling { since, swept }, .. }) = self.slots.get_mut(slot)
                && *since <= begun
            {
                *swept = Some(begun);
            }
        }
    }

    /// How long addresses rest.
    pub fn rest(&self) -> Rest {
        self.rest
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

    /// Frees what has rested enough and was swept since. [`Pool::assign`] does so by itself; for counts that are true at
    /// this moment.
    pub fn thaw(&mut self, now: Moment) {
        let cooldown = self.rest.cooldown;
        while let Some(slot) = self.cooling.head() {
            match self.slots.get(slot).map(|entry| &entry.state) {
                Some(state) if state.has_rested(cooldown, now) && state.is_swept(cooldown) => {
                    self.set_state(slot, State::Free);
                }
                _ => return,
            }
        }
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

    /// A key's lease.
    pub fn lease(&self, key: &AttachmentKey) -> Option<&Lease> {
        self.leases.get(key).map(|held| &held.lease)
    }

    /// All leases, in no particular order.
    pub fn leases(&self) -> impl Iterator<Item = (&Arc<AttachmentKey>, &Lease)> {
        self.leases.iter().map(|(key, held)| (key, &held.lease))
    }

    /// The cooling addresses and when they were released, the first released first.
    pub fn cooling(&self) -> impl Iterator<Item = (IpAddr, Moment)> {
        self.cooling.iter(&self.slots).filter_map(|entry| match entry.state {
            State::Cooling { since, .. } => Some((entry.address, since)),
            _ => None,
        })
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

    fn choose(&self, wish: &Wish<'_>, now: Moment) -> Result<[Option<usize>; 2], Assignment> {
        if wish.asked != PodAddresses::default() {
            return self.choose_asked(wish, now);
        }
        let from_group = self.groups.iter().find_map(|group| pair(wish.families, group.v4.head(), group.v6.head()));
        from_group.map_or_else(|| self.choose_resting(wish.families, now), Ok)
    }

    fn choose_asked(&self, wish: &Wish<'_>, now: Moment) -> Result<[Option<usize>; 2], Assignment> {
        let (mut v4, mut v6, mut on) = (None, None, None);
        let cooldown = self.rest.cooldown;
        for address in wish.asked.iter() {
            let slot = *self.by_address.get(&address).ok_or(Assignment::AskedUnknown(address))?;
            match self.slots.get(slot) {
                Some(Entry { state: State::Free, group, .. }) => on = self.groups.get(*group),
                // Only a sweep is missing.
                Some(Entry { state, .. }) if state.has_rested(cooldown, now) => return Err(Assignment::Unswept),
                _ => return Err(Assignment::AskedTaken(address)),
            }
            *if address.is_ipv4() { &mut v4 } else { &mut v6 } = Some(slot);
        }
        let families = Families { v4: wish.families.v4 || v4.is_some(), v6: wish.families.v6 || v6.is_some() };
        let v4 = v4.or_else(|| on.and_then(|group| group.v4.head()));
        let v6 = v6.or_else(|| on.and_then(|group| group.v6.head()));
        pair(families, v4, v6).ok_or_else(|| {
            let lacks_a_sweep =
                |entry: &Entry| entry.state.has_rested(cooldown, now) && !entry.state.is_swept(cooldown);
            if self.cooling.iter(&self.slots).any(lacks_a_sweep) {
                Assignment::Unswept
            } else {
                Assignment::Exhausted(self.counts())
            }
        })
    }

    /// With nothing free, the addresses that have rested longest, if that is longer than the floor. A walk, but only
    /// over what rests, and only when a NIC has run dry.
    fn choose_resting(&self, families: Families, now: Moment) -> Result<[Option<usize>; 2], Assignment> {
        let floor = self.rest.floor;
        let resting = |number: usize, v4: bool, fit: &dyn Fn(&State) -> bool| {
            self.cooling.slots(&self.slots).find(|&slot| {
                self.slots.get(slot).is_some_and(|entry| {
                    let rested = entry.state.has_rested(floor, now) && fit(&entry.state);
                    rested && entry.group == number && entry.address.is_ipv4() == v4
                })
            })
        };
        let choose = |fit: &dyn Fn(&State) -> bool| {
            self.groups.iter().enumerate().find_map(|(number, group)| {
                let v4 = group.v4.head().or_else(|| families.v4.then(|| resting(number, true, fit)).flatten());
                let v6 = group.v6.head().or_else(|| families.v6.then(|| resting(number, false, fit)).flatten());
                pair(families, v4, v6)
            })
        };
        match (choose(&|state| state.is_swept(floor)), choose(&|_| true)) {
            (Some(slots), _) => Ok(slots),
            (None, Some(_)) => Err(Assignment::Unswept),
            (None, None) => Err(Assignment::Exhausted(self.counts())),
        }
    }

    fn end_lease(&mut self, key: &AttachmentKey, next: impl Fn(IpAddr) -> State) -> Option<Lease> {
        let Held { lease, slots } = self.leases.remove(key)?;
        for slot in slots.into_iter().flatten() {
            match self.slots.get(slot).map(|entry| (entry.address, entry.missed_views)) {
                Some((_, missed)) if missed >= VIEWS_UNTIL_REMOVAL => self.remove(slot),
                Some((address, _)) => {
                    self.set_state(slot, next(address));
                }
                None => {}
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

    fn insert(&mut self, address: IpAddr, nic: u32) -> usize {
        let group = self.groups.iter().position(|group| group.nic == nic).unwrap_or_else(|| {
            self.groups.push(Group { nic, ..Group::default() });
            self.groups.len() - 1
        });
        let slot = self.slots.insert(Entry { address, state: State::Free, group, missed_views: 0 });
        if let Some(group) = self.groups.get_mut(group) {
            group.free(address).push_back(&mut self.slots, slot);
        }
        self.by_address.insert(address, slot);
        slot
    }

    fn remove(&mut self, slot: usize) {
        self.leave_state(slot);
        if let Some(entry) = self.slots.remove(slot) {
            self.by_address.remove(&entry.address);
        }
    }

    /// Changes an entry's state, with all queues and counts. Returns its address.
    fn set_state(&mut self, slot: usize, state: State) -> IpAddr {
        self.leave_state(slot);
        let Some(entry) = self.slots.get(slot) else { return IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let (address, group) = (entry.address, entry.group);
        match &state {
            State::Free => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.free(address).push_back(&mut self.slots, slot);
                }
            }
            State::Cooling { .. } => self.cooling.push_back(&mut self.slots, slot),
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

    fn leave_state(&mut self, slot: usize) {
        let Some(entry) = self.slots.get(slot) else { return };
        let (address, group) = (entry.address, entry.group);
        match &entry.state {
            State::Free => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.free(address).unlink(&mut self.slots, slot);
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

/// The places for the wanted families, if there is one for each.
fn pair(families: Families, v4: Option<usize>, v6: Option<usize>) -> Option<[Option<usize>; 2]> {
    let v4 = v4.filter(|_| families.v4);
    let v6 = v6.filter(|_| families.v6);
    let complete = v4.is_some() == families.v4 && v6.is_some() == families.v6;
    (complete && (v4.is_some() || v6.is_some())).then_some([v4, v6])
}
