//! A container runtime's calls to CNI plugins, exactly as libcni makes them.
//!
//! Every plugin of a network's list is a process of its own: environment, one JSON object on standard input, one on
//! standard output (CNI specification 1.1, sections 3 and 4). Each call is timed as its caller feels it, from before
//! the process is made until it is reaped. Calls are made from a thread that has entered the node's namespace
//! beforehand, so that making the process costs what it costs a runtime (posix_spawn, nothing between fork and exec).

mod call;
mod network;

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

pub use self::call::{CallError, CniError, Running, Verb};
pub use self::network::{Network, Plugin};
use crate::{Node, Pod};

/// The runtime on one node, for one network.
#[derive(Debug)]
pub struct Runtime<'a> {
    node: &'a Node,
    network: &'a Network,
}

/// A call that succeeded.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What the last plugin called printed: the CNI result of an ADD; `Null` where it printed nothing.
    pub result: Value,
    /// From before the first process was made until the last was reaped.
    pub took: Duration,
}

impl Answer {
    /// The pod's first IPv4 address, without its prefix length.
    pub fn ipv4(&self) -> Option<std::net::Ipv4Addr> {
        self.first()
    }

    /// The pod's first IPv6 address, without its prefix length.
    pub fn ipv6(&self) -> Option<std::net::Ipv6Addr> {
        self.first()
    }

    fn first<A: std::str::FromStr>(&self) -> Option<A> {
        self.result.get("ips")?.as_array()?.iter().find_map(|ip| {
            let text = ip.get("address")?.as_str()?;
            text.split('/').next()?.parse().ok()
        })
    }
}

/// The right to call plugins from inside the node's namespace, on the thread that has it.
#[derive(Debug)]
pub struct Calls<'a> {
    network: &'a Network,
    // Not to be taken to another thread, which would be in another namespace.
    _here: std::marker::PhantomData<*const ()>,
}

impl<'a> Runtime<'a> {
    /// The runtime on a node.
    pub fn new(node: &'a Node, network: &'a Network) -> Self {
        Runtime { node, network }
    }

    /// Runs `work` on a thread inside the node's namespace, for many calls in a row.
    pub fn enter<T: Send>(&self, work: impl FnOnce(&Calls<'_>) -> T + Send) -> io::Result<T> {
        let network = self.network;
        self.node.netns().run(move || work(&Calls { network, _here: std::marker::PhantomData }))
    }

    /// One ADD.
    pub fn add(&self, pod: &Pod) -> Result<Answer, CallError> {
        self.enter(|calls| calls.add(pod)).map_err(CallError::Enter)?
    }

    /// One DEL. `result` is what the ADD returned, where the runtime still knows it.
    pub fn del(&self, pod: &Pod, result: Option<&Value>) -> Result<Answer, CallError> {
        self.enter(|calls| calls.del(pod, result)).map_err(CallError::Enter)?
    }

    /// Does `work` for each of `items`, from `callers` threads at once, as a kubelet starting many pods. The answers
    /// are in the order of the items.
    pub fn in_parallel<I: Sync, T: Send>(
        &self,
        callers: usize,
        items: &[I],
        work: impl Fn(&Calls<'_>, &I) -> T + Sync,
    ) -> io::Result<Vec<T>> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::with_capacity(items.len()));
        let caller = || {
            self.enter(|calls| {
                while let place = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(item) = items.get(place)
                {
                    let outcome = work(calls, item);
                    if let Ok(mut done) = done.lock() {
                        done.push((place, outcome));
                    }
                }
            })
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..callers.max(1)).map(|_| scope.spawn(caller)).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("a caller's thread panicked")))
            })
        })?;
        let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        done.sort_by_key(|(place, _)| *place);
        Ok(done.into_iter().map(|(_, outcome)| outcome).collect())
    }
}

impl Calls<'_> {
    /// ADD: every plugin in order, each given the result of the one before.
    pub fn add(&self, pod: &Pod) -> Result<Answer, CallError> {
        self.forward(Verb::Add, pod, None)
    }

    /// DEL: every plugin in reverse order, each given the ADD's result, if there is one.
    pub fn del(&self, pod: &Pod, result: Option<&Value>) -> Result<Answer, CallError> {
        let mut answer = Answer { result: Value::Null, took: Duration::ZERO };
        for plugin in self.network.plugins.iter().rev() {
            let next = call::run(Verb::Del, self.network, plugin, Some(pod), result)?;
            answer = Answer { result: next.result, took: answer.took + next.took };
        }
        Ok(answer)
    }

    /// CHECK: every plugin in order, each given the ADD's result.
    pub fn check(&self, pod: &Pod, result: &Value) -> Result<Answer, CallError> {
        let mut took = Duration::ZERO;
        for plugin in &self.network.plugins {
            took += call::run(Verb::Check, self.network, plugin, Some(pod), Some(result))?.took;
        }
        Ok(Answer { result: Value::Null, took })
    }

    /// GC: every plugin in order, each told which attachments must stay, by container id and interface. As libcni does it:
    /// one that fails does not keep the others from their work, and the first failure is what the caller hears.
    pub fn gc(&self, valid: &[(&str, &str)]) -> Result<Answer, CallError> {
        let network = self.network.sparing(valid);
        let (mut took, mut failed) = (Duration::ZERO, None);
        for plugin in &network.plugins {
            match call::run(Verb::Gc, &network, plugin, None, None) {
                Ok(answer) => took += answer.took,
                Err(e) => drop(failed.get_or_insert(e)),
            }
        }
        failed.map_or(Ok(Answer { result: Value::Null, took }), Err)
    }

    /// STATUS: every plugin in order.
    pub fn status(&self) -> Result<Answer, CallError> {
        let mut took = Duration::ZERO;
        for plugin in &self.network.plugins {
            took += call::run(Verb::Status, self.network, plugin, None, None)?.took;
        }
        Ok(Answer { result: Value::Null, took })
    }

    /// VERSION of the first plugin.
    pub fn version(&self) -> Result<Answer, CallError> {
        let plugin = self.network.plugins.first().ok_or(CallError::NoPlugin)?;
        call::run(Verb::Version, self.network, plugin, None, None)
    }

    /// Starts the network's only plugin and does not wait for it: for callers that do not see its end.
    ///
    /// # Errors
    /// As of any call; and if the network has several plugins, of which only a runtime that waits can call the next.
    pub fn start(&self, verb: Verb, pod: &Pod, result: Option<&Value>) -> Result<Running, CallError> {
        let [plugin] = self.network.plugins.as_slice() else { return Err(CallError::NotOnePlugin) };
        call::start(verb, self.network, plugin, Some(pod), result)
    }

    fn forward(&self, verb: Verb, pod: &Pod, result: Option<Value>) -> Result<Answer, CallError> {
        let mut answer = Answer { result: result.unwrap_or_default(), took: Duration::ZERO };
        for plugin in &self.network.plugins {
            let previous = (!answer.result.is_null()).then_some(&answer.result);
            let next = call::run(verb, self.network, plugin, Some(pod), previous)?;
            answer = Answer { result: next.result, took: answer.took + next.took };
        }
        Ok(answer)
    }
}
