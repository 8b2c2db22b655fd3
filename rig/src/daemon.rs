//! `dotfour-ipamd` on a node.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Node, RigError};

/// How often the socket is tried while the daemon starts.
const POLL: Duration = Duration::from_millis(1);
/// How many lines of the log an error shows.
const TAIL_LINES: usize = 12;

/// How a daemon is run.
#[derive(Debug, Clone)]
pub struct DaemonConfig {
    /// The program, `dotfour-ipamd`.
    pub program: PathBuf,
    /// `maxPods`.
    pub max_pods: usize,
    /// `cooldown`.
    pub cooldown: Duration,
    /// The `source` block as YAML, without `source:` and unindented.
    pub source: String,
    /// More top-level keys as YAML.
    pub more: String,
    /// How long it may take until the socket answers.
    pub ready_within: Duration,
}

impl DaemonConfig {
    /// The daemon's own defaults, with the wireserver as source. The answer's timeout is short, because the virtual one
    /// is near.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        DaemonConfig {
            program: program.into(),
            max_pods: 30,
            cooldown: Duration::from_secs(30),
            source: "kind: wireserver\nurl: http://168.63.129.16\ntimeout: 2s\n".to_owned(),
            more: String::new(),
            ready_within: Duration::from_secs(10),
        }
    }

    /// The configuration file for a node.
    fn text(&self, node: &Node) -> String {
        let source: String = self.source.lines().map(|line| format!("  {line}\n")).collect();
        format!(
            "mode: azure\nnic: {}\nsocket: {}\nstateDir: {}\ncooldown: {}ms\nmaxPods: {}\nsource:\n{source}{}\n",
            crate::node::NIC,
            socket_path(node).display(),
            node.state_dir().join("ipamd").display(),
            self.cooldown.as_millis(),
            self.max_pods,
            self.more
        )
    }
}

/// Where a node's daemon has its socket.
pub fn socket_path(node: &Node) -> PathBuf {
    node.state_dir().join("ipamd.sock")
}

/// Why a daemon does not run as it should.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// It cannot be started at all.
    #[error("cannot start {}", .program.display())]
    NotStarted {
        /// The program.
        program: PathBuf,
        /// Why.
        source: RigError,
    },
    /// It ended before it served.
    #[error("the daemon on {node} ended with {status} before it served\n{log}")]
    Ended {
        /// Which node.
        node: String,
        /// Its status.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// It runs but does not serve.
    #[error("the daemon on {node} did not serve within {within:?}\n{log}")]
    NotReady {
        /// Which node.
        node: String,
        /// How long it had.
        within: Duration,
        /// The end of its log.
        log: String,
    },
    /// It did not end when told to, and was killed.
    #[error("the daemon on {node} did not end within {within:?} of SIGTERM\n{log}")]
    NotStopped {
        /// Which node.
        node: String,
        /// How long it had.
        within: Duration,
        /// The end of its log.
        log: String,
    },
}

/// A running daemon. Killed when dropped; if this process is killed, only a [`crate::sandbox`] ends it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    node: String,
    socket: PathBuf,
    log: PathBuf,
}

impl Node {
    /// Writes the daemon's configuration, starts it in the node's network namespace and waits until its socket answers.
    /// One daemon per node at a time.
    pub fn start_daemon(&self, config: &DaemonConfig) -> Result<Daemon, DaemonError> {
        let mut daemon = self.spawn_daemon(config)?;
        let started = Instant::now();
        loop {
            if accepts(&daemon.socket) {
                return Ok(daemon);
            }
            let node = daemon.node.clone();
            if let Ok(Some(status)) = daemon.child.try_wait() {
                return Err(DaemonError::Ended { node, status, log: daemon.log_tail() });
            }
            if started.elapsed() > config.ready_within {
                return Err(DaemonError::NotReady { node, within: config.ready_within, log: daemon.log_tail() });
            }
            std::thread::sleep(POLL);
        }
    }

    /// As [`Node::start_daemon`], without waiting for anything: for a daemon that is not expected to come up.
    pub fn spawn_daemon(&self, config: &DaemonConfig) -> Result<Daemon, DaemonError> {
        let failed = |source| DaemonError::NotStarted { program: config.program.clone(), source };
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| RigError::File { path, source }
        };
        let path = self.state_dir().join("ipamd.yaml");
        fs::write(&path, config.text(self)).map_err(file(&path)).map_err(failed)?;
        let log = self.state_dir().join("ipamd.log");
        let stderr = File::create(&log).map_err(file(&log)).map_err(failed)?;
        let stdout = stderr.try_clone().map_err(file(&log)).map_err(failed)?;
        let child = self.netns().run(|| {
            Command::new(&config.program)
                .args(["run", "--config"])
                .arg(&path)
                .stdin(Stdio::null())
                .stdout(stdout)
                .stderr(stderr)
                .spawn()
        });
        let child = child
            .flatten()
            .map_err(|e: io::Error| RigError::Program {
                program: config.program.display().to_string(),
                reason: e.to_string(),
            })
            .map_err(failed)?;
        Ok(Daemon { child, node: self.name().to_owned(), socket: socket_path(self), log })
    }
}

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its socket, for the plugin's configuration.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends SIGTERM and waits for its end.
    ///
    /// # Errors
    /// If it is still there after `within`; it is killed then.
    pub fn stop(mut self, within: Duration) -> Result<ExitStatus, DaemonError> {
        self.signal(Signal::TERM);
        let asked = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if asked.elapsed() > within {
                return Err(DaemonError::NotStopped { node: self.node.clone(), within, log: self.log_tail() });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Kills it as the kernel would when memory runs out.
    pub fn kill(mut self) -> ExitStatus {
        let _ = self.child.kill();
        self.child.wait().unwrap_or_else(|_| ExitStatus::from_raw(Signal::KILL.as_raw()))
    }

    /// Stops it where it is, until [`Daemon::resume`], as a machine does that is starved: its sockets stay and nothing
    /// answers.
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`Daemon::suspend`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines it has logged, indented, for an error message.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.iter().skip(lines.len().saturating_sub(TAIL_LINES));
        let text: Vec<String> = tail.map(|line| format!("    {line}")).collect();
        if text.is_empty() { "    (its log is empty)".to_owned() } else { text.join("\n") }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether somebody accepts connections on the socket. A file left by a killed daemon refuses them.
fn accepts(path: &Path) -> bool {
    let Ok(address) = SocketAddrUnix::new(path) else { return false };
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .is_ok_and(|socket| connect(&socket, &address).is_ok())
}
