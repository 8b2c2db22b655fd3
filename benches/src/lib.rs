//! What the benches share. The benches themselves are the files beside this folder, one for each question.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use dotfour_ipamd::pool::{Families, PodAddresses, Pool, PoolAddress, Rest, Wish};
use dotfour_protocol::AttachmentKey;

/// The NIC of the benches' pools.
pub const NIC: u32 = 2;

/// No rest, so that one path repeats.
pub const REST: Rest = Rest { cooldown: Duration::ZERO, floor: Duration::ZERO };

/// The attachment number `n`, with a container id as long as real ones.
pub fn key(n: u32) -> Arc<AttachmentKey> {
    Arc::new(AttachmentKey { network: "azure".into(), container_id: format!("{n:064x}"), ifname: "eth0".into() })
}

/// An ADD for an IPv4 address.
pub fn wish(key: &Arc<AttachmentKey>) -> Wish<'_> {
    let asked = PodAddresses::default();
    Wish { key, pod: None, families: Families::V4, asked, started: Duration::from_nanos(1), delegated: false }
}

/// A source's view of so many addresses.
pub fn view(size: u32) -> Vec<PoolAddress> {
    let first = Ipv4Addr::new(10, 240, 0, 0).to_bits();
    let subnet = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 240, 0, 0), 16).into();
    (first..first + size)
        .map(|bits| PoolAddress { address: Ipv4Addr::from_bits(bits).into(), subnet, nic: NIC })
        .collect()
}

/// A pool of so many addresses, half of them assigned to the first attachments.
pub fn half_full(size: u32) -> Pool {
    let mut pool = Pool::new(REST);
    pool.apply_view(&view(size));
    for n in 0..size / 2 {
        pool.assign(wish(&key(n)), Duration::ZERO);
    }
    pool
}
