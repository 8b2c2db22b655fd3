//! The kernel's table of connections, as far as addresses must vanish from it.
//!
//! An entry outlives the pod that it names: with NAT in it, packets of a sender that never pauses go on to an address that
//! is nobody's, or somebody else's by now. So all entries that name an address can be removed, in whichever of the four
//! places: as source or destination, of the packets that go there or of those that come back.
//!
//! Two ways lead there. Linux 6.8 and later walk the table themselves and remove what matches a filter (`CTA_FILTER`); it
//! takes a walk for each address and each place. Older ones refuse that, because with a tuple they expect a whole one; then,
//! and where that many walks would take longer, the table is dumped once and what matches is deleted one by one. So it is
//! for IPv6, always: Linux 6.18's filter did not find the IPv6 address that it was given. How many entries there are, which
//! decides between the two, the kernel knows without a walk. Nothing here takes the kernel's rtnl lock, so nobody who wires
//! a pod waits.
//!
//! The messages are written by hand (linux/netfilter/nfnetlink_conntrack.h): a dozen attributes. The crate
//! netlink-packet-netfilter 0.4 knows neither filter nor zone nor id, and turns each entry of a dump, of which there may be
//! a hundred thousand, into a tree of allocations. What the kernel says is read by netlink-packet-core's checked iterator;
//! an entry that cannot be read names no address.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use netlink_packet_core::{NLA_F_NESTED, NLA_HEADER_SIZE, NLM_F_DUMP};
use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use crate::attributes::{address, attributes};
use crate::batch::Batch;
use crate::channel::Channel;
use crate::socket::KernelError;

/// `NFNL_SUBSYS_CTNETLINK`, in the upper byte of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_GET`.
const GET: u16 = SUBSYSTEM | 1;
/// `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = SUBSYSTEM | 2;
/// `IPCTNL_MSG_CT_GET_STATS`.
const GET_STATS: u16 = SUBSYSTEM | 5;

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

/// How many entries there are (`enum ctattr_stats_global`), big-endian.
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;

/// Address families; the last one is any.
const INET: u8 = 2;
const INET6: u8 = 10;
const UNSPECIFIED: u8 = 0;

/// The length of `struct nfgenmsg`, in bytes.
const NFGENMSG: usize = 4;

/// What a walk of the kernel's own takes, and a dump: for a table of 262,144 buckets, and for each entry in it. Measured
/// with 1,000 and 50,000 entries; what counts is how they compare, which holds on any machine.
const WALK: (Duration, Duration) = (Duration::from_micros(250), Duration::from_nanos(270));
const DUMP: (Duration, Duration) = (Duration::from_millis(12), Duration::from_micros(2));

/// What a sweep does, for error messages.
const STEP: &str = "remove a pod's connections";

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

/// Where an entry names an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In any of the four places.
    Anywhere,
    /// Answers come from it: packets are led to it, with NAT or without. A fourth of the work of all places. More may be
    /// removed, but nothing that does not name the address.
    Target,
}

impl Place {
    /// How many walks it takes to look there.
    fn walks(self) -> u32 {
        match self {
            Place::Anywhere => 4,
            Place::Target => 1,
        }
    }
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
    channel: Channel,
    /// Set once the kernel has refused the filter.
    dump_only: bool,
}

