//! The journal: from any bytes to a pool that is right.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use dotfour_datapath::link::Link;
use dotfour_ipamd::lease::journal::{Remembered, judge};
use dotfour_ipamd::lease::ledger::snapshot;
use dotfour_ipamd::lease::record::{Contents, read};
use dotfour_ipamd::lease::recover::{Found, Replayed, find, replay, restore};
use dotfour_ipamd::lease::{Identity, Record};
use dotfour_ipamd::pool::{Assignment, Families, Moment, Pool, PoolAddress, Rest, State, Wish};
use dotfour_ipamd::wiring::names::keyed_host_link;
use dotfour_ipamd::wiring::tag::Tag;
use dotfour_protocol::AttachmentKey;
use ipnet::IpNet;

const NIC: u32 = 2;
const REST: Rest = Rest { cooldown: Duration::from_secs(30), floor: Duration::from_secs(5) };
/// When the daemon starts again: the seeds' records are from before, and some of a pod's time from just before.
const NOW: Moment = Duration::from_secs(1_000);
/// How long a DEL without a lease counts.
const DEL_REMEMBERED: Duration = Duration::from_secs(600);
/// How many addresses of each family the source reports.
const ADDRESSES: u8 = 12;

/// The journal's file, byte by byte. Most changes of it end in a checksum that is wrong; [`records`] goes deeper.
pub fn journal(data: &[u8]) -> bool {
    let contents = read(data);
    let end = contents.damage.map_or(data.len(), |damage| damage.offset);
    assert_eq!(end + contents.damage.map_or(0, |damage| damage.dropped), data.len());
    let mut written = Vec::new();
    contents.records.iter().for_each(|record| record.append_to(&mut written));
    assert_eq!(read(&written), Contents { records: contents.records.clone(), ..Contents::default() });

    // Which byte is changed is as good as random. No change of one byte goes unnoticed where a record was read.
    let at = usize::try_from(crc32fast::hash(data)).unwrap_or_default() % end.max(1);
    let mut changed = data.to_vec();
    if let Some(byte) = changed.get_mut(at).filter(|_| at < end) {
        *byte ^= 0x20;
        assert!(read(&changed).damage.is_some_and(|damage| damage.offset <= at), "a change at {at} goes unnoticed");
    }

    let (total, damaged) = (contents.records.len(), contents.damage.is_some());
    let remembered = judge(contents, &identity());
    assert!(remembered.records.len() < total.max(1), "a journal has more records than were read, its header aside");
    assert!(!damaged || !remembered.findings.is_empty(), "damage that nobody is told of");
    recover(&remembered);
    !remembered.records.is_empty()
}

/// The journal's records, one JSON text a line, behind a header and in frames that are right: what a journal could say.
pub fn records(data: &[u8]) -> bool {
    let mut file = Vec::new();
    let Identity { boot_id, machine_id } = identity();
    Record::Header { schema: 1, oldest_reader: 1, boot_id, machine_id }.append_to(&mut file);
    // Longer ones are damage, which is the other entry's subject.
    let lines: Vec<&[u8]> =
        data.split(|byte| *byte == b'\n').filter(|line| (1..=16_384).contains(&line.len())).collect();
    for line in &lines {
        file.extend(u32::try_from(line.len()).unwrap_or_default().to_le_bytes());
        file.extend(crc32fast::hash(line).to_le_bytes());
        file.extend(*line);
    }
    let contents = read(&file);
    assert_eq!(contents.damage, None);
    assert_eq!(contents.records.len() + contents.unknown, 1 + lines.len());
    let remembered = judge(contents, &identity());
    assert!(!remembered.incomplete);
    recover(&remembered);
    !remembered.records.is_empty()
}

/// The machine that the seeds are of.
fn identity() -> Identity {
    Identity { boot_id: "boot".into(), machine_id: "machine".into() }
}

/// A pool with the source's view and nothing else.
static FRESH: LazyLock<Pool> = LazyLock::new(|| {
    let addresses = (4..4 + ADDRESSES).flat_map(|n| {
        let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into());
        [(IpAddr::from([10, 240, 0, n]), 16), (v6.into(), 64)]
    });
    let view: Vec<PoolAddress> = addresses
        .map(|(address, prefix)| PoolAddress { address, subnet: IpNet::new_assert(address, prefix).trunc(), nic: NIC })
        .collect();
    let mut pool = Pool::new(REST);
    pool.apply_view(&view);
    pool
});

/// Restores a pool, looks whether it is right, starts the daemon once more from what it would have written, and uses the
/// pool up.
fn recover(remembered: &Remembered) {
    let replayed = replay(&remembered.records);
    let found = find(&links(&replayed));
    let mut pool = FRESH.clone();
    let restored = restore(&mut pool, &found, remembered, NIC, NOW);
    assert_eq!(restored.pods, pool.leases().count());
    check(&pool);
    living_pods_keep_their_addresses(&pool, &found);
    for key in &restored.collected {
        assert_eq!(pool.lease(key), None, "{key} is collected and holds a lease");
    }
    started_again_it_is_the_same(&pool, &found);
    use_up(pool);
}

