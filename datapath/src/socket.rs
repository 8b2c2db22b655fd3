//! A socket of route netlink, which blocks.
//!
//! A socket belongs for life to the network namespace it was opened in, whichever namespace its user is in later. That
//! is how one thread serves the node's namespace and any pod's.

use std::io;

use netlink_packet_core::{DecodeError, NLM_F_DUMP};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;

use crate::batch::{Batch, Object};
use crate::channel::{Channel, Memory};

/// How often to ask for all objects of a kind that are changed all the time.
const DUMPS: usize = 8;

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
pub struct Socket(Channel);

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        Ok(Socket(Channel::open(None)?))
    }

    /// Exchanges the socket's memory for another's, so that sockets which are used once each share one.
    pub fn swap_memory(&mut self, other: &mut Memory) {
        self.0.swap_memory(other);
    }

    /// An empty batch, in the memory of the one that was sent last.
    pub fn batch(&mut self) -> Batch {
        self.0.batch()
    }

    /// Sends all requests of a batch at once and waits until the kernel has carried out or refused each. Objects that come
    /// as answers are passed by.
    ///
    /// # Errors
    /// The first request that was refused. The requests around it may have been carried out all the same.
    pub fn run(&mut self, batch: Batch) -> Result<(), KernelError> {
        self.0.converse(batch, |_| Ok(()))
    }

    /// [`Socket::run`], for a batch whose last request asks for a link, of which the index alone is of interest.
    pub fn run_to_link(&mut self, batch: Batch) -> Result<Option<u32>, KernelError> {
        let mut index = None;
        self.0.converse(batch, |object| {
            index = object.link_index();
            Ok(())
        })?;
        Ok(index)
    }

    /// Like [`Socket::run`], for requests that ask for objects; hands each object over as it comes.
    pub(crate) fn exchange(
        &mut self,
        batch: Batch,
        each_object: impl FnMut(&Object<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), KernelError> {
        self.0.converse(batch, each_object)
    }

    /// [`Socket::dump_objects`], of objects that are read by the crate's types.
    pub(crate) fn dump<T>(
        &mut self,
        step: &'static str,
        question: RouteNetlinkMessage,
        read: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, KernelError> {
        self.dump_objects(step, question, |object| Ok(object.read()?.and_then(&read)))
    }

    /// Asks for all objects of a kind, and reads those that `read` knows. Asks again where they changed meanwhile; where they
    /// change all the time, something may be missing.
    pub(crate) fn dump_objects<T>(
        &mut self,
        step: &'static str,
        question: RouteNetlinkMessage,
        read: impl Fn(&Object<'_>) -> Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>, KernelError> {
        let mut found = Vec::new();
        for _ in 0..DUMPS {
            let mut batch = Batch::new();
            batch.push(step, question.clone(), NLM_F_DUMP);
            found.clear();
            match self.exchange(batch, |object| {
                found.extend(read(object)?);
                Ok(())
            }) {
                Err(e) if e.errno() == Some(Errno::INTR) => {}
                outcome => {
                    outcome?;
                    break;
                }
            }
        }
        Ok(found)
    }
}