impl Conntrack {
    /// Opens a socket in the calling thread's network namespace. `None`: the kernel knows nothing of netfilter.
    ///
    /// # Errors
    /// No socket can be had.
    pub fn open() -> io::Result<Option<Self>> {
        match Channel::open(Some(NETFILTER)) {
            Ok(channel) => Ok(Some(Conntrack { channel, dump_only: false })),
            Err(Errno::PROTONOSUPPORT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes all entries that name one of these addresses in its place, and none that names none of them. Repeating it does
    /// no harm. It takes time with the size of the table: it is not for the path of a pod.
    ///
    /// # Errors
    /// The kernel refused. Some entries may be gone.
    pub fn sweep(&mut self, addresses: &[(IpAddr, Place)]) -> Result<Swept, KernelError> {
        if addresses.is_empty() {
            return Ok(Swept::Clean);
        }
        let entries = match self.count() {
            // The kernel has no such table, and no module that would bring it (nfnetlink answers with EINVAL).
            Err(e) if matches!(e.errno(), Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOENT)) => {
                return Ok(Swept::NotTracked);
            }
            count => count?,
        };
        if entries == 0 {
            return Ok(Swept::Clean);
        }
        let way = if self.dump_only { Way::Dump } else { best_way(addresses, entries) };
        match self.sweep_by(way, addresses) {
            // It expects a whole tuple, or does not know the filter.
            Err(e) if way == Way::Filter && matches!(e.errno(), Some(Errno::INVAL | Errno::OPNOTSUPP)) => {
                self.dump_only = true;
                self.sweep_by(Way::Dump, addresses)?;
            }
            swept => swept?,
        }
        Ok(Swept::Clean)
    }

    /// [`Conntrack::sweep`], one way and no other.
    ///
    /// # Errors
    /// The kernel refused, perhaps because it does not know the way, or has no such table.
    pub fn sweep_by(&mut self, way: Way, addresses: &[(IpAddr, Place)]) -> Result<(), KernelError> {
        match way {
            Way::Filter => {
                let mut batch = Batch::new();
                for (address, place) in addresses {
                    let IpAddr::V4(v4) = address else {
                        return Err(KernelError::Refused { step: STEP, errno: Errno::OPNOTSUPP });
                    };
                    for payload in filters(*v4, *place) {
                        batch.push_raw(STEP, DELETE, 0, &payload);
                    }
                }
                self.channel.converse(batch, |_| Ok(()))
            }
            Way::Dump => {
                let wanted: HashSet<IpAddr> = addresses.iter().map(|(address, _)| *address).collect();
                let mut deletions = Batch::new();
                self.dump(family(addresses), |payload| {
                    if entry(payload).is_some_and(|entry| entry.names(&wanted)) {
                        deletions.push_raw(STEP, DELETE, 0, &deletion(payload));
                        // Gone already.
                        deletions.tolerate(Errno::NOENT);
                    }
                })?;
                self.channel.converse(deletions, |_| Ok(()))
            }
        }
    }

    /// All entries.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn entries(&mut self) -> Result<Vec<Entry>, KernelError> {
        let mut found = Vec::new();
        self.dump(UNSPECIFIED, |payload| found.extend(entry(payload)))?;
        Ok(found)
    }

    /// How many entries there are. The kernel keeps count, so it takes no walk.
    ///
    /// # Errors
    /// The kernel refused, perhaps because it has no such table.
    pub fn count(&mut self) -> Result<u32, KernelError> {
        let mut batch = Batch::new();
        batch.push_raw("count the connections", GET_STATS, 0, &nfgenmsg(UNSPECIFIED));
        let mut count = 0;
        self.channel.converse(batch, |object| {
            for (kind, value) in attributes(object.payload().get(NFGENMSG..).unwrap_or_default()) {
                if kind == CTA_STATS_GLOBAL_ENTRIES
                    && let Ok(value) = value.try_into()
                {
                    count = u32::from_be_bytes(value);
                }
            }
            Ok(())
        })?;
        Ok(count)
    }

    fn dump(&mut self, family: u8, mut each: impl FnMut(&[u8])) -> Result<(), KernelError> {
        let mut batch = Batch::new();
        batch.push_raw("list the connections", GET, NLM_F_DUMP, &nfgenmsg(family));
        self.channel.converse(batch, |object| {
            each(object.payload());
            Ok(())
        })
    }
}

/// The way that takes less time, where both are open.
fn best_way(addresses: &[(IpAddr, Place)], entries: u32) -> Way {
    if addresses.iter().any(|(address, _)| address.is_ipv6()) {
        return Way::Dump;
    }
    let once = |(table, entry): (Duration, Duration)| table.saturating_add(entry.saturating_mul(entries));
    let walks = addresses.iter().fold(0_u32, |walks, (_, place)| walks.saturating_add(place.walks()));
    if once(WALK).saturating_mul(walks) <= once(DUMP) { Way::Filter } else { Way::Dump }
}

/// The family of all of these.
fn family(addresses: &[(IpAddr, Place)]) -> u8 {
    let all = |is: fn(&IpAddr) -> bool| addresses.iter().all(|(address, _)| is(address));
    match (all(IpAddr::is_ipv4), all(IpAddr::is_ipv6)) {
        (true, _) => INET,
        (_, true) => INET6,
        _ => UNSPECIFIED,
    }
}

fn nfgenmsg(family: u8) -> [u8; NFGENMSG] {
    [family, 0, 0, 0]
}

/// What the requests hold that remove what names an address, one for each place.
fn filters(address: Ipv4Addr, place: Place) -> Vec<Vec<u8>> {
    let source = (CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS, 0);
    let others = [
        (CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS, 1),
        (CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS, 0),
        (CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS, 1),
    ];
    let others = if place == Place::Target { &[][..] } else { &others };
    let filter = |&(tuple, flags, end): &(u16, u16, u16)| {
        // Without a tuple, a kernel that does not know the filter would remove every entry there is.
        let named = attribute(CTA_TUPLE_IP | NLA_F_NESTED, &attribute(CTA_IP_V4_SRC + end, &address.octets()));
        let unless_given = |which| if which == flags { FILTER_SOURCE << end } else { 0 };
        let filter = [CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS]
            .map(|which| attribute(which, &unless_given(which).to_ne_bytes()))
            .concat();
        [&nfgenmsg(INET)[..], &attribute(tuple | NLA_F_NESTED, &named), &attribute(CTA_FILTER | NLA_F_NESTED, &filter)]
            .concat()
    };
    [source].iter().chain(others).map(filter).collect()
}

/// What the request holds that deletes an entry as it was dumped, and no other that took its place.
fn deletion(dumped: &[u8]) -> Vec<u8> {
    let mut payload = nfgenmsg(dumped.first().copied().unwrap_or_default()).to_vec();
    for (kind, value) in attributes(dumped.get(NFGENMSG..).unwrap_or_default()) {
        match kind {
            CTA_TUPLE_ORIG => payload.extend(attribute(kind | NLA_F_NESTED, value)),
            CTA_ID | CTA_ZONE => payload.extend(attribute(kind, value)),
            _ => {}
        }
    }
    payload
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
        match kind {
            CTA_IP_V4_SRC | CTA_IP_V6_SRC => source = address(value),
            // The destination's number is the source's next.
            kind if kind == CTA_IP_V4_SRC + 1 || kind == CTA_IP_V6_SRC + 1 => destination = address(value),
            _ => {}
        }
    }
    source.zip(destination)
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(NLA_HEADER_SIZE + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(usize::from(length).next_multiple_of(4));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests;
