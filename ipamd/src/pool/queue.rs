//! A slab of entries, and queues threaded through it, so that an entry leaves the middle of a queue in constant time.

/// Where an entry stands in the queue it is in.
#[derive(Debug, Clone, Copy, Default)]
struct Links {
    before: Option<usize>,
    behind: Option<usize>,
}

/// Entries with stable places. A place that was given up is used again.
#[derive(Debug, Clone)]
pub(super) struct Slots<T> {
    entries: Vec<Option<(T, Links)>>,
    vacant: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { entries: Vec::new(), vacant: Vec::new() }
    }
}

impl<T> Slots<T> {
    pub(super) fn insert(&mut self, value: T) -> usize {
        let filled = Some((value, Links::default()));
        if let Some(slot) = self.vacant.pop()
            && let Some(place) = self.entries.get_mut(slot)
        {
            *place = filled;
            return slot;
        }
        self.entries.push(filled);
        self.entries.len() - 1
    }

    /// The entry must be in no queue any more.
    pub(super) fn remove(&mut self, slot: usize) -> Option<T> {
        let (value, _) = self.entries.get_mut(slot)?.take()?;
        self.vacant.push(slot);
        Some(value)
    }

    pub(super) fn get(&self, slot: usize) -> Option<&T> {
        self.entries.get(slot)?.as_ref().map(|(value, _)| value)
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        self.entries.get_mut(slot)?.as_mut().map(|(value, _)| value)
    }

    /// All places, vacant ones included.
    pub(super) fn indices(&self) -> std::ops::Range<usize> {
        0..self.entries.len()
    }

    fn links_mut(&mut self, slot: usize) -> Option<&mut Links> {
        self.entries.get_mut(slot)?.as_mut().map(|(_, links)| links)
    }

    fn links(&self, slot: usize) -> Option<Links> {
        self.entries.get(slot)?.as_ref().map(|(_, links)| *links)
    }
}

/// First in, first out; the order lives in the slots.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    head: Option<usize>,
    tail: Option<usize>,
    len: usize,
}

impl Queue {
    pub(super) fn head(&self) -> Option<usize> {
        self.head
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The entry must be in no queue.
    pub(super) fn push_back<T>(&mut self, slots: &mut Slots<T>, slot: usize) {
        let before = self.tail.replace(slot);
        match before.and_then(|tail| slots.links_mut(tail)) {
            Some(links) => links.behind = Some(slot),
            None => self.head = Some(slot),
        }
        if let Some(links) = slots.links_mut(slot) {
            *links = Links { before, behind: None };
        }
        self.len += 1;
    }

    /// The entry must be in this queue.
    pub(super) fn unlink<T>(&mut self, slots: &mut Slots<T>, slot: usize) {
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
    pub(super) fn slots<'a, T>(&self, slots: &'a Slots<T>) -> impl Iterator<Item = usize> + 'a {
        std::iter::successors(self.head, |&slot| slots.links(slot).and_then(|links| links.behind))
    }

    /// The entries in order.
    pub(super) fn iter<'a, T>(&self, slots: &'a Slots<T>) -> impl Iterator<Item = &'a T> + 'a {
        self.slots(slots).filter_map(|slot| slots.get(slot))
    }

    /// The places in order; panics if the queue is not as long as its count says.
    #[cfg(test)]
    pub(super) fn walk<T>(&self, slots: &Slots<T>) -> Vec<usize> {
        let order: Vec<usize> = self.slots(slots).take(self.len + 1).collect();
        assert_eq!(order.len(), self.len, "a queue and its count disagree");
        assert_eq!(order.last().copied(), self.tail);
        order
    }
}
