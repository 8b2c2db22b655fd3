//! Who changes the table, as the kernel tells it.
//!
//! nftables tells all who listen of every object of a transaction, once it is in force, and which process it came from.
//! Nothing is filtered in the kernel: it puts several objects into one message, and a filter sees the first only.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use dotfour_datapath::listener::{self, Group, Listener};
use netlink_packet_core::NetlinkBuffer;
use rustix::net::netlink::NETFILTER;

use super::table::TABLE;

/// The group of nftables' events (linux/netfilter/nfnetlink.h, `NFNLGRP_NFTABLES`, 7) as a bit.
const GROUP: u32 = 1 << 6;
/// The family `inet` (`NFPROTO_INET`), in the first byte of a message.
const INET: u8 = 1;
/// Where the first attribute begins, which in every message is the table's name: behind `struct nfgenmsg`, in bytes.
const TABLE_OFFSET: usize = 4;

/// What was heard.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Netlink's numbers of those who changed the table: process ids, as a rule.
    pub changed_by: BTreeSet<u32>,
    /// There was more than the socket had room for.
    pub missed: bool,
}

/// A socket on which the kernel tells of changes. It belongs to the namespace it was opened in.
#[derive(Debug)]
pub struct Events(Listener);

impl Events {
    /// Listens in the calling thread's network namespace, from this moment on.
    pub fn listen() -> io::Result<Self> {
        Listener::open(Group { protocol: Some(NETFILTER), bit: GROUP, filter: &[] }).map(Events)
    }

    /// All that was told since the last time. Does not wait.
    pub fn drain(&mut self) -> Heard {
        let mut heard = Heard::default();
        // A socket that fails has nothing to tell; the resync makes up for it.
        while let Ok(Some(next)) = self.0.poll() {
            match next {
                listener::Heard::Messages(messages) => read(messages, &mut heard.changed_by),
                listener::Heard::Missed => heard.missed = true,
            }
        }
        heard
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn read(mut messages: &[u8], changed_by: &mut BTreeSet<u32>) {
    while let Ok(message) = NetlinkBuffer::new_checked(messages) {
        if is_ours(message.payload()) {
            changed_by.insert(message.port_number());
        }
        // Messages begin at multiples of four.
        let length = (message.length() as usize).next_multiple_of(4);
        messages = messages.get(length..).unwrap_or_default();
    }
}

fn is_ours(payload: &[u8]) -> bool {
    // An attribute's length and type, two bytes each, then the name with a zero byte behind it.
    let name = payload.get(TABLE_OFFSET + 4..).unwrap_or_default();
    payload.first() == Some(&INET) && name.strip_prefix(TABLE.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
}
