//! One question to the daemon over its socket, as `dotfourctl` asks it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dotfour_protocol::frame::{MAX_MESSAGE, decode_reply, encode_request};
use dotfour_protocol::{Call, Failure, NodeStatus, Reply, Request, Status};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send, socket_with,
};

/// How long the daemon may take to answer a question about its state.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon cannot be reached.
    #[error("the daemon does not answer on {socket}; is dotfour-ipamd running, and are you root?")]
    Unreachable {
        /// The socket's path.
        socket: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The daemon refused.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The daemon answered something else.
    #[error("the daemon's answer is not one to the question; install dotfourctl and the daemon from the same release")]
    Unexpected,
}

/// The daemon's state, with all pages of its attachments. Waits 5 s at most for each.
pub fn status(socket: &Path) -> Result<NodeStatus, ClientError> {
    let mut whole = page(socket, Status { after: None })?;
    while whole.more {
        let after = whole.attachments.last().and_then(|last| last.addresses.first()).copied();
        let next = page(socket, Status { after })?;
        whole.more = next.more && !next.attachments.is_empty();
        whole.attachments.extend(next.attachments);
    }
    Ok(whole)
}

/// Whether an ADD could be served, as a runtime's STATUS asks. Waits 5 s at most.
pub fn ready(socket: &Path) -> Result<(), ClientError> {
    match ask(socket, Call::Ready)? {
        Reply::Ready => Ok(()),
        Reply::Failed(failure) => Err(failure.into()),
        _ => Err(ClientError::Unexpected),
    }
}

fn page(socket: &Path, question: Status) -> Result<NodeStatus, ClientError> {
    match ask(socket, Call::Status(question))? {
        Reply::Status(status) => Ok(status),
        Reply::Failed(failure) => Err(failure.into()),
        _ => Err(ClientError::Unexpected),
    }
}

fn ask(socket: &Path, call: Call) -> Result<Reply, ClientError> {
    let request = encode_request(&Request::new(call))?;
    let bytes =
        exchange(socket, &request).map_err(|source| ClientError::Unreachable { socket: socket.to_owned(), source })?;
    Ok(decode_reply(&bytes)?)
}

fn exchange(path: &Path, request: &[u8]) -> Result<Vec<u8>, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    // A wait with a time limit is not gone on with by the kernel when it is interrupted.
    retry_on_intr(|| send(&socket, request, SendFlags::NOSIGNAL))?;
    let mut buffer = vec![0; MAX_MESSAGE];
    let (length, _) = retry_on_intr(|| recv(&socket, &mut *buffer, RecvFlags::empty()))?;
    buffer.truncate(length);
    Ok(buffer)
}
