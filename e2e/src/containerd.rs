//! A real containerd, with runc, on a node.
//!
//! It runs in the node's network namespace and in process and mount namespaces of its own, with an empty `/var/lib` and
//! `/run/containerd`. So several can run side by side at their usual places, and one that ends takes its shims, its pods
//! and its mounts along. Its socket and the namespaces of its pods are reached through `/proc/PID/root`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dotfour_datapath::Netns;

use crate::cri::{Cri, CriError};
use crate::image;
use crate::program::{self, Ground};

/// How long containerd may take to be ready for pods. It takes a third of a second on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Where containerds keep their configuration: the sandbox's `/run`, which vanishes with it.
const DIRECTORIES: &str = "/run/dotfour-e2e";
/// Copies each container's files instead of stacking them, which works on every file system.
const SNAPSHOTTER: &str = "native";
/// How much of the log goes into an error message, in lines.
const LOG_TAIL: usize = 20;
/// The programs needed on `PATH`.
const PROGRAMS: [&str; 6] = ["containerd", "ctr", "runc", "busybox", "unshare", "ldd"];

/// Why there is no containerd.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something to install is not installed.
    #[error("the program {0} is not on this machine; `make deps` installs it")]
    ProgramMissing(&'static str),
    /// The machine refused a step.
    #[error("cannot {step}")]
    System {
        /// What was being done.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// containerd ended, or does not come up.
    #[error("containerd {problem}; the end of {}:\n{tail}", .log.display())]
    NotUp {
        /// What it does instead.
        problem: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
}

/// What to run containerd with.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// The node's network namespace.
    pub netns: &'a Netns,
    /// CNI plugins, which are offered under their file names. containerd itself needs `loopback` among them.
    pub plugins: &'a [&'a Path],
    /// The network configuration list, as JSON; none if empty, and then it is not waited for a network.
    pub conflist: &'a str,
    /// Tells this containerd from others of the same sandbox; a file name.
    pub name: &'a str,
    /// Where the log goes. It is made anew, and stays.
    pub log: &'a Path,
}

/// A containerd that is ready to run pods. It ends, with all its pods, when this value is dropped or its process ends.
#[derive(Debug)]
pub struct Containerd {
    child: Child,
    /// Configuration and image, in the sandbox's private `/run`.
    directory: PathBuf,
    log: PathBuf,
    cgroup: String,
    /// Whether it is ready only with a network.
    networked: bool,
}

