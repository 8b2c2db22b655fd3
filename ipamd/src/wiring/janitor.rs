//! Deletes condemned links, many at a time and behind everybody's back.
//!
//! Deleting a veth waits some 20 ms for a grace period of the kernel's, whether for one link or for a group. So DEL only
//! takes the route away and puts the link into a condemned group, and this thread deletes whole groups.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dotfour_datapath::{Batch, Socket};
use rustix::io::Errno;
use tracing::{debug, warn};

use super::names::CONDEMNED_GROUPS;

/// How many links share a group. Deleting 16 stalls every other user of the kernel's network lock for 7 to 11 ms,
/// 32 for 11 to 12, 64 for 19.
const LINKS_PER_GROUP: u32 = 16;

/// How long to gather after the first condemned link, so that a burst is buried in few groups.
const GATHER: Duration = Duration::from_millis(100);

/// How long to wait before groups are tried again that could not be deleted.
const RETRY: Duration = Duration::from_secs(5);

/// How long to leave the kernel's network lock to the verbs between two groups.
const PAUSE: Duration = Duration::from_millis(2);

/// Hands out condemned groups and buries them.
#[derive(Debug)]
pub struct Janitor {
    condemned: AtomicU32,
    announce: Sender<u32>,
}

impl Janitor {
    /// Starts the thread, which deletes with `socket`. It ends, with everything announced deleted, once the janitor is
    /// dropped.
    pub fn start(socket: Socket) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (announce, announced) = mpsc::channel();
        let thread = thread::Builder::new().name("janitor".into()).spawn(move || work(socket, &announced))?;
        Ok((Janitor { condemned: AtomicU32::new(0), announce }, thread))
    }

    /// The group for the next condemned link.
    pub fn group(&self) -> u32 {
        let number = self.condemned.fetch_add(1, Ordering::Relaxed) / LINKS_PER_GROUP;
        let groups = CONDEMNED_GROUPS.end() - CONDEMNED_GROUPS.start() + 1;
        CONDEMNED_GROUPS.start() + number % groups
    }

    /// Says that a group has links in it. To be called after the link was put there; repeating it does no harm.
    pub fn bury(&self, group: u32) {
        // The thread ends only after this sender is gone.
        let _ = self.announce.send(group);
    }
}

fn work(mut socket: Socket, announced: &Receiver<u32>) {
    let (mut refused, mut again_at) = (BTreeSet::new(), Instant::now());
    loop {
        let patience =
            if refused.is_empty() { Duration::MAX } else { again_at.saturating_duration_since(Instant::now()) };
        let mut groups = match announced.recv_timeout(patience) {
            Ok(group) => BTreeSet::from([group]),
            Err(RecvTimeoutError::Timeout) => std::mem::take(&mut refused),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        thread::sleep(GATHER);
        groups.extend(announced.try_iter());
        let still = bury(&mut socket, groups);
        if refused.is_empty() {
            again_at = Instant::now() + RETRY;
        }
        refused.extend(still);
    }
}

/// Deletes the links of these groups. Returns the groups whose links the kernel would not delete.
fn bury(socket: &mut Socket, mut groups: BTreeSet<u32>) -> BTreeSet<u32> {
    groups.retain(|&group| {
        let mut batch = Batch::new();
        batch.delete_group("delete condemned links", group);
        let outcome = socket.run(batch);
        thread::sleep(PAUSE);
        match outcome {
            Ok(()) => debug!(group, "condemned links deleted"),
            // Their pods' namespaces died first and took them along.
            Err(e) if matches!(e.errno(), Some(Errno::NODEV | Errno::SRCH)) => {}
            Err(e) => {
                warn!(group, "condemned links stay for now: {e}");
                return true;
            }
        }
        false
    });
    groups
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CapabilitySet, CapabilitySets};

    use super::*;

    #[test]
    fn groups_that_the_kernel_does_not_delete_are_kept_for_the_next_time() {
        let group = *CONDEMNED_GROUPS.end();
        let mut socket = Socket::open().unwrap();
        // There are none, which is as good as deleted; whoever may not ask is told nothing of that.
        assert_eq!(bury(&mut socket, BTreeSet::from([group])), BTreeSet::new());
        let as_nobody = thread::spawn(move || {
            let may = rustix::thread::capabilities(None).unwrap();
            let less = CapabilitySets { effective: may.effective - CapabilitySet::NET_ADMIN, ..may };
            rustix::thread::set_capabilities(None, less).unwrap();
            bury(&mut socket, BTreeSet::from([group]))
        });
        assert_eq!(as_nobody.join().unwrap(), BTreeSet::from([group]));
    }
}
