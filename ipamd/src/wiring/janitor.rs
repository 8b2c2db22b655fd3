//! Deletes condemned links, many at a time and behind everybody's back.
//!
//! Deleting a veth waits some 20 ms for a grace period of the kernel's, whether for one link or for a group. So DEL only
//! sets its link down and puts it into a condemned group, and this thread deletes whole groups.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dotfour_datapath::{Batch, Socket};
use rustix::io::Errno;
use tracing::{debug, warn};

use super::names::CONDEMNED_GROUPS;

/// How many links share a group. Deleting 16 stalls every other user of the kernel's network lock for 7 to 11 ms,
/// 32 for 11 to 12, 64 for 19.
const LINKS_PER_GROUP: u32 = 16;

/// How long to gather after the first condemned link, so that a burst is buried in few groups.
const GATHER: Duration = Duration::from_millis(100);

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
    while let Ok(first) = announced.recv() {
        thread::sleep(GATHER);
        let mut groups = BTreeSet::from([first]);
        groups.extend(announced.try_iter());
        for group in groups {
            let mut batch = Batch::new();
            batch.delete_group("delete condemned links", group);
            match socket.run(batch) {
                Ok(()) => debug!(group, "condemned links deleted"),
                // Their pods' namespaces died first and took them along.
                Err(e) if matches!(e.errno(), Some(Errno::NODEV | Errno::SRCH)) => {}
                Err(e) => warn!(group, "condemned links stay: {e}"),
            }
            thread::sleep(PAUSE);
        }
    }
}
