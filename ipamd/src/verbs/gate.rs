//! One call at a time for one attachment; calls for different attachments do not meet.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use dotfour_protocol::AttachmentKey;

/// The attachments that some call is working on.
#[derive(Debug, Default)]
pub(super) struct Gate {
    inside: Mutex<Inside>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct Inside {
    busy: HashSet<Arc<AttachmentKey>, foldhash::fast::RandomState>,
    /// How many calls wait. Mostly none, and then nobody has to be woken, which is a system call.
    waiting: usize,
}

/// The right to work on an attachment, until it is dropped.
pub(super) struct Entered<'g> {
    gate: &'g Gate,
    key: Arc<AttachmentKey>,
}

impl Gate {
    /// Waits until no other call works on this attachment.
    pub(super) fn enter(&self, key: &Arc<AttachmentKey>) -> Entered<'_> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        while !inside.busy.insert(Arc::clone(key)) {
            inside.waiting += 1;
            inside = self.left.wait(inside).unwrap_or_else(PoisonError::into_inner);
            inside.waiting -= 1;
        }
        Entered { gate: self, key: Arc::clone(key) }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut inside = self.gate.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.busy.remove(&self.key);
        if inside.waiting > 0 {
            self.gate.left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;

    fn key(id: &str) -> Arc<AttachmentKey> {
        Arc::new(AttachmentKey { network: "azure".into(), container_id: id.into(), ifname: "eth0".into() })
    }

    #[test]
    fn calls_for_one_attachment_are_serial() {
        let gate = Gate::default();
        let inside = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _entered = gate.enter(&key("c1"));
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn calls_for_different_attachments_do_not_wait() {
        let gate = Gate::default();
        let _one = gate.enter(&key("c1"));
        let _other = gate.enter(&key("c2"));
    }
}
