//! Which addresses an ADD gets. Changes nothing.

use super::{Assignment, Entry, Families, Moment, PodAddresses, Pool, Slot, State, Wish};

impl Pool {
    /// The places of the addresses that an ADD gets, or what it is told.
    pub(super) fn choose(&self, wish: &Wish<'_>, now: Moment) -> Result<[Option<Slot>; 2], Assignment> {
        if wish.asked != PodAddresses::default() {
            return self.choose_asked(wish, now);
        }
        let from_group = self.groups.iter().find_map(|group| pair(wish.families, group.v4.head(), group.v6.head()));
        from_group.map_or_else(|| self.choose_resting(wish.families, now), Ok)
    }

    fn choose_asked(&self, wish: &Wish<'_>, now: Moment) -> Result<[Option<Slot>; 2], Assignment> {
        let (mut v4, mut v6, mut on) = (None, None, None);
        let cooldown = self.rest.cooldown;
        for address in wish.asked.iter() {
            let slot = *self.by_address.get(&address).ok_or(Assignment::AskedUnknown(address))?;
            match self.slots.get(slot) {
                Some(Entry { state: State::Free, nic, .. }) => on = self.groups.iter().find(|group| group.nic == *nic),
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
    fn choose_resting(&self, families: Families, now: Moment) -> Result<[Option<Slot>; 2], Assignment> {
        let floor = self.rest.floor;
        let resting = |nic: u32, v4: bool, fit: &dyn Fn(&State) -> bool| {
            self.cooling.slots(&self.slots).find(|&slot| {
                self.slots.get(slot).is_some_and(|entry| {
                    let rested = !entry.is_withdrawn() && entry.state.has_rested(floor, now) && fit(&entry.state);
                    rested && entry.nic == nic && entry.address.is_ipv4() == v4
                })
            })
        };
        let choose = |fit: &dyn Fn(&State) -> bool| {
            self.groups.iter().find_map(|group| {
                let v4 = group.v4.head().or_else(|| families.v4.then(|| resting(group.nic, true, fit)).flatten());
                let v6 = group.v6.head().or_else(|| families.v6.then(|| resting(group.nic, false, fit)).flatten());
                pair(families, v4, v6)
            })
        };
        if let Some(slots) = choose(&|state| state.is_swept(floor)) {
            return Ok(slots);
        }
        Err(if choose(&|_| true).is_some() { Assignment::Unswept } else { Assignment::Exhausted(self.counts()) })
    }
}

/// The places for the wanted families, if there is one for each.
fn pair(families: Families, v4: Option<Slot>, v6: Option<Slot>) -> Option<[Option<Slot>; 2]> {
    let v4 = v4.filter(|_| families.v4);
    let v6 = v6.filter(|_| families.v6);
    let complete = v4.is_some() == families.v4 && v6.is_some() == families.v6;
    (complete && (v4.is_some() || v6.is_some())).then_some([v4, v6])
}
