//! The daemon's socket: a few threads that each take a call, carry it out and answer.
//!
//! Plain threads that block, because a verb is kernel work from end to end: a round trip through them costs 26 µs, and
//! through an async runtime 85. The kernel serialises the work anyway, so few threads are enough.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dotfour_protocol::frame::{MAX_MESSAGE, decode_request, encode_reply};
use dotfour_protocol::{Cause, Failure, Reply, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, chmod};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, Shutdown,
    SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, recvmsg, send, shutdown, socket_with,
};
use tracing::{debug, error, warn};

use crate::verbs::{Node, answer, take_back};
use crate::wiring::Wirer;
use crate::wiring::pod::LinkIndices;

/// How many calls are carried out at once. More only queue up inside the kernel.
const THREADS: usize = 4;

/// How many callers may wait in line. A burst of pods must find room: a full line makes plugins wait.
const BACKLOG: i32 = 4096;

/// How long a caller may take to send its message or read the answer, which it does at once unless it is broken.
const CALLER_TIMEOUT: Duration = Duration::from_secs(2);

/// The running server.
#[derive(Debug)]
pub struct Server {
    listener: Arc<OwnedFd>,
    path: PathBuf,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts serving. The socket appears under its name only once calls are taken; one that a dead daemon left there
    /// is replaced.
    pub fn start(path: &Path, node: &Arc<Node>, indices: &Arc<LinkIndices>) -> io::Result<Self> {
        let new_name = path.with_extension(format!("new-{}", std::process::id()));
        let listener = Arc::new(open(&new_name)?);
        let mut threads = Vec::with_capacity(THREADS);
        for number in 0..THREADS {
            let (listener, node) = (Arc::clone(&listener), Arc::clone(node));
            let wirer = Wirer::new(Arc::clone(indices))?;
            let worker = Worker { listener, node, wirer, buffer: vec![0; MAX_MESSAGE] };
            threads.push(thread::Builder::new().name(format!("verbs-{number}")).spawn(move || worker.run())?);
        }
        std::fs::rename(&new_name, path)?;
        Ok(Server { listener, path: path.to_owned(), threads })
    }

    /// Stops taking calls, lets those under way finish, and removes the socket.
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
    buffer: Vec<u8>,
}

impl Worker {
    fn run(mut self) {
        loop {
            match accept_with(&*self.listener, SocketFlags::CLOEXEC) {
                Ok(caller) => self.serve(&caller),
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

    fn serve(&mut self, caller: &OwnedFd) {
        let (request, netns) = match receive(caller, &mut self.buffer) {
            Ok(received) => received,
            Err(e) => {
                debug!("a caller said nothing: {e}");
                return;
            }
        };
        let answer = answer(request, netns, &self.node, &mut self.wirer, || waits(caller));
        if let Reply::Failed(failure) = &answer.reply {
            warn!(code = failure.code, "refused: {failure}");
        }
        if let Err(e) = reply(caller, &answer.reply) {
            debug!("a caller did not wait for its answer: {e}");
            if let Some(added) = &answer.added {
                take_back(added, &self.node, &mut self.wirer);
            }
        }
    }
}

/// Whether the caller's end of the connection is still open.
fn waits(caller: &OwnedFd) -> bool {
    let mut look = [PollFd::new(caller, PollFlags::RDHUP)];
    match poll(&mut look, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(_) => !look.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR)),
        // Not to know is no reason to refuse.
        Err(_) => true,
    }
}

/// What a caller asks, and the descriptor it passed. A message that is not understood is an answerable failure; an
/// error means that there is nobody to answer.
type Received = (Result<Request, Failure>, Option<OwnedFd>);

fn receive(caller: &OwnedFd, buffer: &mut [u8]) -> io::Result<Received> {
    set_socket_timeout(caller, Timeout::Recv, Some(CALLER_TIMEOUT))?;
    set_socket_timeout(caller, Timeout::Send, Some(CALLER_TIMEOUT))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(caller, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut netns = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            // More than one is nobody's protocol; the rest is closed here.
            netns = descriptors.into_iter().next();
        }
    }
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // The socket's mode lets only root in. This is the same rule for one that somebody's chmod or bind mount opened.
    let uid = socket_peercred(caller)?.uid;
    if !uid.is_root() {
        return Ok((Err(not_root(uid.as_raw())), None));
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        let failure = Failure::new(
            Cause::ProtocolMismatch,
            format!("the request is longer than {MAX_MESSAGE} bytes"),
            "shorten the names in the network configuration and CNI_ARGS",
        );
        return Ok((Err(failure), None));
    }
    Ok((decode_request(buffer.get(..received.bytes).unwrap_or_default()), netns))
}

fn not_root(uid: u32) -> Failure {
    Failure::new(
        Cause::PermissionDenied,
        format!("user {uid} may not use the daemon's socket"),
        "run the container runtime, or dotfourctl, as root",
    )
}

fn reply(caller: &OwnedFd, reply: &Reply) -> io::Result<()> {
    let bytes = match encode_reply(reply) {
        Ok(bytes) => bytes,
        Err(failure) => encode_reply(&Reply::Failed(failure)).unwrap_or_default(),
    };
    rustix::io::retry_on_intr(|| send(caller.as_fd(), &bytes, SendFlags::NOSIGNAL))?;
    Ok(())
}
