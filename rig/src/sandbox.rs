//! Namespaces of a program's own, from which nothing gets out and of which nothing stays.
//!
//! Three processes make a sandbox. The *outer* one is what the user started: it unshares user (unless it is root),
//! mount, network and process namespaces, starts the *first* one as process 1 of the new process namespace, hands
//! signals on and ends with its status. The first one makes `/proc` and `/run` private, runs the *command* and reaps
//! orphans. When the first process ends, for whatever reason, the kernel kills everything in its process namespace, and
//! with the last process go all links, rules, mounts and files under `/run`. The first process ends when the command
//! does, or when the outer process is gone, which a pipe tells it: so a SIGKILL to the outer process leaves nothing.
//!
//! Unsharing a user namespace needs a process of one thread, so all of this comes first in `main`, before any runtime.

mod first;
mod outer;
mod refusal;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::Place;

/// Tells a process what it is: `first:FD` with the pipe's number, `last` for the step that becomes the command, or
/// `inside`.
const STAGE: &str = "DOTFOUR_RIG_SANDBOX";
/// Exists in every sandbox's private `/run`, and nowhere else: an inherited variable alone proves nothing.
const MARKER: &str = "/run/.dotfour-rig-sandbox";
/// Where named network namespaces are mounted, as everywhere on Linux.
const NETNS_DIR: &str = "/run/netns";
/// Where the rig keeps files: in the sandbox's own `/run`.
const STATE_DIR: &str = "/run/dotfour-rig";

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The machine does not allow the namespaces.
    #[error("this machine does not let us {step} ({refusal})\n  why: {why}\n  do:  {remedy}")]
    Forbidden {
        /// What was refused.
        step: &'static str,
        /// The kernel's answer. Part of the message, which goes on behind it.
        refusal: io::Error,
        /// Which setting forbids it, as far as it can be told.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// The command cannot be started.
    #[error("cannot run {}", .program.display())]
    Command {
        /// The command's program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A system call failed that no setting forbids.
    #[error("cannot {step}")]
    System {
        /// What was being done.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Where the caller finds itself after [`enter`].
#[derive(Debug)]
pub enum Entered {
    /// In a sandbox: go on.
    Inside(Sandbox),
    /// Outside, and the program has run its course inside: return this from `main`.
    Over(ExitCode),
}

/// Proof of being in a sandbox: network namespaces, mounts and `/run` are private here.
#[derive(Debug, Clone)]
pub struct Sandbox(());

impl Sandbox {
    /// The sandbox this process is in, if it is in one.
    pub fn current() -> Option<Self> {
        let inside = std::env::var_os(STAGE).is_some_and(|stage| stage == "inside");
        (inside && Path::new(MARKER).exists()).then_some(Sandbox(()))
    }

    /// Where the rig's files and named namespaces go: under the private `/run`, so they vanish with the sandbox.
    pub fn place(&self) -> Place {
        Place::named(STATE_DIR, NETNS_DIR)
    }
}

/// Runs the calling program again inside a new sandbox, with the same arguments, unless it is in one already.
///
/// To be called before anything else in `main`, while the process has one thread.
///
/// # Errors
/// If the machine does not allow the namespaces; the message says what to change.
pub fn enter() -> Result<Entered, SandboxError> {
    if let Some(over) = serve_as_first_process() {
        return Ok(Entered::Over(over));
    }
    if let Some(sandbox) = Sandbox::current() {
        return Ok(Entered::Inside(sandbox));
    }
    let program =
        std::env::current_exe().map_err(|source| SandboxError::System { step: "find this program's file", source })?;
    let mut command = vec![program.into_os_string()];
    command.extend(std::env::args_os().skip(1));
    run(&command).map(Entered::Over)
}

/// Runs a command inside a new sandbox, also from within another one. Returns the command's status; 128 + N if signal N
/// ended it.
///
/// # Errors
/// As [`enter`]. What fails behind the new namespaces' border is printed to standard error and is a status of its own:
/// 127 if the command cannot be started, 70 for all else.
pub fn run(command: &[OsString]) -> Result<ExitCode, SandboxError> {
    outer::run(command)
}

/// Does a sandbox's own work, if that is what this process was started for; for a `main` that must look at its arguments
/// before it enters. `None`: go on.
pub fn serve_as_first_process() -> Option<ExitCode> {
    let stage = std::env::var(STAGE).ok()?;
    let command: Vec<OsString> = std::env::args_os().skip(1).collect();
    match stage.strip_prefix("first:") {
        Some(pipe) => Some(first::run(pipe, &command)),
        None => (stage == "last").then(|| first::start_command(&command)),
    }
}

/// The status a shell would report for an ended process.
fn shell_status(code: Option<i32>, signal: Option<i32>) -> ExitCode {
    let status = code.or_else(|| signal.map(|signal| 128_i32.saturating_add(signal)));
    ExitCode::from(status.and_then(|status| u8::try_from(status).ok()).unwrap_or(u8::MAX))
}

/// `si_code` of a signal that the terminal sent: it reaches every process in the foreground by itself.
const SI_KERNEL: i32 = 0x80;
