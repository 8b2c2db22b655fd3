//! One caller of the socket: what it asks, the descriptor that came along, and its answer.

use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use dotfour_protocol::frame::{MAX_REQUEST, decode_request, encode_reply};
use dotfour_protocol::{Cause, Failure, Reply, Request};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, RecvMsg, ReturnFlags, SendFlags, recvmsg, send,
};
use rustix::thread::sched_yield;
use tracing::{debug, warn};

use crate::metrics::{Outcome, Phase, Phases};

/// How long a caller may take to send its message or read the answer, which it does at once unless it is broken.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that carries one question and its answer.
#[derive(Debug)]
pub struct Caller {
    connection: OwnedFd,
    /// Times the call, from its accept to the end of its answer.
    pub phases: Phases,
    outcome: Cell<Outcome>,
}

/// What a caller asks, and the descriptor it passed. A message that is not understood is an answerable failure.
#[derive(Debug)]
pub struct Question {
    /// The request.
    pub request: Result<Request, Failure>,
    /// The descriptor.
    pub netns: Option<OwnedFd>,
    /// How many bytes of the buffer the message has.
    pub length: usize,
}

impl Caller {
    /// A connection that was accepted.
    pub fn new(connection: OwnedFd) -> Self {
        Caller { connection, phases: Phases::accepted(), outcome: Cell::new(Outcome::UNHEARD) }
    }

    /// Reads the question into `buffer`, which holds [`MAX_REQUEST`] bytes.
    ///
    /// # Errors
    /// There is nobody to answer.
    pub fn question(&self, buffer: &mut [u8]) -> io::Result<Question> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = self.receive(buffer, &mut ancillary)?;
        let (mut netns, length) = (None, received.bytes);
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                // More than one is nobody's protocol; the rest is closed here.
                netns = descriptors.into_iter().next();
            }
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // The socket's mode lets only root in. This is the same rule for one that somebody's chmod or bind mount opened.
        // Not with rustix, to which no process has the number 0. A plugin has it here: in a container, the daemon has a process
        // namespace of its own, and the plugin is outside.
        let uid = getsockopt(&self.connection, PeerCredentials)?.uid();
        if uid != 0 {
            return Ok(Question { request: Err(not_root(uid)), netns: None, length });
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Ok(Question { request: Err(too_long()), netns: None, length });
        }
        Ok(Question { request: decode_request(buffer.get(..length).unwrap_or_default()), netns, length })
    }

    /// A plugin sends its message right behind connecting, so the limit is set only for one that does not. Where both are on
    /// one processor, its connecting may have woken this thread before it could send: then it is to go on first, which is
    /// cheaper than to sleep and be woken again.
    fn receive(&self, buffer: &mut [u8], ancillary: &mut RecvAncillaryBuffer<'_>) -> io::Result<RecvMsg> {
        let mut receive = |flags| {
            rustix::io::retry_on_intr(|| recvmsg(&self.connection, &mut [IoSliceMut::new(buffer)], ancillary, flags))
        };
        let at_once = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = receive(at_once).or_else(|errno| match errno {
            Errno::AGAIN => {
                sched_yield();
                receive(at_once)
            }
            _ => Err(errno),
        });
        match received {
            Err(Errno::AGAIN) => {
                set_socket_timeout(&self.connection, Timeout::Recv, Some(TIMEOUT))?;
                Ok(receive(RecvFlags::CMSG_CLOEXEC)?)
            }
            received => Ok(received?),
        }
    }

    /// Whether the other end is still open.
    pub fn waits(&self) -> bool {
        let mut look = [PollFd::new(&self.connection, PollFlags::RDHUP)];
        match poll(&mut look, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) => !look.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR)),
            // Not to know is no reason to refuse.
            Err(_) => true,
        }
    }

    /// Answers. True if the caller has received what it asked for. It has not if nobody is there, nor if all that there is
    /// to say is a failure, as of an answer that no message holds.
    #[must_use = "what nobody was told of must be undone"]
    pub fn answer(&self, reply: &Reply) -> bool {
        self.phases.enter(Phase::Reply);
        let refusal;
        let (reply, bytes) = match encode_reply(reply) {
            Ok(bytes) => (reply, bytes),
            Err(failure) => {
                refusal = Reply::Failed(failure);
                (&refusal, encode_reply(&refusal).unwrap_or_default())
            }
        };
        // One message fits into any socket's buffer, so this never waits.
        let sent =
            rustix::io::retry_on_intr(|| send(&self.connection, &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT));
        self.phases.finish();
        self.outcome.set(Outcome::of(reply, sent.is_ok()));
        // Where both are on one processor, the caller is to go on before this thread looks after itself.
        sched_yield();
        if let Reply::Failed(failure) = reply {
            warn!(code = failure.code, "refused: {failure}");
        }
        match sent {
            Ok(_) => !matches!(reply, Reply::Failed(_)),
            Err(e) => {
                debug!("a caller did not wait for its answer: {e}");
                false
            }
        }
    }

    /// What came of the call, once it is answered.
    pub fn outcome(&self) -> Outcome {
        self.outcome.get()
    }
}

fn not_root(uid: u32) -> Failure {
    Failure::new(
        Cause::PermissionDenied,
        format!("user {uid} may not use the daemon's socket"),
        "run the container runtime, or dotfourctl, as root",
    )
}

fn too_long() -> Failure {
    Failure::new(
        Cause::ProtocolMismatch,
        format!("the request is longer than {MAX_REQUEST} bytes"),
        "shorten the names in the network configuration and CNI_ARGS",
    )
}
