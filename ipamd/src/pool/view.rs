//! How the pool follows what others say: the source's view of the NIC, and who else uses its addresses. The only changes
//! that walk all addresses.

use std::net::IpAddr;
use std::time::Duration;

use super::{Entry, Map, Moment, Pool, PoolAddress, State};

/// After how many views in a row without it an address counts as withdrawn. One odd answer proves nothing.
pub(super) const VIEWS_UNTIL_WITHDRAWN: u8 = 2;

/// How long after an address was released what is seen of it may be its pod's: a plugin that delegates gives the address back before
/// it deletes the link.
pub(super) const LEAVING: Duration = Duration::from_secs(2);

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

impl Pool {
    /// Makes a source's complete view the pool's: new addresses are added in the order given, and those that two views
    /// in a row did not have are removed, those in use once they were released and have rested. Addresses in use are never dropped.
    /// What comes with a later view than the first may have been here before: it is lent once it was swept.
    pub fn apply_view(&mut self, view: &[PoolAddress]) -> ViewChange {
        let is_first = self.subnets.is_empty();
        let mut change = ViewChange::default();
        for slot in self.slots.all() {
            if let Some(entry) = self.slots.get_mut(slot) {
                entry.missed_views = entry.missed_views.saturating_add(1);
            }
        }
        for PoolAddress { address, subnet, nic } in view {
            if !self.subnets.contains(subnet) {
                self.subnets.push(*subnet);
            }
            let slot = match self.by_address.get(address) {
                Some(&slot) => slot,
                None => {
                    change.added.push(*address);
                    let slot = self.insert(*address, *nic);
                    if !is_first {
                        self.set_state(slot, State::Cooling { since: Moment::ZERO, swept: None });
                    }
                    slot
                }
            };
            if let Some(entry) = self.slots.get_mut(slot) {
                entry.missed_views = 0;
            }
        }
        for slot in self.slots.all() {
            let Some(entry) = self.slots.get(slot) else { continue };
            if !entry.is_withdrawn() {
                continue;
            }
            match entry.state {
                State::Assigned(_) => change.withdrawn_in_use.push(entry.address),
                State::Free | State::Releasing => {
                    change.removed.push(entry.address);
                    self.remove(slot);
                }
                // What rests leaves when it has; what others use, or nobody can explain, is remembered as such.
                State::Cooling { .. } | State::Reserved { .. } | State::Quarantined { .. } => {}
            }
        }
        change
    }

    /// The reserved addresses, in no particular order.
    pub fn reserved(&self) -> impl Iterator<Item = IpAddr> {
        let entries = self.slots.all().filter_map(|slot| self.slots.get(slot));
        entries.filter(|entry| matches!(entry.state, State::Reserved { .. })).map(|entry| entry.address)
    }

    /// Makes these the reserved addresses, each with its reason, and lets go of those reserved before and not listed: they
    /// rest as released ones do, for the connections of whoever used them may still be alive. An assigned address, or one
    /// the pool does not have, is passed over; so is one that was released no two seconds before it was seen in use, at the
    /// moment `seen`. Returns what was newly reserved and what was let go.
    pub fn reserve_exactly(
        &mut self,
        used: &[(IpAddr, String)],
        seen: Moment,
        now: Moment,
    ) -> (Vec<(IpAddr, String)>, Vec<IpAddr>) {
        let wanted: Map<IpAddr, &String> = used.iter().map(|(address, reason)| (*address, reason)).collect();
        let mut freed = Vec::new();
        for slot in self.slots.all() {
            if let Some(Entry { address, state: State::Reserved { .. }, .. }) = self.slots.get(slot)
                && !wanted.contains_key(address)
            {
                freed.push(*address);
                self.set_state(slot, State::Cooling { since: now, swept: None });
            }
        }
        let mut reserved = Vec::new();
        for (address, reason) in wanted {
            let Some(&slot) = self.by_address.get(&address) else { continue };
            let state = self.slots.get(slot).map(|entry| &entry.state);
            let is_leaving = state.is_some_and(|state| state.was_released_after(seen.saturating_sub(LEAVING)));
            if matches!(state, Some(State::Free | State::Cooling { .. })) && !is_leaving {
                self.set_state(slot, State::Reserved { reason: reason.clone() });
                reserved.push((address, reason.clone()));
            }
        }
        reserved.sort();
        (reserved, freed)
    }
}
