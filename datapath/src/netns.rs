//! Network namespaces. This is the one place that enters one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Socket;

/// A network namespace, held open by a descriptor. It lives at least as long as this value.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// The calling thread's namespace.
    pub fn current() -> io::Result<Self> {
        Ok(Netns(File::open("/proc/thread-self/ns/net")?.into()))
    }

    /// The namespace bound at a path (`/run/netns/…`, `/proc/PID/ns/net`). That the path is one shows when it is
    /// entered.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Netns(File::open(path)?.into()))
    }

    /// A new, empty namespace.
    pub fn create() -> io::Result<Self> {
        thread::scope(|scope| {
            thread::Builder::new()
                .spawn_scoped(scope, || {
                    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
                    Netns::current()
                })?
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread that makes a network namespace panicked")))
        })
    }

    /// Runs `work` inside the namespace, on a thread made for it, so that no early return can leave the caller in the
    /// wrong place.
    ///
    /// # Errors
    /// If the namespace cannot be entered; `EINVAL` means that it is not a network namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            thread::Builder::new()
                .spawn_scoped(scope, || {
                    move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))?;
                    Ok(work())
                })?
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread inside a network namespace panicked")))
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Netns {
    /// Takes over a descriptor received from elsewhere. That it is a network namespace shows when it is entered.
    fn from(fd: OwnedFd) -> Self {
        Netns(fd)
    }
}

/// A netlink socket inside another namespace, opened by a visit of this thread: 5 µs where a thread of its own costs 50.
///
/// The thread must not stay: a thread inside a pod's namespace would keep it alive after the pod's end.
///
/// # Errors
/// `EINVAL` if `target` is not a network namespace.
///
/// # Aborts
/// If the thread cannot return to `home`, the process ends: going on would wire pods in a stranger's namespace.
pub fn open_socket_in(target: BorrowedFd<'_>, home: &Netns) -> io::Result<Socket> {
    move_into_link_name_space(target, Some(LinkNameSpaceType::Network))?;
    let socket = Socket::open();
    if let Err(e) = move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network)) {
        eprintln!(
            "cannot return from a pod's network namespace: {e}; ending before anything is wired in the wrong one"
        );
        std::process::abort();
    }
    socket
}
