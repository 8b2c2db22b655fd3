//! The node's rules: who sees which source address, what pods may not reach, and that they do not forge addresses.
//!
//! One table of nftables, `inet dotfour`, and no rule for any single pod. `docs/masquerade.md` is what an operator reads.
//!
//! - [`agent_files`] understands the ip-masq-agent's files; [`directory`] reads them when they change.
//! - [`plan`] decides; [`table`] says it in nftables' words; [`outline`] is what is compared. All pure.
//! - [`old_agent`] finds what the ip-masq-agent left, [`forward_drop`] who drops what the node forwards.
//! - [`apply`] runs `nft`; [`events`] hears who else changes the table; [`enforcer`] keeps it as planned.
//!
//! Invariants: a change is one transaction; nothing is written when the table is as planned; rules that are in force stay
//! in force when files are bad, `nft` fails or the daemon ends.

pub mod agent_files;
pub mod apply;
pub mod directory;
pub mod enforcer;
pub mod events;
pub mod forward_drop;
mod legacy;
pub mod old_agent;
pub mod outline;
pub mod plan;
pub mod table;
mod words;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tracing::warn;

use crate::config::Config;
use crate::metrics::RulesMetrics;
use crate::nic::Nic;
use apply::ApplyError;
use enforcer::{Enforcer, INTERVAL};
use forward_drop::Verdict;

/// How long to wait after somebody changed the table, so that two programs that fight over it leave the node some time.
const PAUSE: Duration = Duration::from_millis(200);

/// How long the end waits for the rules' thread. One that waits for an `nft` that hangs is left behind: what that may still
/// write, the next daemon puts right, or `uninstall`.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often the end looks for it.
const LOOK: Duration = Duration::from_millis(5);

/// Why the rules are not in force at the start.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// They cannot be applied.
    #[error(
        "table inet {} cannot be put in force, and without it pods would be seen and could see what they should not",
        table::TABLE
    )]
    Apply(#[from] ApplyError),
    /// They cannot be watched.
    #[error("cannot watch over table inet {}", table::TABLE)]
    Watch(#[source] io::Error),
}

/// The rules of a node, in force and watched over until it ends. They stay in force then.
#[derive(Debug)]
pub struct Rules {
    enforcer: Arc<Mutex<Enforcer>>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Rules {
    /// Puts the rules in force in the process's namespace, for pods of the networks `pods`, and starts to watch over
    /// them. Where they are in force already, nothing is written. It waits for `nft` off the async thread. Given up half-way, they
    /// may come into force all the same.
    pub async fn start(
        config: &Config,
        nic: &Nic,
        pods: Vec<IpNet>,
        metrics: RulesMetrics,
    ) -> Result<Self, RulesError> {
        let (config, nic) = (config.clone(), nic.clone());
        let starting = tokio::task::spawn_blocking(move || Enforcer::start(&config, &nic, pods, metrics));
        let enforcer = starting.await.map_err(|e| RulesError::Watch(io::Error::other(e))).flatten()?;
        let events = enforcer.events().map_err(RulesError::Watch)?;
        let enforcer = Arc::new(Mutex::new(enforcer));
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| RulesError::Watch(e.into()))?);
        let (watched, stopped) = (Arc::clone(&enforcer), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name("rules".into())
            .spawn(move || watch(&watched, &events, &stopped))
            .map_err(RulesError::Watch)?;
        Ok(Rules { enforcer, stop, thread: Some(thread) })
    }

    /// Puts rules in force for pods of further networks. Returns once they are. It waits for the rules' own thread, which may
    /// wait for `nft`, and so does it off the async thread. Given up half-way, it is done all the same.
    pub async fn cover(&self, pods: Vec<IpNet>) -> Result<(), ApplyError> {
        let enforcer = Arc::clone(&self.enforcer);
        let covering = tokio::task::spawn_blocking(move || lock(&enforcer).cover(&pods));
        let stopped = |e| ApplyError::Run { program: "nft".to_owned(), source: io::Error::other(e) };
        covering.await.map_err(stopped).flatten()
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        // Eight bytes are what an eventfd takes.
        let told = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes()).is_ok();
        let by = Instant::now() + PATIENCE;
        while told && self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < by {
            thread::sleep(LOOK);
        }
    }
}

fn watch(enforcer: &Mutex<Enforcer>, events: &OwnedFd, stop: &OwnedFd) {
    // Here and not at the start, which nobody should wait longer for.
    let old_agent::Found { kinds, unread } = old_agent::find();
    if !kinds.is_empty() {
        warn!(
            "{} has a chain {} of the ip-masq-agent, which goes on masquerading by its own list; \
             stop the agent and remove the chain",
            kinds.join(" and "),
            old_agent::CHAIN
        );
    }
    for why in unread {
        warn!("cannot see whether the ip-masq-agent's chain {} is there still: {why}", old_agent::CHAIN);
    }
    let forward_drop::Found { chains, unread } = forward_drop::find();
    for chain in chains.iter().filter(|chain| chain.verdict != Verdict::Accepts) {
        warn!(
            "{chain} drops what the node forwards unless one of its rules accepts it; pods reach nobody outside, and nobody \
             them, without a rule for their addresses there"
        );
    }
    for why in unread {
        warn!("cannot see whether a firewall drops what the node forwards: {why}");
    }
    loop {
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(INTERVAL.subsec_nanos()) };
        let mut fds = [PollFd::new(stop, PollFlags::IN), PollFd::new(events, PollFlags::IN)];
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, Some(&timeout));
        let [stop, _] = fds;
        if !stop.revents().is_empty() {
            return;
        }
        if lock(enforcer).tick() {
            thread::sleep(PAUSE);
        }
    }
}

/// A panic elsewhere must not keep the rules from being kept.
fn lock(enforcer: &Mutex<Enforcer>) -> MutexGuard<'_, Enforcer> {
    enforcer.lock().unwrap_or_else(PoisonError::into_inner)
}
