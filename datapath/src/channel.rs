//! What all netlink sockets have in common: a batch goes out in one send, and each answer is given to its request.

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::DecodeError;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::batch::{Answer, Batch, Object, answers};
use crate::socket::KernelError;

/// Large enough for any one datagram of the kernel's: it builds dumps in pages of at most 32 KiB.
const RECEIVE_BUFFER: usize = 32 * 1024;

/// A netlink socket that blocks.
#[derive(Debug)]
pub(crate) struct Channel {
    fd: OwnedFd,
    /// Holds the datagram that is being read. Never zeroed: most are an acknowledgement, and a pod's socket reads one or two.
    buffer: Vec<u8>,
    /// The sequence number of the next request. Never used twice in a while: what a conversation that was broken off left
    /// in the socket is nobody's answer.
    next: u32,
}

impl Channel {
    /// Opens a socket in the calling thread's network namespace. `None` is route netlink.
    pub(crate) fn open(protocol: Option<Protocol>) -> Result<Self, Errno> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        // 0 would look like a notification.
        Ok(Channel { fd, buffer: Vec::with_capacity(RECEIVE_BUFFER), next: 1 })
    }

    /// Sends all requests of a batch at once, hands over each object that comes, and waits until the kernel has carried out
    /// or refused each request.
    ///
    /// # Errors
    /// The first request that was refused. The requests around it may have been carried out all the same.
    pub(crate) fn converse(
        &mut self,
        batch: Batch,
        mut each_object: impl FnMut(&Object<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), KernelError> {
        if batch.is_empty() {
            return Ok(());
        }
        let first = self.next;
        let (bytes, steps) = batch.into_bytes(first);
        self.next = first.wrapping_add(u32::try_from(steps.len()).unwrap_or(u32::MAX)).max(1);
        let first_step = steps.first().map_or("talk to the kernel", |step| step.name);
        let failed = |source: Errno| KernelError::Socket { step: first_step, source: io::Error::from(source) };
        let unreadable = |e: DecodeError| KernelError::Unreadable { step: first_step, reason: e.to_string() };
        let sent = send(&self.fd, &bytes, SendFlags::empty()).map_err(failed)?;
        if sent != bytes.len() {
            return Err(failed(Errno::MSGSIZE));
        }

        let place = |sequence: u32| usize::try_from(sequence.wrapping_sub(first)).ok().filter(|&at| at < steps.len());
        let is_last = |place| place + 1 == steps.len();
        let ends_with_object = steps.last().is_some_and(|last| last.answered_by_object);
        let mut first_error = None;
        loop {
            self.buffer.clear();
            rustix::io::retry_on_intr(|| recv(&self.fd, spare_capacity(&mut self.buffer), RecvFlags::empty()))
                .map_err(failed)?;
            for answer in answers(&self.buffer) {
                let (sequence, answer) = answer.map_err(unreadable)?;
                let Some(place) = place(sequence) else { continue };
                let finished = match answer {
                    Answer::Object(object) => {
                        each_object(&object).map_err(unreadable)?;
                        ends_with_object && is_last(place)
                    }
                    Answer::Failed(code) => {
                        let errno = Errno::from_raw_os_error(code);
                        let step = steps.get(place);
                        if step.is_none_or(|step| step.tolerated != Some(errno)) {
                            let step = step.map_or(first_step, |step| step.name);
                            first_error.get_or_insert(KernelError::Refused { step, errno });
                        }
                        is_last(place)
                    }
                    Answer::Acknowledged | Answer::Done => is_last(place),
                    Answer::Noise => false,
                };
                if finished {
                    return first_error.map_or(Ok(()), Err);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NLM_F_DUMP;
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    #[test]
    fn what_a_conversation_that_was_broken_off_left_behind_is_nobody_s_answer() {
        let links = |channel: &mut Channel, unreadable: bool| {
            let mut batch = Batch::new();
            batch.push("list the links", RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP);
            let mut count = 0;
            let outcome = channel.converse(batch, |_| {
                count += 1;
                if unreadable { Err(DecodeError::from("a test")) } else { Ok(()) }
            });
            outcome.map(|()| count)
        };
        let mut channel = Channel::open(None).unwrap();
        let present = links(&mut channel, false).unwrap();
        assert!(present > 0, "there is a loopback link at least");
        assert!(links(&mut channel, true).is_err());
        assert_eq!(links(&mut channel, false).unwrap(), present);
        assert_eq!(links(&mut channel, false).unwrap(), present);
    }
}
