//! Links that vanish, as the kernel tells it.
//!
//! The kernel tells of links in one group: what is made, changed and deleted. Making a pod is a handful of such events,
//! and each would wake whoever listens, on a processor that the pod's own call could use. So a filter in the kernel lets
//! deletions through and nothing else.

use std::io;

use netlink_packet_core::NetlinkBuffer;
use socket2::SockFilter;

use crate::listener::{Group, Heard, Listener};

/// The group of link events (linux/rtnetlink.h, `RTMGRP_LINK`).
const LINK_GROUP: u32 = 1;
/// The type of a deletion (`RTM_DELLINK`).
const DELETED: u16 = 17;
/// Where a link's message has its index (rtnetlink(7), `struct ifinfomsg`), in bytes.
const INDEX_OFFSET: usize = 4;

/// Something that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// The link with this index was deleted.
    Link(u32),
    /// There was more than the socket had room for: links may be gone that nobody was told of.
    Missed,
}

/// A socket on which the kernel tells of deleted links. It belongs to the namespace it was opened in.
#[derive(Debug)]
pub struct Departures(Listener);

impl Departures {
    /// Listens in the calling thread's network namespace, from this moment on.
    pub fn listen() -> io::Result<Self> {
        Listener::open(Group { protocol: None, bit: LINK_GROUP, filter: &only_deletions() }).map(Departures)
    }

    /// The next departure, which it waits for.
    pub fn wait(&mut self) -> io::Result<Departure> {
        loop {
            match self.0.wait()? {
                Heard::Missed => return Ok(Departure::Missed),
                Heard::Messages(event) => {
                    if let Some(index) = deleted(event) {
                        return Ok(Departure::Link(index));
                    }
                }
            }
        }
    }
}

/// A classic BPF program: accept what has the type of a deletion, drop the rest. Its loads take big-endian numbers, and
/// netlink's are the host's.
fn only_deletions() -> [SockFilter; 4] {
    const LOAD_HALF_WORD: u16 = 0x28;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const TYPE_OFFSET: u32 = 4;
    [
        SockFilter::new(LOAD_HALF_WORD, 0, 0, TYPE_OFFSET),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, u32::from(DELETED.to_be())),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

fn deleted(event: &[u8]) -> Option<u32> {
    let event = NetlinkBuffer::new_checked(event).ok()?;
    if event.message_type() != DELETED {
        return None;
    }
    // All else in it is of no interest, and an event has a hundred attributes to read.
    let index = event.payload().get(INDEX_OFFSET..INDEX_OFFSET + 4)?;
    Some(u32::from_ne_bytes(index.try_into().ok()?))
}
