//! A runtime of many callers: pods come and go through the real plugin, whatever happens to the daemon meanwhile.
//!
//! It does what a kubelet and containerd do: every sandbox has an id and a namespace of its own, a failed ADD is followed
//! by a DEL, a DEL is repeated until it succeeds and sometimes once more, and a pod that is started again gets a new
//! sandbox, sometimes before its old one is gone. Now and then it kills a plugin, or a sandbox vanishes without a DEL, as
//! after a crash of the runtime. It keeps what it believes of each, and notices by itself when an address is given to two
//! pods, or again before its time.

mod book;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dotfour_rig::error::with_causes;
use dotfour_rig::runtime::{Answer, CallError, Calls, Verb};
use dotfour_rig::{Network, Node, Pod, Runtime};
use fastrand::Rng;
use serde_json::Value;

pub use self::book::Tally;
use self::book::{Book, Sandbox};
use crate::views::Belief;

/// How long a caller waits before it tries again.
const RETRY: Duration = Duration::from_millis(5);
/// How long a DEL may be refused before that is a defect.
const DEL_PATIENCE: Duration = Duration::from_secs(30);
/// How many pod names there are for each sandbox: so few that now and then two have the same one.
const NAMES_PER_SANDBOX: usize = 8;
/// One sandbox in so many vanishes without a DEL.
const VANISHING: u32 = 16;
/// One DEL in so many is repeated.
const REPEATED: u32 = 8;
/// One call in so many has its plugin killed, if it lives as long as up to [`KILLED_WITHIN`].
const KILLED: u32 = 16;
const KILLED_WITHIN: Duration = Duration::from_millis(4);
/// One ended sandbox in so many keeps its namespace until [`Driver::bury`], so that it is DEL that has ended it.
const KEPT: u32 = 2;
/// Causes after which a runtime is to try again: the daemon is away, or no address is free.
const PASSING: [&str; 2] = ["daemon-unavailable", "pool-exhausted"];

/// A runtime on a node. Its callers are threads of whoever made it: see [`Driver::call`].
#[derive(Debug)]
pub struct Driver<'a> {
    node: &'a Node,
    network: &'a Network,
    limits: Limits,
    book: Mutex<Book>,
    changed: Condvar,
}

/// What the driver keeps to, and watches.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most sandboxes at once.
    pub sandboxes: usize,
    /// The shortest time from an address's release to its next use.
    pub floor: Duration,
}

/// What a caller is to do next.
enum Task {
    Start(String),
    End(Sandbox),
    Vanish(Sandbox),
    Rest,
}

impl<'a> Driver<'a> {
    /// A runtime without sandboxes and without callers, that aims at none.
    pub fn new(node: &'a Node, network: &'a Network, limits: Limits) -> Self {
        Driver { node, network, limits, book: Mutex::default(), changed: Condvar::new() }
    }

