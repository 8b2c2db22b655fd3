//! One plugin process.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Instant;

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Network, Plugin};
use crate::Pod;

/// A CNI operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// ADD.
    Add,
    /// DEL.
    Del,
    /// CHECK.
    Check,
    /// GC.
    Gc,
    /// STATUS.
    Status,
    /// VERSION.
    Version,
}

impl Verb {
    /// As `CNI_COMMAND` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Gc => "GC",
            Verb::Status => "STATUS",
            Verb::Version => "VERSION",
        }
    }
}

/// The error object a plugin prints (CNI specification 1.1, section 5).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CniError {
    /// The code.
    pub code: u32,
    /// The short message.
    pub msg: String,
    /// The longer one.
    #[serde(default)]
    pub details: String,
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The node's namespace cannot be entered.
    #[error("cannot enter the node's namespace")]
    Enter(#[source] io::Error),
    /// The network has no plugin.
    #[error("the network has no plugin")]
    NoPlugin,
    /// The network has no plugin, or more than one, and the call is for exactly one.
    #[error("the network has not exactly one plugin")]
    NotOnePlugin,
    /// The program cannot be run.
    #[error("cannot run {}", .program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The plugin reported a failure.
    #[error("{} failed with code {}: {}; {}", .verb.name(), .error.code, .error.msg, .error.details)]
    Failed {
        /// The operation.
        verb: Verb,
        /// What it printed.
        error: CniError,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// The plugin did not keep to the protocol.
    #[error("{} ended with {status} and printed {stdout:?} (standard error: {stderr:?})", .verb.name())]
    Protocol {
        /// The operation.
        verb: Verb,
        /// Its status.
        status: ExitStatus,
        /// What it printed.
        stdout: String,
        /// What it wrote to standard error.
        stderr: String,
    },
}

impl CallError {
    /// Whether SIGKILL ended the plugin.
    pub fn killed(&self) -> bool {
        matches!(self, CallError::Protocol { status, .. } if status.signal() == Some(Signal::KILL.as_raw()))
    }

    /// The plugin's error object, if it printed one.
    pub fn cni(&self) -> Option<&CniError> {
        match self {
            CallError::Failed { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// A plugin process that was started and not waited for. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    /// Absent once it was waited for.
    child: Option<Child>,
    verb: Verb,
    program: PathBuf,
    started: Instant,
}

impl Running {
    /// Its process id. None once it was waited for.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<Answer, CallError> {
        let failed = |source| CallError::Run { program: self.program.clone(), source };
        let child = self.child.take().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let output = child.wait_with_output().map_err(failed)?;
        let took = self.started.elapsed();
        let result = read(self.verb, &output)?;
        Ok(Answer { result, took })
    }

    /// Closes its output, as the death of its caller does, and waits for its end.
    pub fn abandon(mut self) -> io::Result<ExitStatus> {
        let mut child = self.child.take().ok_or(io::ErrorKind::NotFound)?;
        drop((child.stdout.take(), child.stderr.take()));
        child.wait()
    }

    /// Kills it, as a runtime does that has waited long enough. What comes back is [`CallError::killed`], or else what it
    /// had to say before.
    pub fn kill(mut self) -> Result<Answer, CallError> {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
        }
        self.finish()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs one plugin in the calling thread's network namespace.
pub(super) fn run(
    verb: Verb,
    network: &Network,
    plugin: &Plugin,
    pod: Option<&Pod>,
    previous: Option<&Value>,
) -> Result<Answer, CallError> {
    start(verb, network, plugin, pod, previous)?.finish()
}

/// As [`run`], without waiting.
pub(super) fn start(
    verb: Verb,
    network: &Network,
    plugin: &Plugin,
    pod: Option<&Pod>,
    previous: Option<&Value>,
) -> Result<Running, CallError> {
    let input = match verb {
        Verb::Version => json!({ "cniVersion": network.cni_version }),
        _ => network.input(plugin, previous),
    };
    let input = input.to_string();
    let mut command = Command::new(&plugin.binary);
    // A runtime is a system service; its environment holds little more than a PATH, which plugins that run others need.
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("CNI_COMMAND", verb.name()).env("CNI_PATH", joined(&network.cni_path));
    if let Some(pod) = pod {
        command
            .env("CNI_CONTAINERID", &pod.container_id)
            .env("CNI_NETNS", pod.netns_path())
            .env("CNI_IFNAME", &pod.ifname)
            .env("CNI_ARGS", arguments(pod));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());

    let failed = |source| CallError::Run { program: plugin.binary.clone(), source };
    let started = Instant::now();
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin may end without reading; what it then says counts.
        let _ = stdin.write_all(input.as_bytes());
    }
    Ok(Running { child: Some(child), verb, program: plugin.binary.clone(), started })
}

/// Reads what a plugin left. Success may print nothing; failure must print an error object.
fn read(verb: Verb, output: &Output) -> Result<Value, CallError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let protocol = || CallError::Protocol {
        verb,
        status: output.status,
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    if output.status.success() {
        if output.stdout.trim_ascii().is_empty() {
            return Ok(Value::Null);
        }
        return serde_json::from_slice(&output.stdout).map_err(|_| protocol());
    }
    let error = serde_json::from_slice(&output.stdout).map_err(|_| protocol())?;
    Err(CallError::Failed { verb, error, stderr: text(&output.stderr) })
}

/// `CNI_ARGS` as containerd's CRI sets it.
fn arguments(pod: &Pod) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        pod.namespace, pod.name, pod.container_id, pod.uid
    )
}

fn joined(paths: &[PathBuf]) -> OsString {
    paths.iter().map(|path| Path::as_os_str(path)).collect::<Vec<_>>().join(":".as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(status: i32, stdout: &str) -> Output {
        Output { status: ExitStatus::from_raw(status << 8), stdout: stdout.into(), stderr: b"oops".to_vec() }
    }

    #[test]
    fn success_is_a_result_or_nothing_at_all() {
        assert_eq!(read(Verb::Del, &output(0, "\n")).unwrap(), Value::Null);
        assert_eq!(read(Verb::Add, &output(0, "{\"ips\":[]}")).unwrap(), json!({ "ips": [] }));
        assert!(matches!(read(Verb::Add, &output(0, "wired!")), Err(CallError::Protocol { .. })));
    }

    #[test]
    fn failure_is_an_error_object_and_anything_else_breaks_the_protocol() {
        let failed = read(Verb::Add, &output(1, r#"{"code":11,"msg":"pool-exhausted"}"#)).unwrap_err();
        assert_eq!(failed.cni().map(|e| (e.code, e.msg.as_str())), Some((11, "pool-exhausted")));
        assert!(matches!(read(Verb::Add, &output(1, "")), Err(CallError::Protocol { .. })));
        assert!(matches!(read(Verb::Add, &output(2, "panicked")), Err(CallError::Protocol { .. })));
    }
}
