//! The daemon's socket: a few threads that each take a call, carry it out and answer.
//!
//! Plain threads that block, because a verb is kernel work from end to end: a round trip through them costs 26 µs, and
//! through an async runtime 85. The kernel serialises the work anyway, so few threads are enough.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dotfour_protocol::frame::MAX_REQUEST;
use rustix::fs::{Mode, chmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, shutdown, socket_with,
};
use tracing::{debug, error};

use crate::aftermath::{Aftermath, Leaver, Settler};
use crate::caller::Caller;
use crate::metrics::Verb;
use crate::metrics::slow::tell_slow;
use crate::verbs::{Left, Node, answer};
use crate::wiring::Wirer;
use crate::wiring::pod::LinkIndices;

/// How many calls are carried out at once. More only queue up inside the kernel.
const THREADS: usize = 4;

/// How many callers may wait in line. A burst of pods must find room: a full line makes plugins wait.
const BACKLOG: i32 = 4096;

/// The running server.
#[derive(Debug)]
pub struct Server {
    listener: Arc<OwnedFd>,
    path: PathBuf,
    threads: Vec<JoinHandle<()>>,
    aftermath: Aftermath,
}

impl Server {
    /// Starts serving. The socket appears under its name only once calls are taken; one that a dead daemon left there
    /// is replaced.
    pub fn start(path: &Path, node: &Arc<Node>, indices: &Arc<LinkIndices>) -> io::Result<Self> {
        let new_name = NewName::of(path);
        let listener = Arc::new(open(&new_name.0)?);
        let aftermath = Aftermath::start(node, indices)?;
        let mut threads = Vec::with_capacity(THREADS);
        for number in 0..THREADS {
            let (listener, node) = (Arc::clone(&listener), Arc::clone(node));
            let wirer = Wirer::new(Arc::clone(indices))?;
            let worker = Worker { listener, node, wirer, leaver: aftermath.leaver(), buffer: vec![0; MAX_REQUEST] };
            threads.push(thread::Builder::new().name(format!("verbs-{number}")).spawn(move || worker.run())?);
        }
        std::fs::rename(&new_name.0, path)?;
        Ok(Server { listener, path: path.to_owned(), threads, aftermath })
    }

    /// For those who read what has become of calls.
    pub fn settler(&self) -> Settler {
        self.aftermath.settler()
    }

    /// Stops taking calls, lets those under way finish, with all that is left to do of them, and removes the socket.
    pub fn stop(self) {
        if let Err(e) = std::fs::remove_file(&self.path) {
            debug!("cannot remove {}: {e}", self.path.display());
        }
        // Wakes the threads that wait for a caller.
        if let Err(e) = shutdown(&*self.listener, Shutdown::Both) {
            error!("cannot stop listening: {e}");
        }
        for thread in self.threads {
            if thread.join().is_err() {
                error!("a verb thread had panicked");
            }
        }
        if self.aftermath.end().is_err() {
            error!("the aftermath thread had panicked");
        }
    }
}

/// The name of a socket that does not serve yet. Nothing is left there: in a container, the next daemon has the same process id.
struct NewName(PathBuf);

impl NewName {
    fn of(path: &Path) -> Self {
        let name = NewName(path.with_extension(format!("new-{}", std::process::id())));
        name.remove();
        name
    }

    fn remove(&self) {
        // That there is none is as it should be; what cannot be removed cannot be bound either, which is told.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Drop for NewName {
    fn drop(&mut self) {
        self.remove();
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    bind(&listener, &SocketAddrUnix::new(path)?)?;
    chmod(path, Mode::RUSR | Mode::WUSR)?;
    listen(&listener, BACKLOG)?;
    Ok(listener)
}

struct Worker {
    listener: Arc<OwnedFd>,
    node: Arc<Node>,
    wirer: Wirer,
    leaver: Leaver,
    buffer: Vec<u8>,
}

impl Worker {
    fn run(mut self) {
        loop {
            match accept_with(&*self.listener, SocketFlags::CLOEXEC) {
                Ok(connection) => self.serve(Caller::new(connection)),
                // The listener was shut down.
                Err(Errno::INVAL) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(e) => {
                    // Out of descriptors or memory: give others time to return some.
                    error!("cannot take a call: {e}");
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn serve(&mut self, caller: Caller) {
        let question = match caller.question(&mut self.buffer) {
            Ok(question) => question,
            Err(e) => return debug!("a caller said nothing: {e}"),
        };
        let (verb, length) = (Verb::of(&question.request), question.length);
        let left = answer(question, &caller, &self.node, &mut self.wirer);
        if self.node.metrics.is_slow(verb, &caller.phases) {
            tell_slow(self.buffer.get(..length).unwrap_or_default(), caller.outcome(), &caller.phases);
        }
        match left {
            Left::Nothing => self.node.metrics.call(verb, caller.outcome(), &caller.phases),
            left => self.leaver.leave(verb, caller, left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_never_served_is_in_nobody_s_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ipamd.sock");
        // Killed between binding and serving; in a container, the next one has the same process id.
        let killed = NewName::of(&path);
        let _left = open(&killed.0).unwrap();
        std::mem::forget(killed);
        let next = NewName::of(&path);
        let _listener = open(&next.0).unwrap();
        drop(next);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