    /// Is one caller, until [`Driver::stop`].
    pub fn call(&self, mut rng: Rng) {
        self.lock().callers += 1;
        let work = |calls: &Calls<'_>| {
            while let Some(task) = self.next_task(&mut rng) {
                match task {
                    Task::Start(name) => self.start(calls, &name, &mut rng),
                    Task::End(sandbox) => self.end(calls, &sandbox, &mut rng),
                    Task::Vanish(sandbox) => self.vanish(sandbox),
                    Task::Rest => std::thread::sleep(RETRY),
                }
            }
        };
        if let Err(e) = Runtime::new(self.node, self.network).enter(work) {
            self.defect(format!("a caller cannot enter the node: {e}"));
        }
        self.lock().callers -= 1;
        self.changed.notify_all();
    }

    /// Sets how many sandboxes the callers aim at; at most the limit.
    pub fn aim_at(&self, sandboxes: usize) {
        self.lock().wanted = sandboxes.min(self.limits.sandboxes);
    }

    /// Waits until no call is under way, and lets none be made until [`Driver::resume`].
    pub fn pause(&self) {
        let mut book = self.lock();
        book.paused = true;
        while book.idle < book.callers {
            book = self.changed.wait(book).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.lock().paused = false;
        self.changed.notify_all();
    }

    /// Ends all sandboxes; true if none is left after `patience`.
    pub fn end_all(&self, patience: Duration) -> bool {
        self.aim_at(0);
        let begun = Instant::now();
        loop {
            let book = self.lock();
            let left = book.sandboxes.len() + book.coming;
            drop(book);
            if left == 0 || begun.elapsed() > patience {
                return left == 0;
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Lets all callers end after what they are doing, a pause or not.
    pub fn stop(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    /// Ends the namespaces of sandboxes that DEL has ended.
    pub fn bury(&self) {
        let kept = std::mem::take(&mut self.lock().kept);
        drop(kept);
    }

    /// All sandboxes and what is believed of them.
    pub fn beliefs(&self) -> Vec<(Arc<Pod>, Belief)> {
        self.lock().sandboxes.values().map(|sandbox| (Arc::clone(&sandbox.pod), sandbox.belief.clone())).collect()
    }

    /// What has happened so far.
    pub fn tally(&self) -> Tally {
        self.lock().tally.clone()
    }

    /// What should never have happened, a sentence each.
    pub fn defects(&self) -> Vec<String> {
        self.lock().defects.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn defect(&self, sentence: String) {
        self.lock().defects.push(sentence);
    }

    /// Waits for the end of a pause. `None`: all is over.
    fn next_task(&self, rng: &mut Rng) -> Option<Task> {
        let mut book = self.lock();
        if book.paused && !book.over {
            book.idle += 1;
            // Once: whoever woke the others each time would keep all of them awake.
            self.changed.notify_all();
            while book.paused && !book.over {
                book = self.changed.wait(book).unwrap_or_else(PoisonError::into_inner);
            }
            book.idle -= 1;
        }
        if book.over {
            return None;
        }
        let there = book.sandboxes.len() + book.coming;
        if there < book.wanted && rng.u32(..4) != 0 {
            book.coming += 1;
            book.tally.most = book.tally.most.max(there + 1);
            return Some(Task::Start(format!("web-{}", rng.usize(..self.limits.sandboxes * NAMES_PER_SANDBOX))));
        }
        Some(book.take_any(rng).map_or(Task::Rest, |sandbox| {
            if rng.u32(..VANISHING) == 0 { Task::Vanish(sandbox) } else { Task::End(sandbox) }
        }))
    }

    /// A sandbox from its beginning until it is up, or ended again because ADD failed.
    fn start(&self, calls: &Calls<'_>, name: &str, rng: &mut Rng) {
        let made = Pod::create(self.node, "default", name).map(Arc::new);
        let pod = {
            let mut book = self.lock();
            book.coming -= 1;
            match made {
                Ok(pod) => {
                    let sandbox = Sandbox { pod: Arc::clone(&pod), belief: Belief::InDoubt, result: None };
                    book.sandboxes.insert(pod.container_id.clone(), sandbox);
                    pod
                }
                Err(e) => {
                    book.defects.push(format!("a sandbox cannot be made: {}", with_causes(&e)));
                    return;
                }
            }
        };
        match self.make(calls, Verb::Add, &pod, None, rng) {
            Ok(answer) => self.lock().is_up(&pod, answer, self.limits.floor),
            Err(e) => {
                self.failed("ADD", &e);
                let sandbox = Sandbox { pod, belief: Belief::InDoubt, result: None };
                self.end(calls, &sandbox, rng);
                std::thread::sleep(RETRY);
            }
        }
    }

    /// Ends a sandbox with DEL, however often that takes.
    fn end(&self, calls: &Calls<'_>, sandbox: &Sandbox, rng: &mut Rng) {
        let begun = Instant::now();
        let mut again = rng.u32(..REPEATED) == 0;
        loop {
            match self.make(calls, Verb::Del, &sandbox.pod, sandbox.result.as_ref(), rng) {
                Ok(_) if again => again = false,
                Ok(_) => break,
                Err(e) => {
                    self.failed("DEL", &e);
                    if self.lock().over {
                        return;
                    }
                    if begun.elapsed() > DEL_PATIENCE {
                        self.defect(format!("DEL was refused for {DEL_PATIENCE:?}: {e}"));
                        break;
                    }
                    std::thread::sleep(RETRY);
                }
            }
        }
        let keep = rng.u32(..KEPT) == 0;
        let ended = {
            let mut book = self.lock();
            book.tally.dels += 1;
            let ended = book.sandboxes.remove(&sandbox.pod.container_id);
            book.kept.extend(ended.as_ref().filter(|_| keep).map(|ended| Arc::clone(&ended.pod)));
            ended
        };
        // Not under the lock, for the namespace may end with it.
        drop(ended);
    }

    /// Lets the namespace end, which is all that there is to be noticed of it.
    fn vanish(&self, sandbox: Sandbox) {
        let mut book = self.lock();
        book.tally.vanished += 1;
        let ours = book.sandboxes.remove(&sandbox.pod.container_id);
        drop(book);
        drop((ours, sandbox));
    }

    /// Makes a call; now and then kills its plugin.
    fn make(
        &self,
        calls: &Calls<'_>,
        verb: Verb,
        pod: &Pod,
        result: Option<&Value>,
        rng: &mut Rng,
    ) -> Result<Answer, CallError> {
        let running = calls.start(verb, pod, result)?;
        if rng.u32(..KILLED) != 0 {
            return running.finish();
        }
        std::thread::sleep(KILLED_WITHIN.mul_f64(rng.f64()));
        running.kill()
    }

    /// Counts a failed call. One that a runtime cannot expect is a defect.
    fn failed(&self, verb: &'static str, error: &CallError) {
        if error.killed() {
            self.lock().tally.killed += 1;
            return;
        }
        let cause = error.cni().and_then(|error| error.msg.split(':').next()).unwrap_or("no error object").to_owned();
        let mut book = self.lock();
        if !PASSING.contains(&cause.as_str()) {
            book.defects.push(format!("a call failed: {}", with_causes(error)));
        }
        *book.tally.failed.entry((verb, cause)).or_default() += 1;
    }
}
