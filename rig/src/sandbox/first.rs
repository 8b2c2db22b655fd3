//! Process 1 of a sandbox.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use dotfour_datapath::link::{LinkChange, LinkId};
use dotfour_datapath::{Batch, Socket};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::WaitOptions;

use crate::error::with_causes;

use super::outer::blocked_signals;
use super::refusal::forbidden;
use super::{MARKER, NETNS_DIR, SI_KERNEL, STAGE, STATE_DIR, SandboxError, shell_status};

/// What the outer process reports when the sandbox could not be made (EX_SOFTWARE of sysexits.h).
const CANNOT_MAKE: u8 = 70;
/// What a shell reports for a command that is not there.
const CANNOT_RUN: u8 = 127;

/// Makes the sandbox's mounts, runs the command to its end, and returns its status. `pipe` is the number of an inherited
/// descriptor that reads end-of-file once the outer process is gone.
pub(super) fn run(pipe: &str, command: &[OsString]) -> ExitCode {
    supervise(pipe, command).unwrap_or_else(|e| {
        eprintln!("dotfour-rig: {}", with_causes(&e));
        ExitCode::from(CANNOT_MAKE)
    })
}

fn supervise(pipe: &str, command: &[OsString]) -> Result<ExitCode, SandboxError> {
    let system = |step| move |source: io::Error| SandboxError::System { step, source };
    // Opened anew through /proc: a descriptor known by number only cannot be owned safely.
    let outer_alive = File::open(format!("/proc/self/fd/{pipe}")).map_err(system("watch the outer process"))?;
    make_private()?;
    let signals = blocked_signals().map_err(|e| system("wait for signals")(e.into()))?;

    // By way of this program again, as `start_command`.
    let this = std::env::current_exe().map_err(system("find this program's file"))?;
    let child = Command::new(this).args(command).env(STAGE, "last").spawn().map_err(system("start the command"))?;

    loop {
        // Orphans become children of process 1, so whoever ended is reaped here, not only the command.
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if u32::try_from(pid.as_raw_pid()).is_ok_and(|pid| pid == child.id()) {
                return Ok(shell_status(status.exit_status(), status.terminating_signal()));
            }
        }
        let mut watched =
            [PollFd::new(&signals, PollFlags::IN), PollFd::from_borrowed_fd(outer_alive.as_fd(), PollFlags::IN)];
        if poll(&mut watched, None).is_err() {
            continue;
        }
        let [signalled, outer] = watched.map(|fd| fd.revents());
        if !outer.is_empty() {
            // Nobody is left to report to; with this process all others of the sandbox end.
            return Ok(ExitCode::from(CANNOT_MAKE));
        }
        if !signalled.is_empty() {
            forward_signal(&signals);
        }
    }
}

/// Becomes the command. A child is born with the signals blocked that its parent waits for, and nothing safe can be done
/// between fork and exec; so a step of this program unblocks them. One that came meanwhile takes effect here.
pub(super) fn start_command(command: &[OsString]) -> ExitCode {
    let unblocked = SigSet::empty().thread_set_mask().map_err(io::Error::from);
    let Some((program, arguments)) = command.split_first() else {
        eprintln!("dotfour-rig: no command was given");
        return ExitCode::from(CANNOT_RUN);
    };
    let source = match unblocked {
        Ok(()) => Command::new(program).args(arguments).env(STAGE, "inside").exec(),
        Err(source) => source,
    };
    eprintln!("dotfour-rig: {}", with_causes(&SandboxError::Command { program: program.into(), source }));
    ExitCode::from(CANNOT_RUN)
}

/// Hands a signal to every process of the sandbox.
fn forward_signal(signals: &SignalFd) {
    let Ok(Some(signal)) = signals.read_signal() else { return };
    let Ok(received) = Signal::try_from(i32::try_from(signal.ssi_signo).unwrap_or_default()) else { return };
    if received != Signal::SIGCHLD && signal.ssi_code != SI_KERNEL {
        // -1 is everybody this process may signal except itself, which in a process namespace is everybody in it.
        let _ = nix::sys::signal::kill(Pid::from_raw(-1), received);
    }
}

/// Makes mounts private, `/proc` that of the new process namespace, `/run` empty, and sets the loopback link up.
fn make_private() -> Result<(), SandboxError> {
    let refused = |step| move |e: rustix::io::Errno| forbidden(step, e.into());
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(refused("make mounts private"))?;
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    // A container with a masked /proc may not mount another. The one that is there then stays: it shows the processes
    // by other numbers, but each its own entry.
    let _ = mount("proc", "/proc", "proc", quiet | MountFlags::NOEXEC, None);
    mount("tmpfs", "/run", "tmpfs", quiet, c"mode=0755").map_err(refused("mount a /run of its own"))?;

    let system = |step| move |source: io::Error| SandboxError::System { step, source };
    fs::write(MARKER, "").map_err(system("write to the new /run"))?;
    for directory in [NETNS_DIR, STATE_DIR, "/run/lock"] {
        make_directory(Path::new(directory)).map_err(system("make directories under the new /run"))?;
    }
    let mut batch = Batch::new();
    batch.change_link(
        "set up the loopback link",
        LinkId::Name("lo"),
        &LinkChange { up: Some(true), ..LinkChange::default() },
    );
    Socket::open()
        .and_then(|mut socket| socket.run(batch).map_err(io::Error::other))
        .map_err(system("set up the loopback link"))
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(0o755))?)
}
