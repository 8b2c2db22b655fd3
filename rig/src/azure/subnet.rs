//! A subnet's address ranges, and which of their addresses Azure keeps for itself.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// How many addresses at the start of each range Azure keeps: network, gateway, two for DNS.
const RESERVED_AT_START: u32 = 4;

/// The address ranges of a subnet: IPv4 always, and with a dual-stack subnet one IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    ipv4: Ipv4Net,
    ipv6: Option<Ipv6Net>,
}

/// Azure would not make such a subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// It is not written as one IPv4 range, or one IPv4 and one IPv6 range with a comma between.
    #[error("{0:?} is no subnet such as 10.240.0.0/16 or 10.240.0.0/16,fd00:10:240::/64")]
    Unreadable(String),
    /// The range has bits set behind its prefix.
    #[error("{0} has bits set behind its prefix")]
    NotAligned(IpNet),
    /// An IPv6 range of another size.
    #[error("{0} is no /64, and an IPv6 subnet of Azure's is exactly that")]
    NotSlash64(Ipv6Net),
}

impl Subnet {
    /// A dual-stack subnet.
    pub fn dual_stack(ipv4: Ipv4Net, ipv6: Ipv6Net) -> Result<Self, SubnetError> {
        if ipv6.prefix_len() != 64 {
            return Err(SubnetError::NotSlash64(ipv6));
        }
        if ipv6 != ipv6.trunc() {
            return Err(SubnetError::NotAligned(ipv6.into()));
        }
        Ok(Subnet { ipv4, ipv6: Some(ipv6) })
    }

    /// The IPv4 range.
    pub fn ipv4(&self) -> Ipv4Net {
        self.ipv4
    }

    /// The IPv6 range, if it has one.
    pub fn ipv6(&self) -> Option<Ipv6Net> {
        self.ipv6
    }

    /// Both ranges, IPv4 first.
    pub fn ranges(&self) -> impl Iterator<Item = IpNet> {
        std::iter::once(IpNet::V4(self.ipv4)).chain(self.ipv6.map(IpNet::V6))
    }

    /// The range with an address; `None` if it is in neither.
    pub fn range_of(&self, address: IpAddr) -> Option<IpNet> {
        self.ranges().find(|range| range.contains(&address))
    }

    /// The IPv4 gateway, the range's first host address. (IPv6 has a link-local one, [`super::GATEWAY_V6`].)
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.ipv4.network()).saturating_add(1))
    }
}

/// Whether an address of a range is one of the five that Azure keeps.
pub fn is_reserved(range: IpNet, address: IpAddr) -> bool {
    match (range, address) {
        (IpNet::V4(range), IpAddr::V4(address)) => address < first_usable_v4(range) || address == range.broadcast(),
        (IpNet::V6(range), IpAddr::V6(address)) => address < first_usable_v6(range) || address == range.broadcast(),
        _ => false,
    }
}

/// The addresses of a range that a NIC can have, lowest first.
pub fn usable(range: IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    match range {
        IpNet::V4(range) => {
            let numbers = u32::from(first_usable_v4(range))..u32::from(range.broadcast());
            Box::new(numbers.map(|number| Ipv4Addr::from(number).into()))
        }
        IpNet::V6(range) => {
            let numbers = u128::from(first_usable_v6(range))..u128::from(range.broadcast());
            Box::new(numbers.map(|number| Ipv6Addr::from(number).into()))
        }
    }
}

fn first_usable_v4(range: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(range.network()).saturating_add(RESERVED_AT_START))
}

fn first_usable_v6(range: Ipv6Net) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(range.network()).saturating_add(u128::from(RESERVED_AT_START)))
}

impl From<Ipv4Net> for Subnet {
    /// A subnet without IPv6.
    fn from(ipv4: Ipv4Net) -> Self {
        Subnet { ipv4, ipv6: None }
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    /// Reads `10.240.0.0/16`, or `10.240.0.0/16,fd00:10:240::/64`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unreadable = |_| SubnetError::Unreadable(text.to_owned());
        let Some((ipv4, ipv6)) = text.split_once(',') else {
            return text.parse::<Ipv4Net>().map(Subnet::from).map_err(unreadable);
        };
        Subnet::dual_stack(ipv4.parse().map_err(unreadable)?, ipv6.parse().map_err(unreadable)?)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ipv4)?;
        self.ipv6.map_or(Ok(()), |ipv6| write!(f, ",{ipv6}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_range_is_a_whole_64() {
        let read = |text: &str| text.parse::<Subnet>();
        assert_eq!(read("10.240.0.0/16").unwrap().ipv6(), None);
        let both = read("10.240.0.0/16,fd00:10:240::/64").unwrap();
        assert_eq!(both.ipv6(), Some("fd00:10:240::/64".parse().unwrap()));
        assert_eq!(both.to_string().parse(), Ok(both));
        for size in ["63", "65", "128"] {
            assert!(matches!(read(&format!("10.0.0.0/8,fd00::/{size}")), Err(SubnetError::NotSlash64(_))), "{size}");
        }
        assert!(matches!(read("10.0.0.0/8,fd00::1/64"), Err(SubnetError::NotAligned(_))));
        for text in ["", "fd00::/64", "10.0.0.0/8,", "10.0.0.0/8,fd00::/64,fd01::/64"] {
            assert!(matches!(read(text), Err(SubnetError::Unreadable(_))), "{text}");
        }
    }

    #[test]
    fn the_first_four_and_the_last_are_azures_in_both_families() {
        for (range, first, kept) in [
            ("10.0.0.64/26", "10.0.0.68", ["10.0.0.64", "10.0.0.67", "10.0.0.127"]),
            ("fd00::/64", "fd00::4", ["fd00::", "fd00::3", "fd00::ffff:ffff:ffff:ffff"]),
        ] {
            let range: IpNet = range.parse().unwrap();
            assert_eq!(usable(range).next(), Some(first.parse().unwrap()));
            assert!(!is_reserved(range, first.parse().unwrap()));
            assert!(kept.iter().all(|address| is_reserved(range, address.parse().unwrap())), "{range}");
        }
    }
}
