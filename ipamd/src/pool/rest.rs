//! What rests: released addresses, until the network and the node have forgotten their pods.

use std::net::IpAddr;
use std::time::Duration;

use super::{Entry, Moment, Pool, Slot, State};

/// How long a released address rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// What it gets.
    pub cooldown: Duration,
    /// What is enough when no other address is left: a pool that only cools must not be a dead end.
    pub floor: Duration,
}

/// The addresses for which a sweep is due.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// Not swept yet, or rested by now: all that names them goes.
    pub wholly: Vec<IpAddr>,
    /// Swept once already, a moment ago: what leads to them goes, if it has come back.
    pub again: Vec<IpAddr>,
}

impl Pool {
    /// Lets a free address rest, as one released at `since` does. Without effect on any other.
    pub fn cool(&mut self, address: IpAddr, since: Moment) {
        if let Some(&slot) = self.by_address.get(&address)
            && self.slots.get(slot).is_some_and(|entry| entry.state == State::Free)
        {
            self.set_state(slot, State::Cooling { since, swept: None });
        }
    }

    /// As [`Pool::cool`], of an address that rested already before a restart. One that the source does not report just now
    /// rests as withdrawn: it may come back before it has rested.
    pub fn cool_again(&mut self, address: IpAddr, nic: u32, since: Moment) {
        if !self.by_address.contains_key(&address) {
            self.insert_withdrawn(address, nic);
        }
        self.cool(address, since);
    }

    /// The resting addresses that were released no later than this. Until [`Pool::end_sweep`] says that nothing remembers
    /// their connections any more, none of them is lent.
    pub fn begin_sweep(&mut self, released_until: Moment) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        let wanted = |state: &State| matches!(state, State::Cooling { since, .. } if *since <= released_until);
        self.begin_sweep_of(wanted, |entry| addresses.push(entry.address));
        addresses
    }

    /// As [`Pool::begin_sweep`], of those resting addresses alone for which it is time: released a moment ago, while
    /// whoever sends to them is still being told; or at the end of their rest, or of its floor, and not swept since.
    pub fn begin_due_sweep(&mut self, now: Moment) -> Due {
        let (rest, mut due) = (self.rest, Due::default());
        self.begin_sweep_of(
            |state| state.is_due(rest, now),
            |entry| {
                let again = entry.state.was_swept() && !entry.state.has_rested(rest.floor, now);
                if again { &mut due.again } else { &mut due.wholly }.push(entry.address);
            },
        );
        due
    }

    fn begin_sweep_of(&mut self, wanted: impl Fn(&State) -> bool, mut each: impl FnMut(&Entry)) {
        let slots: Vec<Slot> = self.cooling.slots(&self.slots).collect();
        for slot in slots {
            // What was withdrawn may be another node's by now, and its connections with it. Should it come back, it is swept then.
            if let Some(entry) = self.slots.get_mut(slot)
                && !entry.is_withdrawn()
                && wanted(&entry.state)
            {
                each(entry);
                if let State::Cooling { swept, .. } = &mut entry.state {
                    *swept = None;
                }
            }
        }
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

    /// Frees what has rested enough and was swept since; what is withdrawn leaves the pool instead. [`Pool::assign`] does so by itself; for counts that are true at
    /// this moment.
    pub fn thaw(&mut self, now: Moment) {
        let cooldown = self.rest.cooldown;
        let over = |entry: &Entry| {
            entry.state.has_rested(cooldown, now) && (entry.is_withdrawn() || entry.state.is_swept(cooldown))
        };
        while let Some(slot) = self.cooling.head()
            && self.slots.get(slot).is_some_and(over)
        {
            self.free_or_remove(slot);
        }
    }

    /// The cooling addresses and when they were released, the first released first.
    pub fn cooling(&self) -> impl Iterator<Item = (IpAddr, Moment)> {
        self.cooling.iter(&self.slots).filter_map(|entry| match entry.state {
            State::Cooling { since, .. } => Some((entry.address, since)),
            _ => None,
        })
    }
}
