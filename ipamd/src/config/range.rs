//! Addresses as they are listed in the configuration: one by one, or from one to another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// One address or a range of them, both ends included. Both are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// The lowest address.
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub fn last(self) -> IpAddr {
        self.last
    }

    /// How many addresses it has; the greatest number there is where that is more.
    pub fn count(self) -> u128 {
        (bits(self.last) - bits(self.first)).saturating_add(1)
    }

    /// The addresses in ascending order.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        (bits(self.first)..=bits(self.last)).map(move |bits| match self.first {
            // What lies between two addresses of 32 bits has 32 bits.
            IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
        })
    }
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let read = |part: &str| part.trim().parse::<IpAddr>();
        match (read(first), read(last)) {
            (Ok(first), Ok(last)) if first.is_ipv4() != last.is_ipv4() => {
                Err(format!("the range {text:?} begins in one family and ends in the other"))
            }
            (Ok(first), Ok(last)) if first <= last => Ok(AddressRange { first, last }),
            (Ok(_), Ok(_)) => Err(format!("the range {text:?} ends before it begins")),
            _ => Err(format!("{text:?} is neither an IP address nor a range such as 10.240.4.4-10.240.4.34")),
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> Vec<String> {
        text.parse::<AddressRange>().unwrap().iter().map(|address| address.to_string()).collect()
    }

    #[test]
    fn both_ends_are_part_of_a_range_of_either_family() {
        assert_eq!(listed("10.0.0.254 - 10.0.1.1"), ["10.0.0.254", "10.0.0.255", "10.0.1.0", "10.0.1.1"]);
        assert_eq!(listed("fd00::fffe-fd00::1:0"), ["fd00::fffe", "fd00::ffff", "fd00::1:0"]);
        assert_eq!(listed("fd00::4"), ["fd00::4"]);
    }

    #[test]
    fn the_widest_range_has_a_count() {
        let all: AddressRange = "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        assert_eq!(all.count(), u128::MAX);
        assert_eq!("0.0.0.0-255.255.255.255".parse::<AddressRange>().unwrap().count(), 1 << 32);
    }

    #[test]
    fn a_range_between_the_families_is_refused() {
        assert!("10.0.0.4-fd00::4".parse::<AddressRange>().unwrap_err().contains("family"));
    }
}
