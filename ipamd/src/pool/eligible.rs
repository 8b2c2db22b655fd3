//! What of a NIC's addresses may enter the pool: what Azure or the node needs never may.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::nic::Nic;
use crate::source::NicView;

/// An address a pod may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolAddress {
    /// The address.
    pub address: IpAddr,
    /// The subnet it is from.
    pub subnet: IpNet,
    /// Interface index of the NIC that carries it.
    pub nic: u32,
}

/// An address that was offered and does not enter the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// The address.
    pub address: IpAddr,
    /// Why.
    pub reason: ExclusionReason,
}

/// Why an address does not enter the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExclusionReason {
    /// It is the NIC's own: the source says so, or it is the one the NIC has.
    Primary,
    /// Azure keeps the first four and the last address of every subnet.
    AzureReserved,
    /// It is not in the subnet it was listed under.
    OutsideSubnet,
}

impl fmt::Display for ExclusionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ExclusionReason::Primary => "the node's own",
            ExclusionReason::AzureReserved => "Azure keeps the first four addresses of a subnet, and the last",
            ExclusionReason::OutsideSubnet => "outside of the subnet that they are listed under",
        })
    }
}

/// Splits the addresses that a report has of a NIC into those pods may have, in ascending order and without repeats, and
/// the rest.
pub fn eligible(report: &NicView, nic: &Nic) -> (Vec<PoolAddress>, Vec<Exclusion>) {
    let mut pool = Vec::new();
    let mut excluded = Vec::new();
    // Of every subnet: whatever a document says elsewhere, the node's own address is no pod's. The IPv6 one is not marked
    // in Azure's documents.
    let marked = report.subnets.iter().flat_map(|subnet| &subnet.primaries).copied();
    let primaries: Vec<IpAddr> = marked.chain(nic.own_addresses()).collect();
    for subnet in &report.subnets {
        for &address in &subnet.primaries {
            excluded.push(Exclusion { address, reason: ExclusionReason::Primary });
        }
        for &address in &subnet.secondaries {
            match exclusion(subnet.prefix, address, &primaries) {
                None => pool.push(PoolAddress { address, subnet: subnet.prefix, nic: nic.index }),
                Some(reason) => excluded.push(Exclusion { address, reason }),
            }
        }
    }
    pool.sort();
    pool.dedup_by_key(|candidate| candidate.address);
    (pool, excluded)
}

fn exclusion(subnet: IpNet, address: IpAddr, primaries: &[IpAddr]) -> Option<ExclusionReason> {
    if !subnet.contains(&address) {
        Some(ExclusionReason::OutsideSubnet)
    } else if primaries.contains(&address) {
        Some(ExclusionReason::Primary)
    } else if is_azure_reserved(subnet, address) {
        Some(ExclusionReason::AzureReserved)
    } else {
        None
    }
}

/// Whether Azure keeps the address for itself: base + 0 to base + 3 (network, gateway, DNS) and the last of the subnet.
fn is_azure_reserved(subnet: IpNet, address: IpAddr) -> bool {
    let (base, last, address) = match (subnet, address) {
        (IpNet::V4(net), IpAddr::V4(v4)) => {
            (u128::from(net.network().to_bits()), u128::from(net.broadcast().to_bits()), u128::from(v4.to_bits()))
        }
        (IpNet::V6(net), IpAddr::V6(v6)) => (net.network().to_bits(), net.broadcast().to_bits(), v6.to_bits()),
        _ => return false,
    };
    address == last || address.checked_sub(base).is_some_and(|offset| offset < 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SubnetView;

    fn report(prefix: &str, primaries: &[&str], secondaries: &[&str]) -> NicView {
        let parse = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect();
        NicView {
            mac: None,
            is_primary: true,
            subnets: vec![SubnetView {
                prefix: prefix.parse().unwrap(),
                primaries: parse(primaries),
                secondaries: parse(secondaries),
            }],
        }
    }

    fn nic() -> Nic {
        Nic {
            index: 2,
            name: "eth0".into(),
            mtu: 1500,
            address: "10.240.0.4".parse().unwrap(),
            address_v6: Some("fd00::4".parse().unwrap()),
        }
    }

    fn addresses(report: &NicView) -> Vec<String> {
        eligible(report, &nic()).0.iter().map(|candidate| candidate.address.to_string()).collect()
    }

    #[test]
    fn the_first_four_and_the_last_of_a_subnet_stay_out() {
        let offered = ["10.0.0.64", "10.0.0.65", "10.0.0.66", "10.0.0.67", "10.0.0.68", "10.0.0.126", "10.0.0.127"];
        let report = report("10.0.0.64/26", &[], &offered);
        assert_eq!(addresses(&report), ["10.0.0.68", "10.0.0.126"]);
        assert!(eligible(&report, &nic()).1.iter().all(|e| e.reason == ExclusionReason::AzureReserved));
    }

    #[test]
    fn a_zero_in_the_middle_of_a_wide_subnet_is_usable() {
        assert_eq!(
            addresses(&report("10.240.0.0/16", &[], &["10.240.1.0", "10.240.0.255"])),
            ["10.240.0.255", "10.240.1.0"]
        );
    }

    #[test]
    fn the_nic_s_own_address_stays_out_even_if_listed_twice() {
        let report = report("10.240.0.0/16", &["10.240.0.9"], &["10.240.0.9", "10.240.0.5", "10.240.0.5"]);
        assert_eq!(addresses(&report), ["10.240.0.5"]);
    }

    #[test]
    fn the_addresses_that_the_nic_has_stay_out_though_no_document_marks_them() {
        assert_eq!(addresses(&report("10.240.0.0/16", &[], &["10.240.0.4", "10.240.0.5"])), ["10.240.0.5"]);
        assert_eq!(addresses(&report("fd00::/64", &[], &["fd00::4", "fd00::5"])), ["fd00::5"]);
    }

    #[test]
    fn strangers_to_the_subnet_stay_out_of_either_family() {
        let report = report("10.240.0.0/16", &[], &["10.241.0.9", "fd00::9", "10.240.0.9"]);
        assert_eq!(addresses(&report), ["10.240.0.9"]);
        let reasons: Vec<_> = eligible(&report, &nic()).1.iter().map(|e| e.reason).collect();
        assert_eq!(reasons, [ExclusionReason::OutsideSubnet, ExclusionReason::OutsideSubnet]);
    }

    #[test]
    fn azure_keeps_as_much_of_an_ipv6_subnet() {
        let offered =
            ["fd00::", "fd00::1", "fd00::3", "fd00::5", "fd00::ffff:ffff:ffff:fffe", "fd00::ffff:ffff:ffff:ffff"];
        assert_eq!(addresses(&report("fd00::/64", &[], &offered)), ["fd00::5", "fd00::ffff:ffff:ffff:fffe"]);
    }

    #[test]
    fn addresses_come_in_numeric_order() {
        let report = report("10.240.0.0/16", &[], &["10.240.0.100", "10.240.0.20", "10.240.0.3", "10.240.0.6"]);
        assert_eq!(addresses(&report), ["10.240.0.6", "10.240.0.20", "10.240.0.100"]);
    }
}
