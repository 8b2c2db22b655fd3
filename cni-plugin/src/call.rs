//! The call: one message out, one in, one deadline.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::mem::MaybeUninit;
use core::time::Duration;

use dotfour_protocol::{Cause, Failure, Request, frame};
use rustix::buffer::spare_capacity;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, IoSlice};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

use crate::answer::Answer;
use crate::quoted::Quoted;

/// How long ADD may wait for the daemon, in all. Far below the minutes a runtime gives a pod's sandbox, so that the
/// pod's event says what happened and not that a context expired, and long enough for a pool that has to grow first.
pub const ADD_DEADLINE: Duration = Duration::from_secs(20);

/// How long DEL may wait before it is spooled. The daemon answers in well under a millisecond, and a node that drains has
/// many pods to delete: all of a DEL, a hanging daemon included, stays under two seconds.
pub const DEL_DEADLINE: Duration = Duration::from_millis(1_500);

/// How long STATUS may wait. A runtime takes a failure for a network that is not ready, and its node with it, while a daemon
/// in the middle of a burst has each ADD wait its turn and serves it all the same.
pub const STATUS_DEADLINE: Duration = Duration::from_secs(5);

/// Opens the pod's network namespace, to be passed to the daemon.
///
/// # Errors
/// `invalid-namespace`. That it is a network namespace is for the daemon to find out, which has to look anyway.
pub fn open_namespace(path: &str) -> Result<OwnedFd, Failure> {
    // NONBLOCK, for a path may be anything: opening a FIFO that nobody writes would wait for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| {
        Failure::new(
            Cause::InvalidNamespace,
            format!("CNI_NETNS {} cannot be opened: {}", Quoted(path), ErrnoText(errno)),
            "the sandbox may have ended meanwhile; the runtime will make another one",
        )
    })
}

/// Sends the request, and the namespace if there is one, to the daemon at `socket`, and waits for its reply. All of it
/// together takes `deadline` at most. The connection is closed then.
///
/// # Errors
/// [`Lost`], with `daemon-unavailable` if nothing listens or the daemon ends before it has answered, `deadline-exceeded`,
/// `permission-denied`, `protocol-mismatch` if the other side is no Dotfour daemon of a fitting version, `io` for
/// whatever else the kernel refuses.
pub fn call(socket: &str, request: &Request, namespace: Option<&OwnedFd>, deadline: Duration) -> Result<Answer, Lost> {
    call_on(socket, request, namespace, deadline).map(|(answer, _)| answer)
}

/// [`call`], with the connection, which may be left open until the process ends.
pub(crate) fn call_on(
    socket: &str,
    request: &Request,
    namespace: Option<&OwnedFd>,
    deadline: Duration,
) -> Result<(Answer, OwnedFd), Lost> {
    let message = frame::encode_request(request).map_err(|failure| Lost { failure, may_have_acted: false })?;
    let exchanged = exchange(socket, &message, namespace.map(AsFd::as_fd), deadline);
    let (reply, connection) = exchanged.map_err(|stopped| {
        let may_have_acted = !matches!(stopped, Stopped::At(Step::Socket | Step::Connect | Step::Send, _));
        Lost { failure: stopped.into_failure(socket, deadline), may_have_acted }
    })?;
    let answer = Answer::read(reply).map_err(|fault| {
        let message = format!("the reply from {} is not one that this plugin knows: {fault}", Quoted(socket));
        Lost { failure: mismatch(message), may_have_acted: true }
    })?;
    Ok((answer, connection))
}

/// A call that has no answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost {
    /// Why.
    pub failure: Failure,
    /// Whether the message has gone out, so that nobody here knows what came of it.
    pub may_have_acted: bool,
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        lost.failure
    }
}

/// What stopped a call.
enum Stopped {
    /// The kernel refused a step.
    At(Step, Errno),
    /// The other side closed the connection and had not answered.
    Unanswered,
    /// The reply has this many bytes, more than any reply.
    TooLong(usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Socket,
    Connect,
    Send,
    Receive,
}

fn exchange(
    path: &str,
    message: &[u8],
    namespace: Option<BorrowedFd<'_>>,
    deadline: Duration,
) -> Result<(Vec<u8>, OwnedFd), Stopped> {
    let at = |step| move |errno| Stopped::At(step, errno);
    let address = SocketAddrUnix::new(path.as_bytes()).map_err(at(Step::Socket))?;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(at(Step::Socket))?;
    // The kernel keeps the time, so that no clock has to be read: an eighth for connecting, which waits while the
    // daemon's backlog is full, an eighth for sending, and the rest for the answer.
    let part = deadline / 8;
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(part)).map_err(at(Step::Socket))?;
    sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(deadline - 2 * part)).map_err(at(Step::Socket))?;

    uninterrupted(|| net::connect(&socket, &address)).map_err(at(Step::Connect))?;
    uninterrupted(|| send(socket.as_fd(), message, namespace)).map_err(at(Step::Send))?;
    let mut reply = Vec::with_capacity(frame::MAX_MESSAGE);
    let (_, length) = uninterrupted(|| net::recv(&socket, spare_capacity(&mut reply), RecvFlags::TRUNC))
        .map_err(at(Step::Receive))?;
    match length {
        0 => Err(Stopped::Unanswered),
        length if length > reply.len() => Err(Stopped::TooLong(length)),
        _ => Ok((reply, socket)),
    }
}

