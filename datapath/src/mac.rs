//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

/// An Ethernet (MAC-48) address. Printed as lower-case hex with colons, as `ip link` does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// The text is not six octets in hex.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address (six octets in hex, with colons, with dashes or without separators)")]
pub struct ParseMacError(String);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let mut text = [b':'; 17];
        for (place, octet) in text.chunks_mut(3).zip(self.0) {
            for (character, digit) in place.iter_mut().zip([octet >> 4, octet & 0xf]) {
                *character = DIGITS.get(usize::from(digit)).copied().unwrap_or_default();
            }
        }
        // In one piece, so that a string made of it is as long from the start. It is ASCII.
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = ParseMacError;

    /// Reads the three ways Azure and Linux write a MAC: `00:22:48:26:3d:bd`, `00-22-48-26-3D-BD` (ARM) and
    /// `002248263DBD` (wireserver, instance metadata).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseMacError(text.to_owned());
        let digits: Vec<u8> = match text.len() {
            12 => text.bytes().collect(),
            17 if text.bytes().skip(2).step_by(3).all(|b| b == b':' || b == b'-') => {
                text.bytes().enumerate().filter(|(i, _)| i % 3 != 2).map(|(_, b)| b).collect()
            }
            _ => return Err(error()),
        };
        let mut octets = [0_u8; 6];
        for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| error())?;
            if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        Ok(Mac(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_spellings_are_one_address() {
        let mac = Mac([0x00, 0x22, 0x48, 0x26, 0x3d, 0xbd]);
        for text in ["00:22:48:26:3d:bd", "00-22-48-26-3D-BD", "002248263DBD", "002248263dbd"] {
            assert_eq!(text.parse(), Ok(mac), "{text}");
        }
        assert_eq!(mac.to_string(), "00:22:48:26:3d:bd");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "*", "00:22:48:26:3d", "00:22:48:26:3d:bd:00", "00.22.48.26.3d.bd", "+02248263DBD", "0g2248263DBD"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
        assert!("é02248263DB".parse::<Mac>().is_err());
    }
}
