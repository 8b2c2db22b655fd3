//! Netlink's attributes, read one by one where the crates' types would read more than is wanted.

use netlink_packet_core::{NLA_HEADER_SIZE, NlasIterator};

/// Attributes, type and value, up to the first that is cut off.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|nla| {
        let (kind, length) = (nla.kind(), nla.value_length());
        let value = nla.into_inner().get(NLA_HEADER_SIZE..NLA_HEADER_SIZE + length).unwrap_or_default();
        (kind, value)
    })
}
