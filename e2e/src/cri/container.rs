//! A pod on the node's own network and its containers, as a kubelet makes those of a DaemonSet.

use std::path::{Path, PathBuf};

use super::{Cri, CriError, messages as m};

/// `NamespaceMode` of the interface: the node's.
const NODE: i32 = 2;
/// `NamespaceMode` of the interface: the container's own.
const CONTAINER: i32 = 1;
/// What a kubelet has masked in every container that is not privileged (`procMount: Default`).
const MASKED: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
];
/// What a kubelet has made read-only there.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A pod on the node's network. It is there until [`Cri::remove_pod_sandbox`].
#[derive(Debug, Clone)]
pub struct HostPod {
    /// The sandbox's id.
    pub id: String,
    config: m::PodSandboxConfig,
    logs: PathBuf,
}

impl HostPod {
    /// Where a container of this pod has its output.
    pub fn log(&self, container: &str) -> PathBuf {
        self.logs.join(format!("{container}.log"))
    }
}

/// A container to be, not privileged and with the runtime's default seccomp profile.
#[derive(Debug, Clone, Default)]
pub struct NewContainer {
    /// Its name in the pod.
    pub name: String,
    /// The image's name in the runtime.
    pub image: String,
    /// The arguments of the image's entry point.
    pub args: Vec<String>,
    /// What is mounted: place in the container, place on the node, whether read-only.
    pub mounts: Vec<(String, PathBuf, bool)>,
    /// Capabilities, without `CAP_`.
    pub add: Vec<String>,
    /// Capabilities, without `CAP_`, or `ALL`.
    pub drop: Vec<String>,
    /// Whether its root is read-only.
    pub read_only_root: bool,
    /// Whether it may not gain privileges.
    pub no_new_privileges: bool,
    /// The user it runs as.
    pub user: i64,
}

/// What the runtime says of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// It runs.
    Running,
    /// It has ended, with this status.
    Exited(i32),
    /// It has not begun, or the runtime does not know.
    Other,
}

impl Cri {
    /// Makes a pod on the node's network, whose containers write their output into `logs`. Each call makes one more.
    ///
    /// # Errors
    /// The runtime refuses.
    pub fn run_host_pod(
        &mut self,
        namespace: &str,
        name: &str,
        cgroup_parent: &str,
        logs: &Path,
    ) -> Result<HostPod, CriError> {
        let namespaces = m::NamespaceOption { network: NODE, pid: CONTAINER, ipc: 0 };
        let security = m::LinuxSandboxSecurityContext { namespace_options: Some(namespaces) };
        let config = m::PodSandboxConfig {
            metadata: Some(m::PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("{namespace}-{name}"),
                namespace: namespace.to_owned(),
                attempt: 0,
            }),
            hostname: String::new(),
            log_directory: logs.display().to_string(),
            port_mappings: Vec::new(),
            linux: Some(m::LinuxPodSandboxConfig {
                cgroup_parent: cgroup_parent.to_owned(),
                security_context: Some(security),
            }),
        };
        let request = m::RunPodSandboxRequest { config: Some(config.clone()) };
        let answer: m::PodSandboxId = self.call("RunPodSandbox", request)?;
        Ok(HostPod { id: answer.pod_sandbox_id, config, logs: logs.to_owned() })
    }

    /// Makes a container in a pod and starts it; returns its id. With the masked and read-only places below `/proc` that a
    /// kubelet asks for.
    ///
    /// # Errors
    /// The runtime refuses.
    pub fn start_container(&mut self, pod: &HostPod, new: &NewContainer) -> Result<String, CriError> {
        let mount = |(container, host, readonly): &(String, PathBuf, bool)| m::Mount {
            container_path: container.clone(),
            host_path: host.display().to_string(),
            readonly: *readonly,
        };
        let security = m::LinuxContainerSecurityContext {
            capabilities: Some(m::Capability {
                add_capabilities: new.add.clone(),
                drop_capabilities: new.drop.clone(),
            }),
            namespace_options: Some(m::NamespaceOption { network: NODE, pid: CONTAINER, ipc: 0 }),
            run_as_user: Some(m::Int64Value { value: new.user }),
            readonly_rootfs: new.read_only_root,
            no_new_privs: new.no_new_privileges,
            masked_paths: MASKED.map(str::to_owned).into(),
            readonly_paths: READ_ONLY.map(str::to_owned).into(),
            seccomp: Some(m::SecurityProfile { profile_type: 0 }),
        };
        let config = m::ContainerConfig {
            metadata: Some(m::ContainerMetadata { name: new.name.clone(), attempt: 0 }),
            image: Some(m::ImageSpec { image: new.image.clone() }),
            args: new.args.clone(),
            mounts: new.mounts.iter().map(mount).collect(),
            log_path: format!("{}.log", new.name),
            linux: Some(m::LinuxContainerConfig { security_context: Some(security) }),
        };
        let request = m::CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let made: m::ContainerId = self.call("CreateContainer", request)?;
        let id = made.container_id;
        self.call("StartContainer", m::ContainerId { container_id: id.clone() }).map(|_: m::Empty| id)
    }

    /// What the runtime says of a container.
    ///
    /// # Errors
    /// It does not know it.
    pub fn container_state(&mut self, id: &str) -> Result<ContainerState, CriError> {
        let request = m::ContainerId { container_id: id.to_owned() };
        let answer: m::ContainerStatusResponse = self.call("ContainerStatus", request)?;
        Ok(match answer.status.unwrap_or_default() {
            m::ContainerStatus { state: 1, .. } => ContainerState::Running,
            m::ContainerStatus { state: 2, exit_code } => ContainerState::Exited(exit_code),
            _ => ContainerState::Other,
        })
    }

    /// Ends a container by SIGTERM, and by SIGKILL after so many seconds. Repeating it succeeds.
    ///
    /// # Errors
    /// The runtime cannot end it.
    pub fn stop_container(&mut self, id: &str, grace: u32) -> Result<(), CriError> {
        let request = m::StopContainerRequest { container_id: id.to_owned(), timeout: grace.into() };
        self.call("StopContainer", request).map(|_: m::Empty| ())
    }
}
