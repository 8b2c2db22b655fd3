//! The wireserver's document, and what of it may become a pod's address.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use dotfour_ipamd::nic::Nic;
use dotfour_ipamd::pool::{PoolAddress, eligible};
use dotfour_ipamd::source::NicView;
use dotfour_ipamd::source::wireserver::parse;
use ipnet::IpNet;

/// A document is read as a whole or refused, and whatever it says, no address that Azure or the node keeps comes out.
pub fn wireserver(data: &[u8]) -> bool {
    let nics = match parse(data) {
        Ok(nics) => nics,
        Err(reason) => {
            assert!(!reason.is_empty());
            return false;
        }
    };
    assert!(!nics.is_empty());
    nics.iter().for_each(only_pod_addresses);
    // Where the document is cut off is as good as random.
    let cut = usize::try_from(crc32fast::hash(data)).unwrap_or_default() % data.len().max(1);
    if let Ok(shorter) = parse(data.get(..cut).unwrap_or_default()) {
        // What follows the root element may be missing.
        assert_eq!(shorter, nics, "cut at {cut}, the document says something else");
    }
    true
}

/// Nothing that is reserved, outside of its subnet or the node's own may be a pod's; and nothing is lost.
pub(crate) fn only_pod_addresses(nic: &NicView) {
    const INDEX: u32 = 7;
    let own = |family: fn(&IpAddr) -> bool| nic.subnets.iter().flat_map(|s| &s.secondaries).copied().find(family);
    let carrier = Nic {
        index: INDEX,
        name: "eth0".into(),
        mtu: 1500,
        address: match own(IpAddr::is_ipv4) {
            Some(IpAddr::V4(v4)) => v4,
            _ => Ipv4Addr::UNSPECIFIED,
        },
        address_v6: match own(IpAddr::is_ipv6) {
            Some(IpAddr::V6(v6)) => Some(v6),
            _ => None,
        },
    };
    let (pool, excluded) = eligible(nic, &carrier);
    for PoolAddress { address, subnet, nic: index } in &pool {
        assert_eq!(*index, INDEX);
        assert!(usable(*subnet, *address), "{address} of {subnet} is not for pods");
        assert!(carrier.own_addresses().all(|own| own != *address), "{address} is the NIC's own, and in the pool");
        for listed in &nic.subnets {
            assert!(!listed.primaries.contains(address), "{address} is the node's own, and in the pool");
        }
    }
    assert!(pool.is_sorted_by(|one, next| one.address < next.address), "{pool:?}");
    let offered: BTreeSet<IpAddr> =
        nic.subnets.iter().flat_map(|subnet| subnet.primaries.iter().chain(&subnet.secondaries)).copied().collect();
    let judged: BTreeSet<IpAddr> = pool
        .iter()
        .map(|candidate| candidate.address)
        .chain(excluded.iter().map(|exclusion| exclusion.address))
        .collect();
    assert_eq!(offered, judged);
}

/// By plain arithmetic: the first four and the last address of a subnet are Azure's.
fn usable(subnet: IpNet, address: IpAddr) -> bool {
    let (first, width, address) = match (subnet.addr(), address) {
        (IpAddr::V4(first), IpAddr::V4(address)) => (first.to_bits().into(), 32, u128::from(address.to_bits())),
        (IpAddr::V6(first), IpAddr::V6(address)) => (first.to_bits(), 128, address.to_bits()),
        _ => return false,
    };
    // Bits that all addresses of the subnet share say nothing.
    let mask = u128::MAX.checked_shr(128 - (width - u32::from(subnet.prefix_len()))).unwrap_or(0);
    let within = first & !mask == address & !mask;
    let (place, last) = (address & mask, mask);
    within && place >= 4 && place < last
}
