//! The process the user started.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};

use super::refusal::forbidden;
use super::{SI_KERNEL, STAGE, SandboxError, shell_status};

/// Signals that are handed on.
pub(super) const FORWARDED: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

pub(super) fn run(command: &[OsString]) -> Result<ExitCode, SandboxError> {
    let system = |step| move |source| SandboxError::System { step, source };
    let program = std::env::current_exe().map_err(system("find this program's file"))?;
    unshare()?;

    // Blocked before the child is there, which is born with them blocked, so that none is lost.
    let signals = blocked_signals().map_err(|e| system("wait for signals")(e.into()))?;
    let (alive_reader, _alive_writer) = alive_pipe().map_err(|e| system("make a pipe")(e.into()))?;
    let mut child = Command::new(program)
        .args(command)
        .env(STAGE, format!("first:{}", alive_reader.as_raw_fd()))
        .spawn()
        .map_err(system("start the sandbox's first process"))?;
    drop(alive_reader);

    loop {
        if let Some(status) = child.try_wait().map_err(system("wait for the sandbox"))? {
            return Ok(shell_status(status.code(), status.signal()));
        }
        // A thread would be simpler, but none can be made once the process namespace is unshared.
        let Ok(Some(signal)) = signals.read_signal() else { continue };
        let Ok(received) = Signal::try_from(i32::try_from(signal.ssi_signo).unwrap_or_default()) else { continue };
        if received != Signal::SIGCHLD && signal.ssi_code != SI_KERNEL {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
            // It may have ended just now, which the next turn of the loop sees.
            let _ = nix::sys::signal::kill(pid, received);
        }
    }
}

/// Leaves the machine's namespaces. Root keeps its user namespace; a root without the right (in a container) and
/// everyone else make one in which they are root.
fn unshare() -> Result<(), SandboxError> {
    let spaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    if rustix::process::geteuid().is_root() && nix::sched::unshare(spaces).is_ok() {
        return Ok(());
    }
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let make_user_namespace = "make user, mount, network and process namespaces";
    nix::sched::unshare(spaces | CloneFlags::CLONE_NEWUSER).map_err(|e| forbidden(make_user_namespace, e.into()))?;
    // user_namespaces(7): a group map needs setgroups denied first. Kernels without the file have no such rule.
    let _ = std::fs::write("/proc/self/setgroups", "deny");
    for (file, id) in [("/proc/self/uid_map", uid.as_raw()), ("/proc/self/gid_map", gid.as_raw())] {
        std::fs::write(file, format!("0 {id} 1")).map_err(|e| forbidden("be root in a user namespace", e))?;
    }
    Ok(())
}

pub(super) fn blocked_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    FORWARDED.iter().chain(&[Signal::SIGCHLD]).for_each(|signal| set.add(*signal));
    set.thread_block()?;
    SignalFd::with_flags(&set, nix::sys::signalfd::SfdFlags::SFD_CLOEXEC)
}

/// A pipe whose reading end the first process inherits and whose writing end only this process has.
fn alive_pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfd(reader.as_fd(), FdFlags::empty())?;
    Ok((reader, writer))
}