impl Containerd {
    /// Starts containerd and waits until it is ready for pods and has the sandbox image.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub fn start(ground: &Ground, setup: Setup<'_>) -> Result<Self, StartError> {
        let system = |step| move |source| StartError::System { step, source };
        for program in PROGRAMS {
            find_program(program)?;
        }
        let directory = Path::new(DIRECTORIES).join(setup.name);
        prepare(setup, &directory).map_err(system("write containerd's configuration"))?;
        let child = setup.netns.run(|| spawn(&directory, setup.log)).and_then(|spawned| spawned);
        let child = child.map_err(system("start containerd"))?;
        let (log, cgroup) = (setup.log.to_owned(), ground.cgroup.clone());
        let mut containerd = Containerd { child, directory, log, cgroup, networked: !setup.conflist.is_empty() };
        containerd.wait_until_ready()?;
        containerd.import_image()?;
        Ok(containerd)
    }

    /// Kills containerd under its pods, as the kernel would when memory runs out, starts it again and waits until it is
    /// ready. Clients of before are cut off.
    ///
    /// # Errors
    /// If it does not come up again; see [`StartError`].
    pub fn restart(&mut self) -> Result<(), StartError> {
        let system = |step| move |source| StartError::System { step, source };
        let number = self.seen_from_outside(Path::new("/run/containerd/e2e-pid"));
        let read = || fs::read_to_string(&number).map_err(system("read which process containerd is"));
        let (before, deadline) = (read()?, Instant::now() + START_TIMEOUT);
        let stdin = self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe.into());
        stdin.and_then(|stdin| stdin.write_all(b"again\n")).map_err(system("have containerd killed"))?;
        // Until the new one is there, the old one might answer.
        while read()? == before {
            if Instant::now() > deadline {
                return Err(self.not_up(format!("does not end within {START_TIMEOUT:?}")));
            }
            sleep(Duration::from_millis(5));
        }
        self.wait_until_ready()
    }

    /// Where it reads its network configuration.
    pub fn conf_dir(&self) -> PathBuf {
        self.directory.join("net.d")
    }

    /// Where it looks for plugins.
    pub fn bin_dir(&self) -> PathBuf {
        self.directory.join("bin")
    }

    /// A client of its own for the container runtime interface.
    ///
    /// # Errors
    /// If containerd is gone.
    pub fn cri(&self) -> Result<Cri, CriError> {
        Cri::connect(&self.socket())
    }

    /// Where sandboxes' cgroups must go, to be removed afterwards: [`Cri::run_pod_sandbox`]'s `cgroup_parent`.
    pub fn cgroup_parent(&self) -> String {
        format!("/{}", self.cgroup)
    }

    /// Opens a pod's network namespace, by the path that [`Cri::pod_sandbox_status`] tells.
    ///
    /// # Errors
    /// If it is gone.
    pub fn open_netns(&self, path: &Path) -> io::Result<Netns> {
        // An absolute symbolic link would lead out of the other mount namespace, and /var/run is one.
        let path = path.strip_prefix("/var").unwrap_or(path);
        Netns::open(&self.seen_from_outside(path))
    }

    /// The names in the runtime's directory of network namespaces; one that is there although its pod is not has leaked.
    ///
    /// # Errors
    /// If containerd is gone.
    pub fn netns_names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.seen_from_outside(Path::new("/run/netns")))?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// Where it listens, as seen by everybody outside.
    pub fn socket(&self) -> PathBuf {
        self.seen_from_outside(Path::new("/run/containerd/containerd.sock"))
    }

    fn seen_from_outside(&self, path: &Path) -> PathBuf {
        // The child is `unshare`, which has moved into the new mount namespace itself.
        Path::new("/proc").join(self.child.id().to_string()).join("root").join(path.strip_prefix("/").unwrap_or(path))
    }

    fn wait_until_ready(&mut self) -> Result<(), StartError> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.not_up(format!("ended with {status}")));
            }
            let mut unready = self.cri().and_then(|mut cri| cri.unready());
            if let (Ok(reasons), false) = (&mut unready, self.networked) {
                reasons.retain(|reason| !reason.starts_with("NetworkReady"));
            }
            if matches!(&unready, Ok(reasons) if reasons.is_empty()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.not_up(format!("is not ready after {START_TIMEOUT:?}: {unready:?}")));
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn import_image(&self) -> Result<(), StartError> {
        let archive = self.directory.join("pause.tar");
        let made = image::write(&archive, &find_program("busybox")?);
        made.map_err(|source| StartError::System { step: "make the sandbox image", source })?;
        self.import(&archive)
    }

    /// Takes the images of a tar file, under the names that it gives them.
    ///
    /// # Errors
    /// It is no such file.
    pub fn import(&self, archive: &Path) -> Result<(), StartError> {
        let output = Command::new("ctr")
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", "k8s.io", "images", "import", "--snapshotter", SNAPSHOTTER])
            .arg(archive)
            .output()
            .map_err(|source| StartError::System { step: "import an image", source })?;
        if output.status.success() {
            return Ok(());
        }
        Err(self.not_up(format!("refuses {}: {}", archive.display(), String::from_utf8_lossy(&output.stderr).trim())))
    }

    fn not_up(&self, problem: String) -> StartError {
        let log = self.log.clone();
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_TAIL)..).unwrap_or_default().join("\n");
        StartError::NotUp { problem, log, tail }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // `wait` closes the pipe, which ends process 1 and with it, before `wait` returns, every other process.
        let _ = self.child.wait();
    }
}

fn prepare(setup: Setup<'_>, directory: &Path) -> io::Result<()> {
    let Setup { plugins, conflist, .. } = setup;
    let (bin, conf) = (directory.join("bin"), directory.join("net.d"));
    fs::create_dir_all(DIRECTORIES)?;
    // Two of one name would share a configuration: the second is refused.
    fs::create_dir(directory)?;
    fs::create_dir(&bin)?;
    fs::create_dir(&conf)?;
    for plugin in plugins {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", plugin.display()));
        let plugin = fs::canonicalize(plugin).map_err(named)?;
        symlink(&plugin, bin.join(plugin.file_name().unwrap_or_default()))?;
    }
    if !conflist.is_empty() {
        fs::write(conf.join("10-e2e.conflist"), conflist)?;
    }
    fs::write(directory.join("config.toml"), config(&bin, &conf))?;
    fs::write(directory.join("containerd.sh"), include_str!("containerd.sh"))
}

/// containerd's configuration. Version 2 is what containerd 1.6 reads and containerd 2 converts.
fn config(bin: &Path, conf: &Path) -> String {
    // The opt plugin would make /opt/containerd on the machine. Lowering oom_score_adj is refused in many virtual
    // machines and containers; unless told so, runc fails there with "can't get final child's PID from pipe: EOF".
    format!(
        r#"version = 2
disabled_plugins = ["io.containerd.internal.v1.opt"]

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{bin}"
    conf_dir = "{conf}"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{SNAPSHOTTER}"
"#,
        image = image::REFERENCE,
        bin = bin.display(),
        conf = conf.display(),
    )
}

/// Starts containerd in the calling thread's network namespace. Not by `ip netns exec`: that mounts another /sys, and
/// runc would find no cgroups.
fn spawn(directory: &Path, log: &Path) -> io::Result<Child> {
    let log = File::create(log)?;
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"])
        .arg("sh")
        .args([directory.join("containerd.sh"), directory.join("config.toml")])
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
}

fn find_program(name: &'static str) -> Result<PathBuf, StartError> {
    program::on_path(name).ok_or(StartError::ProgramMissing(name))
}
