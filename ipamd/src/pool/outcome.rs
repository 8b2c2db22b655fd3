//! What is asked of the pool, and what comes of it. Outcomes have names: a caller must see each of them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use dotfour_protocol::{AttachmentKey, PodName, PoolCounts};

use super::Moment;
use super::lease::{Lease, PodAddresses};

/// The families a pod is to have an address of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    /// IPv4 alone.
    pub const V4: Families = Families { v4: true, v6: false };
    /// Both.
    pub const DUAL: Families = Families { v4: true, v6: true };

    /// Those that there is an address of among these.
    pub fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        addresses.into_iter().fold(Families { v4: false, v6: false }, |families, address| Families {
            v4: families.v4 || address.is_ipv4(),
            v6: families.v6 || address.is_ipv6(),
        })
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.v4, self.v6) {
            (true, true) => "IPv4 and IPv6",
            (true, false) => "IPv4",
            (false, true) => "IPv6",
            (false, false) => "no family",
        })
    }
}

/// What an ADD asks of the pool.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    /// Whose the addresses will be.
    pub key: &'a Arc<AttachmentKey>,
    /// The pod's name, where it is known.
    pub pod: Option<Arc<PodName>>,
    /// Which families; all of them are assigned, or none.
    pub families: Families,
    /// Addresses that it must be, instead of whichever have been free longest. Of a family that is not asked for, it gets
    /// any of the same NIC.
    pub asked: PodAddresses,
    /// When the ADD was started.
    pub started: Moment,
    /// Whether another plugin wires the pod.
    pub delegated: bool,
}

/// What came of [`Pool::assign`](super::Pool::assign).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assignment {
    /// The key holds these addresses from now on.
    New(PodAddresses),
    /// The key held a lease already; nothing changed.
    Existing(Lease),
    /// The key holds a lease already, whose pod somebody else wires than this one's; nothing changed.
    HeldOtherwise,
    /// Nothing is free, and what has rested long enough was not swept since, or is being swept. Sweep it, and ask again.
    Unswept,
    /// No address of a wanted family is free.
    Exhausted(PoolCounts),
    /// An address that was asked for is not the pool's.
    AskedUnknown(IpAddr),
    /// An address that was asked for is not free.
    AskedTaken(IpAddr),
    /// A DEL that came after this ADD was started has ended it already.
    Overtaken,
}

/// What came of [`Pool::adopt`](super::Pool::adopt).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoption {
    /// The lease is in the pool again.
    Adopted,
    /// Adopted, although no source reports an address of it, which leaves the pool when it was released and has rested.
    AdoptedUnknown,
    /// An address of it belongs to this other key already.
    Conflict(Arc<AttachmentKey>),
    /// The key holds these other addresses already.
    SecondLease(PodAddresses),
}

/// Which of a key's ADDs a DEL ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Covered {
    /// The key's lease.
    Lease(Lease),
    /// None: the key was added again after the DEL.
    AddedSince,
    /// None that the pool knows of.
    Unknown,
}
