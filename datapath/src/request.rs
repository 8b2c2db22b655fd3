//! Route netlink's requests on a pod's path, written byte by byte.
//!
//! The typed messages of netlink-packet-route say the same, and the tests hold the two together. To build a tree of them and
//! walk it twice was half of what the daemon's own code took of an ADD: it runs once a pod, so the processor has forgotten all
//! of it by then. Requests that no pod waits for are built with the crate's types.
//!
//! The numbers are the kernel's: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/neighbour.h.

use std::net::IpAddr;

use netlink_packet_core::NLA_HEADER_SIZE;

use crate::Batch;

/// What a request asks for (`RTM_*`).
#[derive(Debug, Clone, Copy)]
#[repr(u16)]
pub(crate) enum Kind {
    NewLink = 16,
    GetLink = 18,
    SetLink = 19,
    NewAddress = 20,
    NewRoute = 24,
    DelRoute = 25,
    NewNeighbour = 28,
}

/// `AF_INET`, where it is the type of an attribute.
pub(crate) const INET: u16 = 2;
/// `AF_INET6`, likewise.
pub(crate) const INET6: u16 = 10;

/// An address's family, as a message's header has it.
pub(crate) const fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

/// A request of a batch while it is being written. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Request<'b> {
    batch: &'b mut Batch,
    step: &'static str,
    starts_at: usize,
}

impl<'b> Request<'b> {
    /// Begins a request; `flags` come on top of `NLM_F_REQUEST`. `fixed` is what the kind has before its attributes.
    pub(crate) fn begin(batch: &'b mut Batch, step: &'static str, kind: Kind, flags: u16, fixed: &[&[u8]]) -> Self {
        let starts_at = batch.begin_request(kind as u16, flags);
        fixed.iter().for_each(|part| batch.bytes.extend_from_slice(part));
        Request { batch, step, starts_at }
    }

    /// An attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.attribute_of(kind, &[value]);
    }

    /// An attribute that is a text with its final zero.
    pub(crate) fn text(&mut self, kind: u16, text: &str) {
        self.attribute_of(kind, &[text.as_bytes(), &[0]]);
    }

    /// An attribute that is a number.
    pub(crate) fn number(&mut self, kind: u16, number: u32) {
        self.attribute(kind, &number.to_ne_bytes());
    }

    /// An attribute that is an IP address.
    pub(crate) fn address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.attribute(kind, &v4.octets()),
            IpAddr::V6(v6) => self.attribute(kind, &v6.octets()),
        }
    }

    /// An attribute that consists of `fixed` and others.
    pub(crate) fn nested(&mut self, kind: u16, fixed: &[&[u8]], inside: impl FnOnce(&mut Self)) {
        let starts_at = self.batch.bytes.len();
        self.attribute_of(kind, fixed);
        inside(self);
        let length = u16::try_from(self.batch.bytes.len() - starts_at).unwrap_or(u16::MAX);
        if let Some(field) = self.batch.bytes.get_mut(starts_at..starts_at + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
    }

    fn attribute_of(&mut self, kind: u16, parts: &[&[u8]]) {
        let bytes = &mut self.batch.bytes;
        let length = NLA_HEADER_SIZE + parts.iter().map(|part| part.len()).sum::<usize>();
        // What does not fit was refused before: names and aliases have their limits.
        bytes.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.batch.end_request(self.step, self.starts_at);
    }
}

#[cfg(test)]
mod tests;
