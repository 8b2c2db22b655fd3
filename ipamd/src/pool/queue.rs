//! A slab of entries, and queues threaded through it, so that an entry leaves the middle of a queue in constant time.

use std::num::NonZeroU32;

/// An entry's place, stable while the entry is there. Four bytes, also where there may be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Slot(NonZeroU32);

impl Slot {
    /// The place with this index. No memory holds as many places as would be too many.
    fn at(index: usize) -> Slot {
        Slot(NonZeroU32::MIN.saturating_add(u32::try_from(index).unwrap_or(u32::MAX)))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Where an entry stands in the queue it is in.
#[derive(Debug, Clone, Copy, Default)]
struct Links {
    before: Option<Slot>,
    behind: Option<Slot>,
}

/// An entry with its links: one line of a processor's cache, so that a large pool costs one miss where a small one has
/// none.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub(super) struct Place<T>(Option<(T, Links)>);

/// Entries with stable places. A place that was given up is used again.
#[derive(Debug, Clone)]
pub(super) struct Slots<T> {
    places: Vec<Place<T>>,
    vacant: Vec<Slot>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { places: Vec::new(), vacant: Vec::new() }
    }
}

impl<T> Slots<T> {
    pub(super) fn insert(&mut self, value: T) -> Slot {
        let filled = Place(Some((value, Links::default())));
        if let Some(slot) = self.vacant.pop()
            && let Some(place) = self.places.get_mut(slot.index())
        {
            *place = filled;
            return slot;
        }
        let slot = Slot::at(self.places.len());
        self.places.push(filled);
        slot
    }

    /// The entry must be in no queue any more.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<T> {
        let (value, _) = self.places.get_mut(slot.index())?.0.take()?;
        self.vacant.push(slot);
        Some(value)
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&T> {
        self.places.get(slot.index())?.0.as_ref().map(|(value, _)| value)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.places.get_mut(slot.index())?.0.as_mut().map(|(value, _)| value)
    }

    /// All places, vacant ones included.
    pub(super) fn all(&self) -> impl Iterator<Item = Slot> + use<T> {
        (0..self.places.len()).map(Slot::at)
    }

    fn links_mut(&mut self, slot: Slot) -> Option<&mut Links> {
        self.places.get_mut(slot.index())?.0.as_mut().map(|(_, links)| links)
    }

    fn links(&self, slot: Slot) -> Option<Links> {
        self.places.get(slot.index())?.0.as_ref().map(|(_, links)| *links)
    }
}

/// First in, first out; the order lives in the slots.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    head: Option<Slot>,
    tail: Option<Slot>,
    len: usize,
}

impl Queue {
    pub(super) fn head(&self) -> Option<Slot> {
        self.head
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The entry must be in no queue.
    pub(super) fn push_back<T>(&mut self, slots: &mut Slots<T>, slot: Slot) {
        self.insert_behind(slots, slot, self.tail);
    }

    /// Behind all entries but those that are to come after it, which are looked at from the tail. The entry must be in no
    /// queue.
    pub(super) fn insert_before<T>(&mut self, slots: &mut Slots<T>, slot: Slot, comes_after: impl Fn(&T) -> bool) {
        let mut before = self.tail;
        while let Some(place) = before
            && slots.get(place).is_some_and(&comes_after)
        {
            before = slots.links(place).and_then(|links| links.before);
        }
        self.insert_behind(slots, slot, before);
    }

    /// At the head where there is none `before` it.
    fn insert_behind<T>(&mut self, slots: &mut Slots<T>, slot: Slot, before: Option<Slot>) {
        let behind = match before {
            Some(before) => slots.links_mut(before).and_then(|links| links.behind.replace(slot)),
            None => self.head.replace(slot),
        };
        match behind.and_then(|behind| slots.links_mut(behind)) {
            Some(links) => links.before = Some(slot),
            None => self.tail = Some(slot),
        }
        if let Some(links) = slots.links_mut(slot) {
            *links = Links { before, behind };
        }
        self.len += 1;
    }

    /// The entry must be in this queue.
    pub(super) fn unlink<T>(&mut self, slots: &mut Slots<T>, slot: Slot) {
        let Some(Links { before, behind }) = slots.links_mut(slot).map(std::mem::take) else { return };
        match before.and_then(|slot| slots.links_mut(slot)) {
            Some(links) => links.behind = behind,
            None => self.head = behind,
        }
        match behind.and_then(|slot| slots.links_mut(slot)) {
            Some(links) => links.before = before,
            None => self.tail = before,
        }
        self.len -= 1;
    }

    /// The places in order.
    pub(super) fn slots<'a, T>(&self, slots: &'a Slots<T>) -> impl Iterator<Item = Slot> + 'a {
        std::iter::successors(self.head, |&slot| slots.links(slot).and_then(|links| links.behind))
    }

    /// The entries in order.
    pub(super) fn iter<'a, T>(&self, slots: &'a Slots<T>) -> impl Iterator<Item = &'a T> + 'a {
        self.slots(slots).filter_map(|slot| slots.get(slot))
    }

    /// The places in order; panics if the queue is not as long as its count says.
    #[cfg(test)]
    pub(super) fn walk<T>(&self, slots: &Slots<T>) -> Vec<Slot> {
        let order: Vec<Slot> = self.slots(slots).take(self.len + 1).collect();
        assert_eq!(order.len(), self.len, "a queue and its count disagree");
        assert_eq!(order.last().copied(), self.tail);
        order
    }
}
