//! The calls a kubelet makes to run, inspect, stop and remove a pod's sandbox.

mod container;
mod messages;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use serde::Deserialize;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use messages as m;

pub use container::{ContainerState, HostPod, NewContainer};

/// The longest any call may take: what a kubelet gives RunPodSandbox.
const CALL_TIMEOUT: Duration = Duration::from_secs(240);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// Nobody answers at the socket.
    #[error("cannot reach the container runtime")]
    Unreachable(#[source] tonic::transport::Error),
    /// The client itself cannot run.
    #[error("cannot make a client for the container runtime")]
    Client(#[source] std::io::Error),
    /// The runtime refused the call or failed in it.
    #[error("{call}: {}", .status.message())]
    Refused {
        /// The call's name.
        call: &'static str,
        /// The answer.
        status: Box<tonic::Status>,
    },
    /// The answer lacks what it must have.
    #[error("{call}: the answer {problem}")]
    Odd {
        /// The call's name.
        call: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// What the runtime says of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSandbox {
    /// Whether it runs.
    pub ready: bool,
    /// Its addresses, the primary one first; none if it is stopped.
    pub addresses: Vec<IpAddr>,
    /// The file its network namespace is mounted on, as the runtime's own mount namespace names it; none if it is stopped.
    pub netns: Option<PathBuf>,
}

/// A TCP port of the node that leads to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPort {
    /// The node's port.
    pub host: u16,
    /// The pod's port.
    pub pod: u16,
}

impl HostPort {
    fn message(self) -> m::PortMapping {
        m::PortMapping { protocol: 0, container_port: self.pod.into(), host_port: self.host.into() }
    }
}

/// A client of the container runtime interface, version v1. Calls block, one at a time; make a second client to make two
/// calls at once.
#[derive(Debug)]
pub struct Cri {
    executor: tokio::runtime::Runtime,
    grpc: Grpc<Channel>,
}

impl Cri {
    /// Connects to the runtime's socket.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn connect(socket: &Path) -> Result<Self, CriError> {
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CriError::Client)?;
        let connect = async {
            let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
            endpoint.timeout(CALL_TIMEOUT).connect().await
        };
        let channel = executor.block_on(connect).map_err(CriError::Unreachable)?;
        Ok(Cri { executor, grpc: Grpc::new(channel) })
    }

    /// Why the runtime cannot run pods yet; empty if it can.
    pub fn unready(&mut self) -> Result<Vec<String>, CriError> {
        let answer: m::StatusResponse = self.call("Status", m::StatusRequest {})?;
        let conditions = answer.status.unwrap_or_default().conditions;
        Ok(conditions.into_iter().filter(|c| !c.status).map(|c| format!("{}: {}", c.r#type, c.message)).collect())
    }

    /// Starts a pod's sandbox and has its network made; returns the sandbox's id, which is CNI's container id.
    /// `cgroup_parent` is where its cgroups go, from the root of each hierarchy. Every call makes another sandbox, but
    /// the runtime refuses the name of one it has not removed.
    pub fn run_pod_sandbox(&mut self, namespace: &str, name: &str, cgroup_parent: &str) -> Result<String, CriError> {
        self.run_pod_sandbox_with_port(namespace, name, cgroup_parent, None)
    }

    /// As [`Cri::run_pod_sandbox`], with a TCP port of the node that leads to one of the pod's, if there is one.
    pub fn run_pod_sandbox_with_port(
        &mut self,
        namespace: &str,
        name: &str,
        cgroup_parent: &str,
        port: Option<HostPort>,
    ) -> Result<String, CriError> {
        let metadata = m::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("{namespace}-{name}"),
            namespace: namespace.to_owned(),
            attempt: 0,
        };
        let config = m::PodSandboxConfig {
            metadata: Some(metadata),
            hostname: name.to_owned(),
            port_mappings: port.into_iter().map(HostPort::message).collect(),
            log_directory: String::new(),
            linux: Some(m::LinuxPodSandboxConfig { cgroup_parent: cgroup_parent.to_owned(), security_context: None }),
        };
        let answer: m::PodSandboxId = self.call("RunPodSandbox", m::RunPodSandboxRequest { config: Some(config) })?;
        Ok(answer.pod_sandbox_id)
    }

    /// What the runtime says of a sandbox.
    pub fn pod_sandbox_status(&mut self, id: &str) -> Result<PodSandbox, CriError> {
        const CALL: &str = "PodSandboxStatus";
        let odd = |problem: String| CriError::Odd { call: CALL, problem };
        let request = m::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let answer: m::PodSandboxStatusResponse = self.call(CALL, request)?;

        let status = answer.status.ok_or_else(|| odd("has no status".to_owned()))?;
        let network = status.network.unwrap_or_default();
        let additional = network.additional_ips.into_iter().map(|additional| additional.ip);
        let addresses = std::iter::once(network.ip)
            .filter(|primary| !primary.is_empty())
            .chain(additional)
            .map(|text| text.parse().map_err(|e| odd(format!("has the address {text:?}: {e}"))))
            .collect::<Result<_, _>>()?;

        let info = answer.info.get("info").ok_or_else(|| odd("has no verbose part".to_owned()))?;
        let info: VerboseInfo = serde_json::from_str(info).map_err(|e| odd(format!("has a verbose part: {e}")))?;
        Ok(PodSandbox { ready: status.state == 0, addresses, netns: info.netns() })
    }

    /// Ends a sandbox's processes and has its network taken down. Repeating it succeeds.
    pub fn stop_pod_sandbox(&mut self, id: &str) -> Result<(), CriError> {
        self.call("StopPodSandbox", m::PodSandboxId { pod_sandbox_id: id.to_owned() }).map(|_: m::Empty| ())
    }

    /// Forgets a sandbox, after stopping it if need be. Repeating it succeeds.
    pub fn remove_pod_sandbox(&mut self, id: &str) -> Result<(), CriError> {
        self.call("RemovePodSandbox", m::PodSandboxId { pod_sandbox_id: id.to_owned() }).map(|_: m::Empty| ())
    }

    fn call<Request, Answer>(&mut self, call: &'static str, request: Request) -> Result<Answer, CriError>
    where
        Request: Message + 'static,
        Answer: Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{call}"))
            .map_err(|e| CriError::Odd { call, problem: format!("cannot even be asked for: {e}") })?;
        let codec: ProstCodec<Request, Answer> = ProstCodec::default();
        let Cri { executor, grpc } = self;
        executor.block_on(async {
            grpc.ready().await.map_err(CriError::Unreachable)?;
            let answer = grpc.unary(tonic::Request::new(request), path, codec).await;
            answer
                .map(tonic::Response::into_inner)
                .map_err(|status| CriError::Refused { call, status: Box::new(status) })
        })
    }
}

/// The part of containerd's verbose answer that leads to the network namespace. A stopped sandbox has no specification.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VerboseInfo {
    runtime_spec: Option<RuntimeSpec>,
}

#[derive(Deserialize)]
struct RuntimeSpec {
    linux: LinuxSpec,
}

#[derive(Deserialize)]
struct LinuxSpec {
    namespaces: Vec<NamespaceSpec>,
}

#[derive(Deserialize)]
struct NamespaceSpec {
    r#type: String,
    path: Option<PathBuf>,
}

impl VerboseInfo {
    fn netns(self) -> Option<PathBuf> {
        self.runtime_spec?.linux.namespaces.into_iter().find(|namespace| namespace.r#type == "network")?.path
    }
}
