//! A node that runs DaemonSets: containerd, with the node's files in a place of their own, and what a kubelet does.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dotfour_e2e::program::{self, Failure, Ground};
use dotfour_e2e::{ContainerState, Containerd, Cri, HostPod, Setup};
use dotfour_rig::Node;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Probe;

use crate::manifest::{self, config_files};

/// How long a step of the kubelet's may take.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// The node.
pub(crate) struct Machine<'a> {
    pub(crate) node: &'a Node,
    pub(crate) containerd: Containerd,
    pub(crate) cri: Cri,
    directory: PathBuf,
    pods: u32,
}

/// A pod of a DaemonSet that runs.
pub(crate) struct Running {
    pod: HostPod,
    pub(crate) container: String,
    grace: u32,
}

impl<'a> Machine<'a> {
    /// A node with containerd, the reference plugins and no network.
    pub(crate) fn start(ground: &Ground, node: &'a Node, log: &Path) -> Result<Self, Failure> {
        let setup = Setup { netns: node.netns(), plugins: &[], conflist: "", name: "daemonset", log };
        let containerd = Containerd::start(ground, setup)?;
        for plugin in ["loopback", "portmap"] {
            fs::copy(Path::new(program::REFERENCE_PLUGINS).join(plugin), containerd.bin_dir().join(plugin))?;
        }
        let directory = node.state_dir().join("kubelet");
        fs::create_dir_all(directory.join("logs"))?;
        // As a kubelet does with the ConfigMap.
        fs::create_dir_all(directory.join("config"))?;
        for (name, text) in config_files()? {
            fs::write(directory.join("config").join(name), text)?;
        }
        let cri = containerd.cri()?;
        Ok(Machine { node, containerd, cri, directory, pods: 0 })
    }

    /// Where a place of the node is here. `/run` is the sandbox's own already, and `/proc` is everybody's.
    fn place(&self, path: &str) -> PathBuf {
        match path {
            "/opt/cni/bin" => self.containerd.bin_dir(),
            "/etc/cni/net.d" => self.containerd.conf_dir(),
            // Its own in this node, and the one that plugin and configuration name.
            path if path == "/run" || path.starts_with("/run/") || path.starts_with("/proc/") => path.into(),
            path => panic!("the manifest mounts {path}, which this test knows no place for"),
        }
    }

    /// Runs a pod of a DaemonSet as a kubelet does: its init containers one after the other, then its containers, then its
    /// startup probe, until that succeeds. With `only_init`, the containers are left out. Returns how long it took, too.
    pub(crate) fn run(
        &mut self,
        set: &DaemonSet,
        image: &str,
        only_init: bool,
    ) -> Result<(Running, Duration), Failure> {
        let begun = Instant::now();
        let spec = manifest::pod(set)?;
        let name = set.metadata.name.clone().unwrap_or_default();
        self.pods += 1;
        // `DirectoryOrCreate`
        for host in spec.volumes.iter().flatten().filter_map(|volume| volume.host_path.as_ref()) {
            fs::create_dir_all(self.place(&host.path))?;
        }
        let logs = self.directory.join("logs").join(format!("{name}-{}", self.pods));
        fs::create_dir_all(&logs)?;
        let (parent, config) = (self.containerd.cgroup_parent(), self.directory.join("config"));
        let pod = self.cri.run_host_pod("kube-system", &format!("{name}-{}", self.pods), &parent, &logs)?;
        for container in spec.init_containers.iter().flatten() {
            let new = manifest::container(spec, container, image, |path| self.place(path), &config)?;
            let id = self.cri.start_container(&pod, &new)?;
            self.ended(&id, &pod.log(&container.name))?;
        }
        let grace = spec.termination_grace_period_seconds.unwrap_or(30).try_into()?;
        let mut running = Running { pod, container: String::new(), grace };
        if only_init {
            return Ok((running, begun.elapsed()));
        }
        for container in &spec.containers {
            let new = manifest::container(spec, container, image, |path| self.place(path), &config)?;
            running.container = self.cri.start_container(&running.pod, &new)?;
            let probe = container.startup_probe.as_ref().ok_or("no startup probe")?;
            let deadline = Instant::now() + PATIENCE;
            while !self.probe(probe) {
                let state = self.cri.container_state(&running.container)?;
                if state != ContainerState::Running || Instant::now() > deadline {
                    let log = fs::read_to_string(running.pod.log(&container.name)).unwrap_or_default();
                    return Err(format!("{} is {state:?}, and its probe fails:\n{log}", container.name).into());
                }
                sleep(POLL);
            }
        }
        Ok((running, begun.elapsed()))
    }

    /// Whether an HTTP probe succeeds, asked from the node as the kubelet asks.
    pub(crate) fn probe(&self, probe: &Probe) -> bool {
        let ask = || -> Result<bool, Failure> {
            let get = probe.http_get.as_ref().ok_or("not HTTP")?;
            let (host, port) = (get.host.as_deref().unwrap_or_default(), serde_json::to_value(&get.port)?);
            let mut stream = TcpStream::connect((host, u16::try_from(port.as_u64().ok_or("no number")?)?))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            write!(stream, "GET {} HTTP/1.1\r\nHost: {host}\r\n\r\n", get.path.as_deref().unwrap_or("/"))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer.starts_with("HTTP/1.1 200 "))
        };
        self.node.netns().run(|| ask().unwrap_or(false)).unwrap_or(false)
    }

    /// Ends a pod as a kubelet does: SIGTERM, the grace period, removal.
    pub(crate) fn end(&mut self, running: &Running) -> Result<Duration, Failure> {
        let begun = Instant::now();
        if !running.container.is_empty() {
            self.cri.stop_container(&running.container, running.grace)?;
            let state = self.cri.container_state(&running.container)?;
            assert_eq!(state, ContainerState::Exited(0), "the daemon must end by itself");
        }
        self.cri.stop_pod_sandbox(&running.pod.id)?;
        self.cri.remove_pod_sandbox(&running.pod.id)?;
        Ok(begun.elapsed())
    }

    /// What a container of a pod has said.
    pub(crate) fn log(&self, running: &Running, container: &str) -> String {
        let text = fs::read_to_string(running.pod.log(container)).unwrap_or_default();
        // Time, stream and a mark stand before each line.
        text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(|line| format!("    {line}\n")).collect()
    }

    /// Waits for the end of an init container, which must be a good one.
    fn ended(&mut self, id: &str, log: &Path) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.cri.container_state(id)? {
                ContainerState::Exited(0) => return Ok(()),
                ContainerState::Exited(status) => {
                    let said = fs::read_to_string(log).unwrap_or_default();
                    return Err(format!("an init container ended with {status}:\n{said}").into());
                }
                _ if Instant::now() > deadline => return Err("an init container does not end".into()),
                _ => sleep(POLL),
            }
        }
    }
}
