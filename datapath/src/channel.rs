//! What all netlink sockets have in common: a batch goes out in one send, and each answer is given to its request.

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::DecodeError;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::batch::{Answer, Batch, Object, PART, Step, answers};
use crate::socket::KernelError;

/// Large enough for any one datagram of the kernel's: it builds dumps in pages of at most 32 KiB.
const RECEIVE_BUFFER: usize = 32 * 1024;

/// A netlink socket that blocks.
#[derive(Debug)]
pub(crate) struct Channel {
    fd: OwnedFd,
    memory: Memory,
    /// The sequence number of the next request. Never used twice in a while: what a conversation that was broken off left
    /// in the socket is nobody's answer.
    next: u32,
}

/// What a socket works with beside its descriptor. From one that is used once, the next can take it over.
#[derive(Debug, Default)]
pub struct Memory {
    /// Holds the datagram that is being read. Never zeroed: most are an acknowledgement, and a pod's socket reads one or two. It
    /// is given room with the first datagram.
    received: Vec<u8>,
    /// The batch that was sent last, emptied.
    batch: Option<Batch>,
}

impl Channel {
    /// Opens a socket in the calling thread's network namespace. `None` is route netlink.
    pub(crate) fn open(protocol: Option<Protocol>) -> Result<Self, Errno> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        // 0 would look like a notification.
        Ok(Channel { fd, memory: Memory::default(), next: 1 })
    }

    /// Exchanges its memory for another's.
    pub(crate) fn swap_memory(&mut self, other: &mut Memory) {
        std::mem::swap(&mut self.memory, other);
    }

    /// An empty batch, in the memory of the one before.
    pub(crate) fn batch(&mut self) -> Batch {
        self.memory.batch.take().unwrap_or_default()
    }

    /// Receives a datagram in place of the one before.
    fn receive(&mut self, flags: RecvFlags) -> Result<(), Errno> {
        let Memory { received, .. } = &mut self.memory;
        received.clear();
        received.reserve(RECEIVE_BUFFER);
        recv(&self.fd, spare_capacity(received), flags).map(|_| ())
    }

    /// Sends the requests of a batch, hands over each object that comes, and waits until the kernel has carried out or refused
    /// each request. A batch that might have more answers than the socket has room for goes out in parts.
    ///
    /// # Errors
    /// The first request that was refused. The requests around it may have been carried out all the same. `EINTR`: what was
    /// dumped has changed meanwhile. Or the socket failed; then the parts behind have not been sent.
    pub(crate) fn converse(
        &mut self,
        mut batch: Batch,
        each_object: impl FnMut(&Object<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), KernelError> {
        let first = self.next;
        batch.number(first);
        self.next = first.wrapping_add(u32::try_from(batch.len()).unwrap_or(u32::MAX)).max(1);
        let outcome = self.converse_in_parts(first, &batch, each_object);
        self.memory.batch = Some(batch.emptied());
        outcome
    }

    fn converse_in_parts(
        &mut self,
        mut first: u32,
        Batch { bytes, steps }: &Batch,
        mut each_object: impl FnMut(&Object<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), KernelError> {
        let mut refused = None;
        let mut unsent = steps.as_slice();
        while let Some(begin) = unsent.first() {
            let (part, rest) = unsent.split_at(unsent.len().min(PART));
            let end = rest.first().map_or(bytes.len(), |next| next.starts_at);
            let part_bytes = bytes.get(begin.starts_at..end).unwrap_or_default();
            match self.converse_at_once(first, part_bytes, part, &mut each_object) {
                Ok(None) => {}
                Ok(Some(e)) => drop(refused.get_or_insert(e)),
                Err(e) => {
                    self.forget_answers();
                    return Err(e);
                }
            }
            first = first.wrapping_add(u32::try_from(part.len()).unwrap_or(u32::MAX));
            unsent = rest;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends requests that are numbered from `first`, and hears what the kernel says to them. Returns the first that was refused.
    fn converse_at_once(
        &mut self,
        first: u32,
        bytes: &[u8],
        steps: &[Step],
        each_object: &mut impl FnMut(&Object<'_>) -> Result<(), DecodeError>,
    ) -> Result<Option<KernelError>, KernelError> {
        let first_step = steps.first().map_or("talk to the kernel", |step| step.name);
        let failed = |source: Errno| KernelError::Socket { step: first_step, source: io::Error::from(source) };
        let unreadable = |e: DecodeError| KernelError::Unreadable { step: first_step, reason: e.to_string() };
        let sent = send(&self.fd, bytes, SendFlags::empty()).map_err(failed)?;
        if sent != bytes.len() {
            return Err(failed(Errno::MSGSIZE));
        }

        let place = |sequence: u32| usize::try_from(sequence.wrapping_sub(first)).ok().filter(|&at| at < steps.len());
        let is_last = |place| place + 1 == steps.len();
        let ends_with_object = steps.last().is_some_and(|last| last.answered_by_object);
        let (mut first_error, mut interrupted) = (None, false);
        loop {
            rustix::io::retry_on_intr(|| self.receive(RecvFlags::empty())).map_err(failed)?;
            for answer in answers(&self.memory.received) {
                let said = answer.map_err(unreadable)?;
                let Some(place) = place(said.sequence) else { continue };
                interrupted |= said.interrupted;
                let finished = match said.answer {
                    Answer::Object(object) => {
                        each_object(&object).map_err(unreadable)?;
                        ends_with_object && is_last(place)
                    }
                    Answer::Failed(errno) => {
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
                    let overtaken = || KernelError::Refused { step: first_step, errno: Errno::INTR };
                    return Ok(first_error.or_else(|| interrupted.then(overtaken)));
                }
            }
        }
    }

    /// Empties the socket. One that was too full once gets no more answers before it is empty, and the next conversation would
    /// wait for its own for ever; a dump that was not read to its end keeps the next one from beginning.
    fn forget_answers(&mut self) {
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(()) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use netlink_packet_core::NLM_F_DUMP;
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::LinkMessage;

    use super::*;
    use crate::link::{LinkId, VethEnd, VethPair};
    use crate::{Netns, Socket};

    /// More than a socket takes answers; each request of a group that no link is in is refused.
    fn refused_requests() -> Batch {
        let mut batch = Batch::new();
        for _ in 0..1000 {
            batch.delete_group("delete nothing", 0x7ead_beef);
            batch.tolerate(Errno::NODEV);
        }
        batch
    }

    #[test]
    fn a_batch_with_more_refusals_than_the_socket_has_room_for_is_carried_out_and_the_next_is_answered() {
        let mut channel = Channel::open(None).unwrap();
        channel.converse(refused_requests(), |_| Ok(())).unwrap();
        let mut batch = refused_requests();
        // The last one's refusal is not tolerated, and is heard.
        batch.delete_group("delete nothing at last", 0x7ead_beef);
        let refused = channel.converse(batch, |_| Ok(())).unwrap_err();
        assert_eq!(refused.to_string(), "cannot delete nothing at last: No such device (os error 19)");
    }

    #[test]
    fn a_socket_that_was_too_full_once_fails_and_is_of_use_again() {
        let mut channel = Channel::open(None).unwrap();
        let mut batch = refused_requests();
        batch.number(channel.next);
        let overrun = channel.converse_at_once(1, &batch.bytes, &batch.steps, &mut |_| Ok(())).unwrap_err();
        channel.forget_answers();
        assert!(
            matches!(&overrun, KernelError::Socket { source, .. } if source.raw_os_error() == Some(105)),
            "{overrun}"
        );
        channel.next = 5000;
        let present = count(&mut channel).unwrap();
        assert!(present > 0);
    }

    fn pair(near: &str, far: &str) -> Batch {
        let end = |name| VethEnd { name, mac: None, index: None };
        let mut batch = Batch::new();
        batch.create_veth("make a pair", &VethPair { near: end(near), far: end(far), far_netns: None, mtu: 1500 });
        batch
    }

    fn list(
        channel: &mut Channel,
        each: impl FnMut(&Object<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), KernelError> {
        let mut batch = Batch::new();
        batch.push("list the links", RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP);
        channel.converse(batch, each)
    }

    fn count(channel: &mut Channel) -> Result<usize, KernelError> {
        let mut count = 0;
        list(channel, |_| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// In a namespace with more links than fit into one datagram.
    fn among_many_links(test: impl FnOnce(Socket, Channel) + Send) {
        let work = || {
            let mut socket = Socket::open().unwrap();
            for number in 0..40 {
                socket.run(pair(&format!("near{number}"), &format!("far{number}"))).unwrap();
            }
            test(socket, Channel::open(None).unwrap());
        };
        Netns::create().unwrap().run(work).unwrap();
    }

    #[test]
    fn what_a_conversation_that_was_broken_off_left_behind_is_in_nobody_s_way_and_nobody_s_answer() {
        among_many_links(|_, mut channel| {
            let present = count(&mut channel).unwrap();
            assert!(present > 80);
            assert!(list(&mut channel, |_| Err(DecodeError::from("a test"))).is_err());
            assert_eq!(count(&mut channel).unwrap(), present);
            assert_eq!(count(&mut channel).unwrap(), present);
        });
    }

    #[test]
    fn a_dump_whose_links_come_and_go_meanwhile_says_so_and_a_list_is_whole_all_the_same() {
        among_many_links(|mut socket, mut channel| {
            let over = AtomicBool::new(false);
            let found = std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        socket.run(pair("come", "go")).unwrap();
                        let mut batch = Batch::new();
                        batch.delete_link("delete a link", LinkId::Name("come"));
                        socket.run(batch).unwrap();
                    }
                });
                let mut lister = Socket::open().unwrap();
                let mut interrupted = 0;
                let mut bad_lists = Vec::new();
                for _ in 0..20_000 {
                    let near =
                        lister.links().map(|links| links.iter().filter(|link| link.name.starts_with("near")).count());
                    bad_lists.extend(Some(near).filter(|near| !matches!(near, Ok(40))));
                    let dumped = list(&mut channel, |_| Ok(()));
                    interrupted += usize::from(dumped.is_err_and(|e| e.errno() == Some(Errno::INTR)));
                    // Among as many lists, there are some that were interrupted too.
                    if interrupted == 10 || !bad_lists.is_empty() {
                        break;
                    }
                }
                over.store(true, Ordering::Relaxed);
                (interrupted, bad_lists)
            });
            assert!(matches!(&found, (10, bad) if bad.is_empty()), "{found:?}");
        });
    }
}
