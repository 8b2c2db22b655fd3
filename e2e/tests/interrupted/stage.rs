//! A node whose calls are interrupted.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dotfour_e2e::program::{self, Failure};
use dotfour_e2e::views::{Belief, Views, agreement};
use dotfour_protocol::SPOOL_NAME;
use dotfour_rig::runtime::Verb;
use dotfour_rig::{Daemon, DaemonConfig, Network, Node, NodeConfig, Place, Pod, Runtime, Vnet, VnetConfig};
use fastrand::Rng;

pub(crate) type Outcome = Result<(), Failure>;

/// How long the daemon may take to come to rest. Its look at the spool comes round in a second; but when another test's
/// hundreds of namespaces end, the kernel keeps everybody waiting for several.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Addresses of the NIC beside its primary one.
const SECONDARIES: usize = 255;

/// A node with a daemon and without pods.
pub(crate) struct Stage {
    vnet: Vnet,
    pub(crate) node: Node,
    pub(crate) config: DaemonConfig,
    /// Absent while there is none.
    pub(crate) daemon: Option<Daemon>,
    pub(crate) network: Network,
    pub(crate) rng: Rng,
    /// The latest moment of an interruption.
    span: Duration,
}

impl Stage {
    pub(crate) fn set(place: Place, rng: Rng) -> Result<Self, Failure> {
        let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place })?;
        let node = vnet.add_node(&NodeConfig::new("node-1", SECONDARIES))?;
        let mut config = program::daemon()?;
        config.cooldown = Duration::from_millis(100);
        let daemon = node.start_daemon(&config)?;
        let network = program::network(&node)?;
        Ok(Stage { vnet, node, config, daemon: Some(daemon), network, rng, span: Duration::from_millis(1) })
    }

    pub(crate) fn runtime(&self) -> Runtime<'_> {
        Runtime::new(&self.node, &self.network)
    }

    pub(crate) fn pod(&self, name: &str) -> Result<Pod, Failure> {
        Ok(Pod::create(&self.node, "default", name)?)
    }

    pub(crate) fn pods(&self, count: usize) -> Result<Vec<Pod>, Failure> {
        (0..count).map(|number| self.pod(&format!("web-{number}"))).collect()
    }

    /// Starts a call, and kills the plugin at some moment of its life or a little later. True if that was in time. How long
    /// a life is it learns: half of the kills shall be in time, however busy the machine is.
    pub(crate) fn interrupt(&mut self, verb: Verb, pod: &Pod) -> Result<bool, Failure> {
        let moment = self.span.mul_f64(self.rng.f64());
        let outcome = self.runtime().enter(|calls| {
            let running = calls.start(verb, pod, None)?;
            let started = Instant::now();
            // Not with a sleep, which is as coarse as the whole call is long.
            while started.elapsed() < moment {
                std::hint::spin_loop();
            }
            running.kill()
        })?;
        let killed = outcome.is_err_and(|e| e.killed());
        self.span = self.span.mul_f64(if killed { 1.05 } else { 0.95 });
        Ok(killed)
    }

    /// Waits until daemon and kernel agree about these pods, and says how many hold an address then.
    pub(crate) fn leases(&self, pods: &[(&Pod, Belief)]) -> Result<usize, Failure> {
        let agreement = agreement(PATIENCE, || Views::take(&self.vnet, &self.node, pods.iter().cloned()))?;
        if agreement.findings.is_empty() {
            return Ok(agreement.views.daemon.attachments.len());
        }
        Err(self.with_log(&agreement.findings))
    }

    /// A failure, with the end of the daemon's log.
    pub(crate) fn with_log(&self, findings: &[String]) -> Failure {
        let log = self.daemon.as_ref().map(Daemon::log_tail).unwrap_or_default();
        format!("{}\n  the daemon's log ends:\n{log}", findings.join("\n  ")).into()
    }

    /// How many files the spool holds: whole ones, and such as were begun.
    pub(crate) fn spool(&self) -> Result<(usize, usize), Failure> {
        let mut count = (0, 0);
        for entry in fs::read_dir(self.node.state_dir().join(SPOOL_NAME))? {
            let begun = entry?.file_name().as_encoded_bytes().starts_with(b".");
            *(if begun { &mut count.1 } else { &mut count.0 }) += 1;
        }
        Ok(count)
    }

    /// As [`Stage::leases`], for one pod whose call was interrupted.
    pub(crate) fn leases_of(&self, pod: &Pod) -> Result<usize, Failure> {
        self.leases(&[(pod, Belief::InDoubt)])
    }

    /// Waits until a pod that was deleted holds no address. A DEL that met a busy daemon was spooled, and succeeds before
    /// it is applied.
    pub(crate) fn is_deleted(&self, pod: &Pod) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        while self.leases_of(pod)? != 0 {
            if Instant::now() > deadline {
                return Err(self.with_log(&["its lease is still there after DEL".to_owned()]));
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Fails unless nothing of any pod is left, or soon will not be.
    pub(crate) fn expect_nothing(&self, pods: &[Pod]) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let views = Views::take(&self.vnet, &self.node, pods.iter().map(|pod| (pod, Belief::InDoubt)))?;
            let mut traces = views.traces();
            let inside = pods
                .iter()
                .filter(|pod| views.runtime.get(&pod.container_id).is_some_and(|(_, look)| look.link.is_some()));
            traces.extend(inside.map(|pod| format!("pod {} has an interface", pod.container_id)));
            if traces.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.with_log(&traces));
            }
            sleep(Duration::from_millis(20));
        }
    }
}
