//! The kernel's table of connections, as far as addresses must vanish from it.
//!
//! An entry outlives the pod that it names: with NAT in it, packets of a sender that never pauses go on to an address that
//! is nobody's, or somebody else's by now. So all entries that name an address can be removed, in whichever of the four
//! places: as source or destination, of the packets that go there or of those that come back.
//!
//! Two ways lead there. Linux 6.8 and later walk the table themselves and remove what matches a filter (`CTA_FILTER`); it
//! takes one walk for each of the four places. Older ones refuse that, because with a tuple they expect a whole one; then,
//! and where there are many addresses at once, the table is dumped once and what matches is deleted one by one. So it is for
//! IPv6, always: Linux 6.18's filter did not find the IPv6 address that it was given. Nothing here takes the kernel's rtnl
//! lock, so nobody who wires a pod waits.
//!
//! The messages are written by hand (linux/netfilter/nfnetlink_conntrack.h): a dozen attributes. The crate
//! netlink-packet-netfilter 0.4 knows neither filter nor zone nor id, and turns each entry of a dump, of which there may be
//! a hundred thousand, into a tree of allocations. What the kernel says is read by netlink-packet-core's checked iterator;
//! an entry that cannot be read names no address.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NlasIterator};
use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::batch::{Answer, answers};
use crate::socket::KernelError;

/// `NFNL_SUBSYS_CTNETLINK`, in the upper byte of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_GET`.
const GET: u16 = SUBSYSTEM | 1;
/// `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = SUBSYSTEM | 2;

/// Attributes of an entry (`enum ctattr_type`).
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
/// The addresses in a tuple (`enum ctattr_tuple`).
const CTA_TUPLE_IP: u16 = 1;
/// The first of two attributes of each family (`enum ctattr_ip`): its source, then its destination.
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
/// What of a tuple counts (`enum ctattr_filter`), with a bit for the source, and the next one for the destination.
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const FILTER_SOURCE: u32 = 1;

/// Set in the type of an attribute that holds attributes, and the mask that takes it off again.
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;

/// `AF_INET`.
const INET: u8 = 2;

/// The length of a message's header and of `struct nfgenmsg`, in bytes.
const HEADER: usize = 16;
const NFGENMSG: usize = 4;

/// As for route netlink: the kernel builds dumps in pages of at most 32 KiB.
const RECEIVE_BUFFER: usize = 32 * 1024;

/// Up to how many addresses the kernel's own filter is asked, four walks each. A walk is far cheaper than a dump; with more
/// addresses than this the one dump is (measured with 50,000 entries: four walks 48 ms, the dump 210 ms).
const MOST_FILTERED: usize = 4;

/// What a sweep does, for error messages.
const STEP: &str = "remove a pod's connections";

/// How many deletions go out in one send.
const DELETIONS: usize = 64;

/// What came of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swept {
    /// No entry that was there before names an address any more.
    Clean,
    /// This kernel does not track connections, or does not let anybody look: there is nothing to remove.
    NotTracked,
}

/// How the kernel is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It removes what matches a filter. Not for IPv6.
    Filter,
    /// It is asked for all there is, and told what to delete.
    Dump,
}

/// The addresses of an entry: source and destination each way, before NAT and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Of the packets that go there, as they come in.
    pub original: (IpAddr, IpAddr),
    /// Of the packets that come back, as they come in.
    pub reply: (IpAddr, IpAddr),
}

impl Entry {
    /// Whether one of its four addresses is among these.
    pub fn names(&self, addresses: &HashSet<IpAddr>) -> bool {
        [self.original.0, self.original.1, self.reply.0, self.reply.1].iter().any(|named| addresses.contains(named))
    }
}

/// A socket to the table of the network namespace that it was opened in.
#[derive(Debug)]
pub struct Conntrack {
    fd: OwnedFd,
    buffer: Vec<u8>,
    /// Set once the kernel has refused the filter.
    dump_only: bool,
}

