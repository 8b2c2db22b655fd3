//! Four views of one node, which must agree: what the daemon says, what the kernel has, what the fabric routes, and what
//! the runtime believes.
//!
//! To be taken while no call is under way. What the daemon still has to do by itself then (a spooled DEL, a pod whose
//! namespace ended) it does in about a second: [`agreement`] waits for that long, and a disagreement that stays is one.

pub mod compare;
pub mod kernel;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dotfour_ipamd::client::{self, ClientError};
use dotfour_protocol::NodeStatus;
use dotfour_rig::daemon::socket_path;
use dotfour_rig::{Node, Pod, RigError, Vnet};

use crate::program::Failure;

use self::kernel::{KernelView, PodLook, ReadError};

/// How long to wait between two looks at a node that does not agree yet.
const PAUSE: Duration = Duration::from_millis(20);

/// What the runtime believes of a sandbox that it has not finished with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Belief {
    /// ADD gave it these addresses, and no DEL was tried since.
    Up(Vec<IpAddr>),
    /// A call for it was interrupted: it may be wired or not.
    InDoubt,
}

/// One node, seen from four sides.
#[derive(Debug)]
pub struct Views {
    /// The daemon's status, with all attachments.
    pub daemon: NodeStatus,
    /// Links, routes and neighbours that are Dotfour's.
    pub kernel: KernelView,
    /// The addresses of the node's NIC beside the primary one, as the VNet knows them.
    pub fabric: Vec<IpAddr>,
    /// The runtime's sandboxes by container id: what it believes, and what is in their namespaces.
    pub runtime: BTreeMap<String, (Belief, PodLook)>,
}

/// A view that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The daemon does not say.
    #[error("the daemon's view is not to be had")]
    Daemon(#[from] ClientError),
    /// The kernel does not say.
    #[error("the kernel's view is not to be had")]
    Kernel(#[from] ReadError),
    /// The rig does not say.
    #[error("the fabric's view is not to be had")]
    Fabric(#[from] RigError),
}

impl Views {
    /// Takes all four, of a node with a daemon. `pods` are all sandboxes that the runtime has not finished with.
    pub fn take<'p>(
        vnet: &Vnet,
        node: &Node,
        pods: impl IntoIterator<Item = (&'p Pod, Belief)>,
    ) -> Result<Self, ViewError> {
        Views::beside(client::status(&socket_path(node))?, vnet, node, pods)
    }

    /// Takes the others beside what the daemon has said.
    pub fn beside<'p>(
        daemon: NodeStatus,
        vnet: &Vnet,
        node: &Node,
        pods: impl IntoIterator<Item = (&'p Pod, Belief)>,
    ) -> Result<Self, ViewError> {
        let kernel = KernelView::read(node.netns())?;
        let mut runtime = BTreeMap::new();
        for (pod, belief) in pods {
            runtime.insert(pod.container_id.clone(), (belief, PodLook::read(pod)?));
        }
        let fabric = vnet.addresses(node)?.into_iter().skip(1).map(IpAddr::V4).collect();
        Ok(Views { daemon, kernel, fabric, runtime })
    }
}

/// What came of waiting for the views to agree.
#[derive(Debug)]
pub struct Agreement {
    /// What they do not agree about, a sentence each. None: they agree.
    pub findings: Vec<String>,
    /// How long it took until they agreed, or until this gave up.
    pub took: Duration,
    /// The last views taken.
    pub views: Views,
}

/// What is left of pods on a node that should have none, a sentence each. Waits until that is nothing, or `patience` over.
pub fn traces_left(patience: Duration, vnet: &Vnet, node: &Node) -> Result<Vec<String>, ViewError> {
    let started = Instant::now();
    loop {
        let traces = Views::take(vnet, node, [])?.traces();
        if traces.is_empty() || started.elapsed() > patience {
            return Ok(traces);
        }
        std::thread::sleep(PAUSE);
    }
}

/// As [`traces_left`], where any is a failure.
pub fn no_traces_left(patience: Duration, vnet: &Vnet, node: &Node) -> Result<(), Failure> {
    let traces = traces_left(patience, vnet, node)?;
    if traces.is_empty() { Ok(()) } else { Err(format!("after {patience:?}:\n  {}", traces.join("\n  ")).into()) }
}

/// Takes views until they agree or `patience` is over.
pub fn agreement(patience: Duration, take: impl Fn() -> Result<Views, ViewError>) -> Result<Agreement, ViewError> {
    let started = Instant::now();
    loop {
        let views = take()?;
        let (findings, took) = (views.findings(), started.elapsed());
        if findings.is_empty() || took > patience {
            return Ok(Agreement { findings, took, views });
        }
        std::thread::sleep(PAUSE);
    }
}
