//! The internet checksum, alone and with IPv6's pseudo header.

use std::net::Ipv6Addr;

/// RFC 1071, over an even or odd number of bytes.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(u16::from_be_bytes([*high, 0])),
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// An ICMPv6 message's (RFC 4443, section 2.3). The message's own checksum field is to be zero.
pub(crate) fn icmpv6_checksum(source: Ipv6Addr, target: Ipv6Addr, message: &[u8]) -> u16 {
    const ICMPV6: u8 = 58;
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut covered = Vec::with_capacity(40 + message.len());
    covered.extend(source.octets());
    covered.extend(target.octets());
    covered.extend(length.to_be_bytes());
    covered.extend([0, 0, 0, ICMPV6]);
    covered.extend(message);
    checksum(&covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // The example of RFC 1071, section 3.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00);
        // A message with its checksum in place sums up to zero.
        let (from, to) = (Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
        let sum = icmpv6_checksum(from, to, &[128, 0, 0, 0, 1, 2, 3]).to_be_bytes();
        assert_eq!(icmpv6_checksum(from, to, &[128, 0, sum[0], sum[1], 1, 2, 3]), 0);
    }
}
