//! Reading what the kernel, or anybody, says.

use super::*;

fn ip(tuple: u16, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let ends = [attribute(CTA_IP_V4_SRC, &source), attribute(CTA_IP_V4_SRC + 1, &destination)].concat();
    attribute(tuple | NLA_F_NESTED, &attribute(CTA_TUPLE_IP | NLA_F_NESTED, &ends))
}

/// An entry as a dump has it: a connection from .1 to .9, which is .2 in truth.
fn dumped() -> Vec<u8> {
    [
        vec![INET, 0, 0, 0],
        ip(CTA_TUPLE_ORIG, [10, 0, 0, 1], [10, 0, 0, 9]),
        ip(CTA_TUPLE_REPLY, [10, 0, 0, 2], [10, 0, 0, 1]),
        attribute(CTA_ID, &[1, 2, 3, 4]),
        attribute(CTA_ZONE, &[0, 7]),
        attribute(3, &[0, 0, 1, 0xff]),
    ]
    .concat()
}

#[test]
fn an_entry_names_its_four_addresses_and_no_others() {
    let entry = entry(&dumped()).unwrap();
    let names = |last| entry.names(&HashSet::from([IpAddr::from([10, 0, 0, last])]));
    assert_eq!([1, 2, 9].map(names), [true; 3]);
    assert_eq!([3, 0, 10].map(names), [false; 3]);
}

#[test]
fn a_deletion_is_of_this_entry_alone() {
    let payload = deletion(&dumped());
    let kinds: Vec<u16> = attributes(&payload[NFGENMSG..]).map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE]);
    assert_eq!(payload[0], INET);
}

#[test]
fn no_request_is_without_a_tuple_which_would_empty_the_whole_table() {
    for payload in filters(Ipv4Addr::new(10, 0, 0, 2), Place::Anywhere) {
        let kinds: Vec<u16> = attributes(&payload[NFGENMSG..]).map(|(kind, _)| kind).collect();
        assert!(matches!(kinds[..], [CTA_TUPLE_ORIG | CTA_TUPLE_REPLY, CTA_FILTER]), "{kinds:?}");
    }
}

#[test]
fn cut_and_damaged_entries_are_no_entries_and_no_panic() {
    let whole = dumped();
    for end in 0..whole.len() {
        let _ = (entry(&whole[..end]), deletion(&whole[..end]));
    }
    assert_eq!(entry(&whole[..40]), None);
    for place in 0..whole.len() {
        for value in [0, 1, 3, 0x7f, 0xff] {
            let mut damaged = whole.clone();
            damaged[place] = value;
            let _ = (entry(&damaged), deletion(&damaged));
        }
    }
}

#[test]
fn the_cheaper_way_is_taken() {
    let way = |count, place, entries| {
        let addresses: Vec<_> = (0..count).map(|last| (IpAddr::from([10, 0, 0, last]), place)).collect();
        best_way(&addresses, entries)
    };
    assert_eq!(way(1, Place::Anywhere, 1_000), Way::Filter);
    assert_eq!(way(1, Place::Anywhere, 1_000_000), Way::Filter);
    assert_eq!(way(3, Place::Anywhere, 50_000), Way::Dump);
    assert_eq!(way(3, Place::Target, 50_000), Way::Filter);
    assert_eq!(way(250, Place::Target, 1_000), Way::Dump);
    assert_eq!(best_way(&[([0; 16].into(), Place::Target)], 0), Way::Dump, "the filter does not find IPv6 addresses");
}