fn send(socket: BorrowedFd<'_>, message: &[u8], namespace: Option<BorrowedFd<'_>>) -> rustix::io::Result<usize> {
    // NOSIGNAL: a daemon that ends in this moment is an error to report, not a SIGPIPE to die of.
    let Some(namespace) = namespace else {
        return net::send(socket, message, SendFlags::NOSIGNAL);
    };
    let descriptors = [namespace];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    net::sendmsg(socket, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)
}

/// Goes on after a signal. The program handles none, but being stopped and continued interrupts a call with a
/// timeout all the same; the time then begins anew, which only somebody with a debugger will notice.
fn uninterrupted<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

impl Stopped {
    fn into_failure(self, socket: &str, deadline: Duration) -> Failure {
        let socket = Quoted(socket);
        match self {
            Stopped::At(Step::Connect, errno @ (Errno::NOENT | Errno::NOTDIR | Errno::CONNREFUSED)) => Failure::new(
                Cause::DaemonUnavailable,
                format!("nothing listens on {socket}: {}", ErrnoText(errno)),
                START_DAEMON,
            ),
            Stopped::At(_, errno @ (Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN)) => Failure::new(
                Cause::DaemonUnavailable,
                format!("the daemon at {socket} ended before it had taken the call: {}", ErrnoText(errno)),
                START_DAEMON,
            ),
            Stopped::Unanswered => Failure::new(
                Cause::DaemonUnavailable,
                format!("the daemon at {socket} closed the connection and had not answered"),
                START_DAEMON,
            ),
            Stopped::At(_, Errno::AGAIN) => Failure::new(
                Cause::DeadlineExceeded,
                format!("the daemon at {socket} has not answered within {} ms", deadline.as_millis()),
                "the runtime will try again; if this stays so, see what dotfour-ipamd logs and dotfourctl status says",
            ),
            Stopped::At(_, errno @ (Errno::ACCESS | Errno::PERM)) => Failure::new(
                Cause::PermissionDenied,
                format!("the socket {socket} may not be used: {}", ErrnoText(errno)),
                "the container runtime must run the plugin as root",
            ),
            Stopped::At(Step::Connect, errno @ Errno::PROTOTYPE) => Failure::new(
                Cause::ProtocolMismatch,
                format!("what listens on {socket} is not Dotfour's daemon: {}", ErrnoText(errno)),
                "correct socket in the network configuration",
            ),
            Stopped::TooLong(length) => mismatch(format!(
                "the reply from {socket} has {length} bytes, above the limit of {}",
                frame::MAX_MESSAGE
            )),
            Stopped::At(step, errno) => Failure::new(
                Cause::Io,
                format!("cannot {} the daemon at {socket}: {}", step.what(), ErrnoText(errno)),
                "see the kernel's log; the runtime will try again",
            ),
        }
    }
}

impl Step {
    /// Completes the sentence "cannot … the daemon".
    const fn what(self) -> &'static str {
        match self {
            Step::Socket => "make a socket for",
            Step::Connect => "connect to",
            Step::Send => "send to",
            Step::Receive => "receive from",
        }
    }
}

/// The other side speaks, but not as expected.
pub(crate) fn mismatch(message: impl Into<String>) -> Failure {
    Failure::new(
        Cause::ProtocolMismatch,
        message,
        "install the plugin and the daemon from the same release, or releases next to each other",
    )
}

const START_DAEMON: &str =
    "see that dotfour-ipamd runs on this node, and what it logs; its socket appears when it is ready to serve";

/// An error number, in the words of `strerror` where operators will meet it. Without `std` there are no others.
pub(crate) struct ErrnoText(pub(crate) Errno);

impl fmt::Display for ErrnoText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Errno::NOENT => "No such file or directory",
            Errno::NOTDIR => "Not a directory",
            Errno::ISDIR => "Is a directory",
            Errno::ACCESS => "Permission denied",
            Errno::PERM => "Operation not permitted",
            Errno::CONNREFUSED => "Connection refused",
            Errno::CONNRESET => "Connection reset by peer",
            Errno::PIPE => "Broken pipe",
            Errno::PROTOTYPE => "Protocol wrong type for socket",
            Errno::NAMETOOLONG => "File name too long",
            Errno::LOOP => "Too many levels of symbolic links",
            Errno::MFILE => "Too many open files",
            Errno::BADF => "Bad file descriptor",
            other => return write!(f, "error number {}", other.raw_os_error()),
        })
    }
}

#[cfg(test)]
mod tests;
