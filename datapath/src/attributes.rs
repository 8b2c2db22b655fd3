//! Netlink's attributes, read one by one.
//!
//! netlink-packet-route's types read all that an object says, and refuse it where one attribute is not as they know it: a text
//! that is no UTF-8, what another kernel writes otherwise. What must not be overseen, as a link or an address that somebody
//! has, is read so.

use std::net::IpAddr;

use netlink_packet_core::{NLA_HEADER_SIZE, NlasIterator};

/// Attributes, type and value, up to the first that is cut off.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|nla| {
        let (kind, length) = (nla.kind(), nla.value_length());
        let value = nla.into_inner().get(NLA_HEADER_SIZE..NLA_HEADER_SIZE + length).unwrap_or_default();
        (kind, value)
    })
}

/// A number of 32 bits, in the host's order.
pub(crate) fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// An address of either family.
pub(crate) fn address(value: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(value).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

/// A text with its final zero. The kernel takes any bytes for names and aliases; what is no UTF-8 has replacement characters
/// here, as no text of ours has.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}