/// The links of the pods that live: those of the journal whose container id ends in an odd byte.
fn links(replayed: &Replayed) -> Vec<Link> {
    let alive: BTreeMap<_, _> =
        replayed.leases.iter().filter(|(key, _)| key.container_id.bytes().next_back().unwrap_or(0) % 2 == 1).collect();
    let tags = alive.into_iter().map(|(key, lease)| Tag { key: Arc::clone(key), addresses: lease.addresses });
    let named = (0x4000_0000..).zip(tags).map(|(index, tag)| Link {
        index,
        name: keyed_host_link(&tag.key),
        alias: Some(tag.to_string()),
        ..Link::default()
    });
    named.collect()
}

/// The pool's promises, as far as they can be seen from outside.
fn check(pool: &Pool) {
    let counts = pool.counts();
    let sum = [counts.free, counts.assigned, counts.cooling, counts.reserved, counts.releasing, counts.quarantined];
    assert_eq!(sum.iter().sum::<usize>(), counts.total, "{counts:?}");
    let mut held = BTreeSet::new();
    for (key, lease) in pool.leases() {
        for address in lease.addresses.iter() {
            assert!(held.insert(address), "{address} is assigned twice");
            assert_eq!(pool.owner(address), Some(key));
        }
    }
    assert_eq!(held.len(), counts.assigned);
    let cooling: Vec<Moment> = pool.cooling().map(|(_, since)| since).collect();
    assert_eq!(cooling.len(), counts.cooling);
    assert!(cooling.is_sorted() && cooling.iter().all(|since| *since <= NOW), "{cooling:?}");
    assert_eq!(pool.free().count(), counts.free);
}

/// A link that exists is a pod that lives: its addresses are nobody else's to get.
fn living_pods_keep_their_addresses(pool: &Pool, found: &Found) {
    for (tag, link) in &found.pods {
        for address in tag.addresses.iter() {
            let state = pool.state(address);
            assert!(
                !matches!(state, Some(State::Free | State::Cooling { .. })),
                "{address} of the living {} ({}) is {state:?}",
                tag.key,
                link.name
            );
        }
    }
}

/// What the daemon writes when it starts leads to the same pool, should it end right then.
fn started_again_it_is_the_same(pool: &Pool, found: &Found) {
    let contents = read(&snapshot(pool));
    assert_eq!((contents.unknown, contents.damage), (0, None));
    let remembered = Remembered { records: contents.records, ..Remembered::default() };
    let mut again = FRESH.clone();
    let restored = restore(&mut again, found, &remembered, NIC, NOW);
    assert!(restored.collected.is_empty(), "{:?}", restored.collected);
    check(&again);
    let leases =
        |pool: &Pool| -> HashMap<_, _> { pool.leases().map(|(key, lease)| (Arc::clone(key), lease.clone())).collect() };
    assert_eq!(leases(&again), leases(pool));
    assert_eq!(again.cooling().collect::<BTreeSet<_>>(), pool.cooling().collect());
    // A DEL beside a lease is remembered by the lease's own end, and one from long ago need not be any more.
    let dels = |pool: &Pool| -> BTreeMap<_, _> {
        let needed = |key: &Arc<AttachmentKey>, at| pool.lease(key).is_none() && NOW - at < DEL_REMEMBERED;
        pool.remembered_dels().filter(|(key, at)| needed(key, *at)).map(|(key, at)| (Arc::clone(key), at)).collect()
    };
    assert_eq!(dels(&again), dels(pool));
}

/// New pods, until there is no address left: each gets one that nobody has and that has rested enough.
fn use_up(mut pool: Pool) {
    let resting: HashMap<IpAddr, Moment> = pool.cooling().collect();
    let addresses = pool.begin_sweep(NOW);
    pool.end_sweep(&addresses, NOW);
    for n in 0..=u32::from(ADDRESSES) {
        let key = AttachmentKey { network: "new".into(), container_id: format!("new{n}"), ifname: "eth0".into() };
        let key = Arc::new(key);
        let wish = Wish {
            key: &key,
            pod: None,
            families: Families::V4,
            asked: Default::default(),
            started: NOW,
            delegated: false,
        };
        match pool.assign(wish, NOW) {
            Assignment::New(addresses) => {
                for since in addresses.iter().filter_map(|address| resting.get(&address)) {
                    assert!(*since + REST.floor <= NOW, "lent after {:?}", NOW - *since);
                }
            }
            Assignment::Exhausted(_) => break,
            // The journal may know these keys as well.
            Assignment::Existing(_) | Assignment::HeldOtherwise | Assignment::Overtaken => {}
            other => assert_eq!(other, Assignment::Overtaken, "nothing was asked for"),
        }
    }
    check(&pool);
}