impl Conntrack {
    /// Opens a socket in the calling thread's network namespace. `None`: the kernel knows nothing of netfilter.
    ///
    /// # Errors
    /// No socket can be had.
    pub fn open() -> io::Result<Option<Self>> {
        match socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER)) {
            Ok(fd) => Ok(Some(Conntrack { fd, buffer: vec![0; RECEIVE_BUFFER], dump_only: false })),
            Err(Errno::PROTONOSUPPORT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes all entries that name one of these addresses, and no others. Repeating it does no harm. It takes time with
    /// the size of the table: it is not for the path of a pod.
    ///
    /// # Errors
    /// The kernel refused. Some entries may be gone.
    pub fn sweep(&mut self, addresses: &[IpAddr]) -> Result<Swept, KernelError> {
        if addresses.is_empty() {
            return Ok(Swept::Clean);
        }
        if self.dump_only || addresses.len() > MOST_FILTERED || addresses.iter().any(IpAddr::is_ipv6) {
            return self.sweep_by(Way::Dump, addresses);
        }
        match self.sweep_by(Way::Filter, addresses) {
            // It expects a whole tuple, or does not know the filter.
            Err(e) if matches!(e.errno(), Some(Errno::INVAL | Errno::OPNOTSUPP)) => {
                self.dump_only = true;
                self.sweep_by(Way::Dump, addresses)
            }
            swept => swept,
        }
    }

    /// [`Conntrack::sweep`], one way and no other.
    ///
    /// # Errors
    /// The kernel refused, perhaps because it does not know the way.
    pub fn sweep_by(&mut self, way: Way, addresses: &[IpAddr]) -> Result<Swept, KernelError> {
        match way {
            Way::Filter => {
                for address in addresses {
                    let IpAddr::V4(v4) = address else {
                        return Err(KernelError::Refused { step: STEP, errno: Errno::OPNOTSUPP });
                    };
                    self.converse(STEP, &filters(*v4), |_| {})?;
                }
                Ok(Swept::Clean)
            }
            Way::Dump => {
                let wanted: HashSet<IpAddr> = addresses.iter().copied().collect();
                let mut deletions = Vec::new();
                let dumped = self.dump(|payload| {
                    if entry(payload).is_some_and(|entry| entry.names(&wanted)) {
                        deletions.push(deletion(payload));
                    }
                });
                match dumped {
                    // The kernel has no such table, and no module that would bring it (nfnetlink answers with EINVAL).
                    Err(e) if matches!(e.errno(), Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOENT)) => {
                        return Ok(Swept::NotTracked);
                    }
                    dumped => dumped?,
                }
                for some in deletions.chunks(DELETIONS) {
                    self.converse(STEP, some, |_| {})?;
                }
                Ok(Swept::Clean)
            }
        }
    }

    /// All entries.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn entries(&mut self) -> Result<Vec<Entry>, KernelError> {
        let mut found = Vec::new();
        self.dump(|payload| found.extend(entry(payload)))?;
        Ok(found)
    }

    fn dump(&mut self, each: impl FnMut(&[u8])) -> Result<(), KernelError> {
        let question = [Message::new(GET, 0).flags(NLM_F_DUMP)];
        self.converse("list the connections", &question, each)
    }

    /// Sends messages at once, hands over the payload of each object that comes, and waits for the last one's answer. That
    /// an entry which was to be deleted is gone already is no error.
    fn converse(
        &mut self,
        step: &'static str,
        messages: &[Message],
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), KernelError> {
        let mut bytes = Vec::with_capacity(messages.len() * 128);
        for (number, message) in messages.iter().enumerate() {
            message.append_to(&mut bytes, number + 1, number + 1 == messages.len());
        }
        let failed = |source: Errno| KernelError::Socket { step, source: source.into() };
        let unreadable = |e: netlink_packet_core::DecodeError| KernelError::Unreadable { step, reason: e.to_string() };
        let sent = send(&self.fd, &bytes, SendFlags::empty()).map_err(failed)?;
        if sent != bytes.len() {
            return Err(failed(Errno::MSGSIZE));
        }
        let is_last = |sequence: u32| usize::try_from(sequence).is_ok_and(|sequence| sequence == messages.len());
        let mut refused = None;
        loop {
            let (length, _) =
                rustix::io::retry_on_intr(|| recv(&self.fd, &mut *self.buffer, RecvFlags::empty())).map_err(failed)?;
            for answer in answers(self.buffer.get(..length).unwrap_or_default()) {
                let over = match answer.map_err(unreadable)? {
                    Answer::Object(_, object) => {
                        each(object.payload());
                        false
                    }
                    Answer::Failed(sequence, code) => {
                        let errno = Errno::from_raw_os_error(code);
                        if errno != Errno::NOENT {
                            refused.get_or_insert(KernelError::Refused { step, errno });
                        }
                        is_last(sequence)
                    }
                    Answer::Acknowledged(sequence) => is_last(sequence),
                    Answer::Done => true,
                    Answer::Noise => false,
                };
                if over {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }
}

/// The four requests that remove what names an address: each of the two tuples, by source and by destination.
fn filters(address: Ipv4Addr) -> Vec<Message> {
    let mut messages = Vec::with_capacity(4);
    for (tuple, flags) in [(CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS), (CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS)] {
        for end in [0, 1] {
            // Without a tuple, a kernel that does not know the filter would remove every entry there is.
            let named = attribute(CTA_TUPLE_IP | NESTED, &attribute(CTA_IP_V4_SRC + end, &address.octets()));
            let unless_given = |which| if which == flags { FILTER_SOURCE << end } else { 0 };
            let filter = [CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS]
                .map(|which| attribute(which, &unless_given(which).to_ne_bytes()))
                .concat();
            let mut message = Message::new(DELETE, INET);
            message.payload.extend(attribute(tuple | NESTED, &named));
            message.payload.extend(attribute(CTA_FILTER | NESTED, &filter));
            messages.push(message);
        }
    }
    messages
}

/// The request that deletes an entry as it was dumped, and no other that took its place.
fn deletion(dumped: &[u8]) -> Message {
    let family = dumped.first().copied().unwrap_or_default();
    let mut message = Message::new(DELETE, family);
    for (kind, value) in attributes(dumped.get(NFGENMSG..).unwrap_or_default()) {
        match kind {
            CTA_TUPLE_ORIG => message.payload.extend(attribute(kind | NESTED, value)),
            CTA_ID | CTA_ZONE => message.payload.extend(attribute(kind, value)),
            _ => {}
        }
    }
    message
}

/// Reads an entry's addresses. `None` where one is missing.
fn entry(dumped: &[u8]) -> Option<Entry> {
    let (mut original, mut reply) = (None, None);
    for (kind, value) in attributes(dumped.get(NFGENMSG..)?) {
        match kind {
            CTA_TUPLE_ORIG => original = tuple(value),
            CTA_TUPLE_REPLY => reply = tuple(value),
            _ => {}
        }
        if original.is_some() && reply.is_some() {
            break;
        }
    }
    Some(Entry { original: original?, reply: reply? })
}

fn tuple(value: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (_, ip) = attributes(value).find(|(kind, _)| *kind == CTA_TUPLE_IP)?;
    let (mut source, mut destination) = (None, None);
    for (kind, value) in attributes(ip) {
        let address = || -> Option<IpAddr> {
            <[u8; 4]>::try_from(value).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
        };
        match kind {
            CTA_IP_V4_SRC | CTA_IP_V6_SRC => source = address(),
            // The destination's number is the source's next.
            kind if kind == CTA_IP_V4_SRC + 1 || kind == CTA_IP_V6_SRC + 1 => destination = address(),
            _ => {}
        }
    }
    source.zip(destination)
}

/// Attributes up to the first that is cut off.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|nla| {
        let (kind, value) = (nla.kind() & TYPE_MASK, nla.value_length());
        let value = nla.into_inner().get(ATTRIBUTE_HEADER..ATTRIBUTE_HEADER + value).unwrap_or_default();
        (kind, value)
    })
}

/// The length of an attribute's header: its length and its type.
const ATTRIBUTE_HEADER: usize = 4;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(usize::from(length).next_multiple_of(4));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// One request.
#[derive(Debug, Clone)]
struct Message {
    kind: u16,
    flags: u16,
    /// `struct nfgenmsg` and the attributes.
    payload: Vec<u8>,
}

impl Message {
    fn new(kind: u16, family: u8) -> Self {
        Message { kind, flags: 0, payload: vec![family, 0, 0, 0] }
    }

    fn flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    /// Errors are answered anyway, so only the last asks for an acknowledgement. A dump ends by itself.
    fn append_to(&self, bytes: &mut Vec<u8>, sequence: usize, is_last: bool) {
        let acknowledge = if is_last && self.flags & NLM_F_DUMP == 0 { NLM_F_ACK } else { 0 };
        let length = u32::try_from(HEADER + self.payload.len()).unwrap_or(u32::MAX);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | self.flags | acknowledge).to_ne_bytes());
        bytes.extend(u32::try_from(sequence).unwrap_or(u32::MAX).to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.payload);
    }
}

#[cfg(test)]
mod tests;
