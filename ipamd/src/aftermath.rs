//! What is left to do of calls that are answered: to count them, lines in the log, links to be buried, descriptors to be closed, and
//! routes that the kernel makes for new links and nobody needs.
//!
//! A thread of its own does it a few milliseconds later, for all calls together. Right behind its answer, the thread that has
//! served a call would do it in the plugin's way: where both are on one processor, the plugin ends only afterwards, and the
//! runtime waits for that. To wake somebody for it would be no better. So a timer does, which is set once for all that comes
//! until it is over.

use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tracing::debug;

use crate::caller::Caller;
use crate::metrics::Verb;
use crate::verbs::{Left, Node};
use crate::wiring::Wirer;
use crate::wiring::pod::LinkIndices;

/// How long after the first of them, in nanoseconds. More than a tick of the usual kernels (4 ms), so that the kernel need not set
/// the processor's own clock for it, which takes an exit from a virtual machine.
const DELAY_NS: i64 = 5_000_000;

/// How many answered calls may be left. Each holds three descriptors, and a log that nobody reads keeps the thread from doing
/// anything; 2,000 calls a second leave ten.
const MOST: usize = 100;

/// Whom the rests of calls are left to.
#[derive(Debug)]
pub struct Aftermath {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// One of those who leave something.
#[derive(Debug, Clone)]
pub struct Leaver(Arc<Shared>);

/// Somebody who wants nothing to be left, as one does who reads the counts. Keeps nobody alive.
#[derive(Debug, Clone)]
pub struct Settler(Weak<Shared>);

#[derive(Debug)]
struct Shared {
    node: Arc<Node>,
    timer: OwnedFd,
    wirer: Mutex<Wirer>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    rests: Vec<Rest>,
    ended: bool,
}

/// An answered call.
#[derive(Debug)]
struct Rest {
    verb: Verb,
    /// Its connection is closed with it.
    caller: Caller,
    left: Left,
}

impl Aftermath {
    /// Starts the thread.
    ///
    /// # Errors
    /// There is no timer or no thread to be had.
    pub fn start(node: &Arc<Node>, indices: &Arc<LinkIndices>) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        let wirer = Mutex::new(Wirer::new(Arc::clone(indices))?);
        let shared = Arc::new(Shared { node: Arc::clone(node), timer, wirer, inner: Mutex::default() });
        let worker = Arc::clone(&shared);
        let thread = thread::Builder::new().name("aftermath".into()).spawn(move || worker.work())?;
        Ok(Aftermath { shared, thread })
    }

    /// For a thread that serves calls.
    pub fn leaver(&self) -> Leaver {
        Leaver(Arc::clone(&self.shared))
    }

    /// For those who read what has become of calls.
    pub fn settler(&self) -> Settler {
        Settler(Arc::downgrade(&self.shared))
    }

    /// Does what is left by now, and ends. What is left later stays undone, so nobody must be serving any more.
    ///
    /// # Errors
    /// The thread had panicked.
    pub fn end(self) -> thread::Result<()> {
        self.shared.lock().ended = true;
        self.shared.settle_in(1);
        self.thread.join()
    }
}

impl Leaver {
    /// Leaves an answered call. Wakes nobody. Where too many are left already, nobody is in a hurry, and they are settled here.
    pub fn leave(&self, verb: Verb, caller: Caller, left: Left) {
        let mut inner = self.0.lock();
        inner.rests.push(Rest { verb, caller, left });
        let waiting = inner.rests.len();
        drop(inner);
        match waiting {
            1 => self.0.settle_in(DELAY_NS),
            ..=MOST => {}
            _ => self.0.settle_now(),
        }
    }
}

impl Settler {
    /// Does at once what is left by now.
    pub fn settle(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.settle_now();
        }
    }
}

impl Shared {
    fn work(&self) {
        let wired: Vec<u32> = self.node.ledger.pool().leases().filter_map(|(_, lease)| lease.link_index()).collect();
        self.remove_multicast_routes(wired);
        // Two lists in turn, so that none has to grow anew.
        let mut rests = Vec::new();
        loop {
            self.wait();
            let ended = {
                let mut inner = self.lock();
                mem::swap(&mut inner.rests, &mut rests);
                inner.ended
            };
            self.settle(&mut rests);
            if ended {
                return;
            }
        }
    }

    fn settle(&self, rests: &mut Vec<Rest>) {
        let mut new_links = Vec::new();
        for Rest { verb, caller, left } in rests.drain(..) {
            self.node.metrics.call(verb, caller.outcome(), &caller.phases);
            new_links.extend(left.new_link());
            left.settle(&self.node.janitor);
        }
        self.remove_multicast_routes(new_links);
    }

    fn remove_multicast_routes(&self, links: Vec<u32>) {
        if links.is_empty() {
            return;
        }
        let mut wirer = self.wirer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = wirer.remove_multicast_routes(links) {
            debug!("host links keep their multicast routes: {e}");
        }
    }

    fn settle_now(&self) {
        let mut rests = mem::take(&mut self.lock().rests);
        self.settle(&mut rests);
    }

    /// Sets the timer. Its kernel object exists and the time is valid, so that it cannot fail; should it, nothing must be left
    /// undone.
    fn settle_in(&self, nanoseconds: i64) {
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: never, it_value: Timespec { tv_nsec: nanoseconds, ..never } };
        if timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).is_err() {
            self.settle_now();
        }
    }

    /// Returns when the timer has run down.
    fn wait(&self) {
        let mut times = [0; 8];
        // A descriptor that is read in vain for another reason than a signal would only make this thread look too early.
        let _ = rustix::io::retry_on_intr(|| rustix::io::read(&self.timer, &mut times));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
