//! What a driver's callers share: what is believed of each sandbox, and what is noticed by that alone.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dotfour_rig::Pod;
use dotfour_rig::runtime::Answer;
use fastrand::Rng;
use serde_json::Value;

use crate::views::Belief;
use crate::views::compare::short;

/// What has happened so far.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// ADDs that succeeded.
    pub adds: u64,
    /// DELs that succeeded, those after a failed ADD among them.
    pub dels: u64,
    /// Sandboxes that vanished without a DEL.
    pub vanished: u64,
    /// Plugins that were killed.
    pub killed: u64,
    /// The most sandboxes at once.
    pub most: usize,
    /// Calls that failed, by operation and cause.
    pub failed: BTreeMap<(&'static str, String), u64>,
}

/// All that a driver's callers share.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) sandboxes: BTreeMap<String, Sandbox>,
    /// Ended sandboxes whose namespaces are still there.
    pub(super) kept: Vec<Arc<Pod>>,
    /// Sandboxes that are being made.
    pub(super) coming: usize,
    /// How many sandboxes the callers aim at.
    pub(super) wanted: usize,
    /// The addresses of the pods that are up.
    pub(super) holders: HashMap<IpAddr, String>,
    /// When the end of an address's last pod was begun: it was not released before.
    pub(super) ended: HashMap<IpAddr, Instant>,
    pub(super) callers: usize,
    pub(super) idle: usize,
    pub(super) paused: bool,
    pub(super) over: bool,
    pub(super) tally: Tally,
    pub(super) defects: Vec<String>,
}

/// A sandbox that is not finished with.
#[derive(Debug, Clone)]
pub(super) struct Sandbox {
    pub(super) pod: Arc<Pod>,
    pub(super) belief: Belief,
    /// What ADD answered.
    pub(super) result: Option<Value>,
}

impl Book {
    /// Takes any pod that is up; from now on it is in doubt, and nobody else's to end.
    pub(super) fn take_any(&mut self, rng: &mut Rng) -> Option<Sandbox> {
        let up = self.sandboxes.values_mut().filter(|sandbox| sandbox.belief != Belief::InDoubt);
        let mut up: Vec<&mut Sandbox> = up.collect();
        if up.is_empty() {
            return None;
        }
        let chosen = up.swap_remove(rng.usize(..up.len()));
        let taken = chosen.clone();
        chosen.belief = Belief::InDoubt;
        if let Belief::Up(addresses) = &taken.belief {
            for address in addresses {
                self.holders.remove(address);
                self.ended.insert(*address, Instant::now());
            }
        }
        Some(taken)
    }

    /// Notes what ADD has answered, and whether the address was anybody's, or was a moment ago.
    pub(super) fn is_up(&mut self, pod: &Pod, answer: Answer, floor: Duration) {
        self.tally.adds += 1;
        let addresses: Vec<IpAddr> = answer.ipv4().map(IpAddr::V4).into_iter().collect();
        for address in &addresses {
            if let Some(holder) = self.holders.insert(*address, pod.container_id.clone()) {
                let (one, other) = (short(&holder), short(&pod.container_id));
                self.defects.push(format!("{address} was given to {other}, and {one} is up with it"));
            }
            let rested = self.ended.get(address).map(Instant::elapsed);
            if let Some(rested) = rested.filter(|rested| *rested < floor) {
                self.defects.push(format!("{address} was given again {rested:?} after its last pod, before {floor:?}"));
            }
        }
        if let Some(sandbox) = self.sandboxes.get_mut(&pod.container_id) {
            sandbox.belief = Belief::Up(addresses);
            sandbox.result = Some(answer.result);
        }
    }
}
