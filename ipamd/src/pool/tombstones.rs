//! DELs that are remembered, because an ADD they end may still be on its way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dotfour_protocol::AttachmentKey;

use super::{Map, Moment};

/// How long a DEL is remembered. An ADD's caller gives up after 20 s; what comes later than this was stuck for longer than
/// any runtime waits.
const REMEMBERED: Duration = Duration::from_secs(600);

/// How many are remembered; the oldest go first. Far above what a node of 250 pods sees in ten minutes.
const MOST: usize = 4096;

/// The DELs, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(super) struct Tombstones {
    ended: Map<Arc<AttachmentKey>, Moment>,
    order: VecDeque<(Moment, Arc<AttachmentKey>)>,
}

impl Tombstones {
    /// Remembers that a DEL came for this key.
    pub(super) fn insert(&mut self, key: &Arc<AttachmentKey>, at: Moment, now: Moment) {
        while let Some((oldest, _)) = self.order.front()
            && (self.order.len() >= MOST || oldest.saturating_add(REMEMBERED) <= now)
        {
            if let Some((at, key)) = self.order.pop_front()
                && self.ended.get(&key) == Some(&at)
            {
                self.ended.remove(&key);
            }
        }
        let later = self.of(key).unwrap_or_default().max(at);
        self.ended.insert(Arc::clone(key), later);
        self.order.push_back((later, Arc::clone(key)));
    }

    /// The moment of the latest DEL of this key that is remembered. It ends an ADD that was not started later.
    pub(super) fn of(&self, key: &AttachmentKey) -> Option<Moment> {
        self.ended.get(key).copied()
    }

    pub(super) fn remove(&mut self, key: &AttachmentKey) {
        self.ended.remove(key);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<AttachmentKey>, Moment)> {
        self.ended.iter().map(|(key, at)| (key, *at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Arc<AttachmentKey> {
        Arc::new(AttachmentKey { network: "azure".into(), container_id: format!("c{n}"), ifname: "eth0".into() })
    }

    #[test]
    fn a_del_is_remembered_of_its_key_until_that_is_taken_out() {
        let mut tombstones = Tombstones::default();
        let at = Duration::from_secs(5);
        tombstones.insert(&key(1), at, at);
        assert_eq!((tombstones.of(&key(1)), tombstones.of(&key(2))), (Some(at), None));
        tombstones.remove(&key(1));
        assert_eq!(tombstones.of(&key(1)), None);
    }

    #[test]
    fn they_are_forgotten_by_age_and_by_number() {
        let mut tombstones = Tombstones::default();
        tombstones.insert(&key(0), Duration::ZERO, Duration::ZERO);
        tombstones.insert(&key(1), REMEMBERED, REMEMBERED);
        assert_eq!(tombstones.iter().count(), 1);
        for n in 2..MOST + 10 {
            tombstones.insert(&key(n), REMEMBERED, REMEMBERED);
        }
        assert_eq!(tombstones.iter().count(), MOST);
        assert_eq!(tombstones.order.len(), MOST);
    }

    #[test]
    fn a_repeated_del_counts_by_its_latest_moment() {
        let mut tombstones = Tombstones::default();
        tombstones.insert(&key(1), Duration::from_secs(9), Duration::from_secs(9));
        tombstones.insert(&key(1), Duration::from_secs(3), Duration::from_secs(10));
        assert_eq!(tombstones.of(&key(1)), Some(Duration::from_secs(9)));
    }
}
