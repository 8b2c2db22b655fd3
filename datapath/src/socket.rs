//! A netlink socket that blocks.
//!
//! A socket belongs for life to the network namespace it was opened in, whichever namespace its user is in later. That
//! is how one thread serves the node's namespace and any pod's.

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::{DecodeError, NLM_F_DUMP};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::batch::{Answer, Batch, Object, answers};

/// Large enough for any one datagram of the kernel's: it builds dumps in pages of at most 32 KiB.
const RECEIVE_BUFFER: usize = 32 * 1024;

/// A step that the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A request was answered with an error.
    #[error("cannot {step}: {errno}")]
    Refused {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The netlink socket itself failed.
    #[error("cannot {step}: the netlink socket failed: {source}")]
    Socket {
        /// What was being done.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel said something that cannot be read.
    #[error("cannot {step}: the kernel's answer cannot be read: {reason}")]
    Unreadable {
        /// What was being done.
        step: &'static str,
        /// Why.
        reason: String,
    },
}

impl KernelError {
    /// The kernel's error number, where the kernel refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            KernelError::Refused { errno, .. } => Some(*errno),
            KernelError::Socket { .. } | KernelError::Unreadable { .. } => None,
        }
    }
}

/// A route-netlink socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        // NETLINK_ROUTE is protocol 0, the default.
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Socket { fd, buffer: vec![0; RECEIVE_BUFFER] })
    }

    /// Sends all requests of a batch at once and waits until the kernel has carried out or refused each. Objects that come
    /// as answers are passed by.
    ///
    /// # Errors
    /// The first request that was refused. The requests around it may have been carried out all the same.
    pub fn run(&mut self, batch: Batch) -> Result<(), KernelError> {
        self.converse(batch, |_| Ok(()))
    }

    /// Like [`Socket::run`], for requests that ask for objects; hands each object over as it comes.
    pub fn exchange(
        &mut self,
        batch: Batch,
        mut each_object: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), KernelError> {
        self.converse(batch, |object| {
            object.read()?.into_iter().for_each(&mut each_object);
            Ok(())
        })
    }

    /// Asks for all objects of a kind, and reads those that `read` knows.
    pub(crate) fn dump<T>(
        &mut self,
        step: &'static str,
        question: RouteNetlinkMessage,
        read: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, KernelError> {
        let mut batch = Batch::new();
        batch.push(step, question, NLM_F_DUMP);
        let mut found = Vec::new();
        self.exchange(batch, |object| found.extend(read(object)))?;
        Ok(found)
    }

    fn converse(
        &mut self,
        batch: Batch,
        mut each_object: impl FnMut(&Object<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), KernelError> {
        if batch.is_empty() {
            return Ok(());
        }
        let (bytes, steps) = batch.into_bytes();
        let first_step = steps.first().map_or("talk to the kernel", |step| step.name);
        let failed = |source: Errno| KernelError::Socket { step: first_step, source: source.into() };
        let unreadable = |e: DecodeError| KernelError::Unreadable { step: first_step, reason: e.to_string() };
        let sent = send(&self.fd, &bytes, SendFlags::empty()).map_err(failed)?;
        if sent != bytes.len() {
            return Err(failed(Errno::MSGSIZE));
        }

        let place = |sequence: u32| usize::try_from(sequence).unwrap_or_default();
        let is_last = |sequence| place(sequence) == steps.len();
        let ends_with_object = steps.last().is_some_and(|last| last.answered_by_object);
        let mut first_error = None;
        loop {
            let (length, _) =
                rustix::io::retry_on_intr(|| recv(&self.fd, &mut *self.buffer, RecvFlags::empty())).map_err(failed)?;
            for answer in answers(self.buffer.get(..length).unwrap_or_default()) {
                let finished = match answer.map_err(unreadable)? {
                    Answer::Object(sequence, object) => {
                        each_object(&object).map_err(unreadable)?;
                        ends_with_object && is_last(sequence)
                    }
                    Answer::Failed(sequence, code) => {
                        let errno = Errno::from_raw_os_error(code);
                        let step = place(sequence).checked_sub(1).and_then(|i| steps.get(i));
                        if step.is_none_or(|step| step.tolerated != Some(errno)) {
                            let step = step.map_or(first_step, |step| step.name);
                            first_error.get_or_insert(KernelError::Refused { step, errno });
                        }
                        is_last(sequence)
                    }
                    Answer::Acknowledged(sequence) => is_last(sequence),
                    Answer::Done => true,
                    Answer::Noise => false,
                };
                if finished {
                    return first_error.map_or(Ok(()), Err);
                }
            }
        }
    }
}
