//! The wireserver's document, and what of it may become a pod's address.

use std::collections::BTreeSet;
use std::net::IpAddr;

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
    let (pool, excluded) = eligible(nic, INDEX);
    for PoolAddress { address, subnet, nic: index } in &pool {
        assert_eq!(*index, INDEX);
        assert!(usable(*subnet, *address), "{address} of {subnet} is not for pods");
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

/// By plain arithmetic: the first four and the last address of a subnet are Azure's, and pods get IPv4 alone.
fn usable(subnet: IpNet, address: IpAddr) -> bool {
    let (IpNet::V4(subnet), IpAddr::V4(address)) = (subnet, address) else { return false };
    let size = 1_u64 << (32 - u32::from(subnet.prefix_len()));
    let first = u64::from(subnet.addr().to_bits()) / size * size;
    let address = u64::from(address.to_bits());
    (first + 4..first + size - 1).contains(&address)
}
