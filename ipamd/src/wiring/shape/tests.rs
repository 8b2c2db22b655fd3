//! One change after the other to what ADD made, each named.

use dotfour_protocol::AttachmentKey;

use std::sync::{Arc, LazyLock};

use super::*;
use crate::nic::Nic;
use crate::wiring::names::POD_GROUP;
use crate::wiring::tag::Tag;

const INDEX: u32 = 1_073_741_900;

fn nic() -> &'static Nic {
    static NIC: LazyLock<Nic> = LazyLock::new(|| Nic {
        index: 2,
        name: "eth0".into(),
        mtu: 1500,
        address: "10.240.0.4".parse().unwrap(),
        address_v6: Some("fd00::4".parse().unwrap()),
    });
    &NIC
}

fn plan() -> PodPlan<'static> {
    let key = AttachmentKey { network: "azure".into(), container_id: "c0ffee".into(), ifname: "eth0".into() };
    let addresses = "10.240.0.5".parse::<IpAddr>().unwrap().into();
    PodPlan {
        tag: Tag { key: Arc::new(key), addresses },
        host_link: "azv0d7763386da".into(),
        nic: nic(),
        group: POD_GROUP,
    }
}

/// What a namespace holds after ADD.
fn as_made(end: &End) -> Seen {
    let link = Link {
        index: end.index,
        name: end.name.clone(),
        mac: Some(end.mac),
        mtu: end.mtu,
        up: true,
        alias: end.alias.clone(),
        group: end.group,
        ..Link::default()
    };
    let address = |address: &IpNet| LinkAddress { link: end.index, address: *address, link_scope: false };
    let neighbour = |(address, mac): &(IpAddr, Mac)| Neighbour {
        link: end.index,
        address: *address,
        mac: Some(*mac),
        permanent: true,
    };
    Seen {
        link: Some(link),
        addresses: end.addresses.iter().map(address).collect(),
        routes: end.routes.clone(),
        rules: end.rules().collect(),
        neighbours: end.neighbours.iter().map(neighbour).collect(),
    }
}

fn difference(end: &End, change: impl FnOnce(&mut Seen)) -> Option<(String, String)> {
    let mut seen = as_made(end);
    change(&mut seen);
    first_difference(end, &seen, "x").map(|difference| (difference.what, difference.fix))
}

#[test]
fn what_add_made_does_not_differ_nor_does_what_others_added() {
    let further = pod_end(&plan(), INDEX).of_further_interface();
    for end in [node_end(&plan(), plan().host_link, INDEX), pod_end(&plan(), INDEX), further] {
        assert_eq!(difference(&end, |_| {}), None);
        let added = difference(&end, |seen| {
            let net = "192.0.2.1/24".parse().unwrap();
            seen.addresses.push(LinkAddress { link: end.index, address: net, link_scope: false });
            seen.routes.push(host_route("192.0.2.9".parse().unwrap(), end.index, None));
        });
        assert_eq!(added, None);
    }
}

#[test]
fn each_difference_of_the_node_s_end_is_named_with_its_fix() {
    let end = node_end(&plan(), plan().host_link, INDEX);
    let link = |change: fn(&mut Link)| difference(&end, |seen| change(seen.link.as_mut().unwrap())).unwrap();
    let says = |(what, fix): (String, String), expected_what: &str, expected_fix: &str| {
        assert!(what.contains(expected_what) && what.ends_with(" in x"), "{what}");
        assert!(fix.contains(expected_fix), "{fix}");
    };
    says(difference(&end, |seen| seen.link = None).unwrap(), "the link azv0d7763386da is missing", "delete the pod");
    says(link(|link| link.up = false), "is down", "ip link set azv0d7763386da up");
    says(link(|link| link.mtu = 1400), "is 1400 and not 1500", "mtu 1500");
    says(link(|link| link.mac = Some(Mac([2; 6]))), "is 02:02:02:02:02:02 and not aa:aa:aa:aa:aa:aa", "address aa:aa");
    says(link(|link| link.mac = None), "is none", "address aa:aa");
    says(link(|link| link.alias = Some("mine".into())), "the alias of", "delete the pod");
    says(link(|link| link.name = "azx1".into()), "has the name azx1", "delete the pod");
    says(link(|link| link.group = 0x4444_0001), "is condemned", "delete the pod");
    says(
        link(|link| link.group = EXEMPT_GROUP),
        "the group of the link",
        "ip link set azv0d7763386da group 1145372673",
    );
    assert_eq!(difference(&end, |seen| seen.link.as_mut().unwrap().group = 7), None);
    let route = "10.240.0.5/32 dev azv0d7763386da proto 44 src 10.240.0.4";
    for change in [|seen: &mut Seen| seen.routes.clear(), |seen: &mut Seen| seen.routes[0].preferred_source = None] {
        says(
            difference(&end, change).unwrap(),
            &format!("the route {route} is missing"),
            &format!("route replace {route}"),
        );
    }
    let neighbour = "10.240.0.5 lladdr 0a:d4:0a:f0:00:05 dev azv0d7763386da nud permanent";
    for change in [
        |seen: &mut Seen| seen.neighbours.clear(),
        |seen: &mut Seen| seen.neighbours[0].permanent = false,
        |seen: &mut Seen| seen.neighbours[0].mac = Some(Mac([2; 6])),
        |seen: &mut Seen| seen.neighbours[0].link += 1,
    ] {
        let fix = format!("neighbour replace {neighbour}");
        says(difference(&end, change).unwrap(), &format!("the neighbour entry {neighbour} is missing"), &fix);
    }
}

#[test]
fn the_pod_s_mtu_may_be_lower_and_not_higher() {
    let end = pod_end(&plan(), INDEX);
    let with = |mtu| difference(&end, |seen| seen.link.as_mut().unwrap().mtu = mtu);
    assert_eq!(with(1400), None);
    assert_eq!(with(9000).unwrap().0, "the MTU of eth0 is 9000 and not 1500 in x");
}

#[test]
fn each_difference_of_the_pod_s_end_is_named_with_its_fix() {
    let end = pod_end(&plan(), INDEX);
    let (what, fix) = difference(&end, |seen| seen.addresses.clear()).unwrap();
    assert_eq!(what, "the address 10.240.0.5/32 of eth0 is missing in x");
    assert_eq!(fix, "in x, run: ip address add 10.240.0.5/32 dev eth0 noprefixroute");
    let (what, _) = difference(&end, |seen| seen.routes.retain(|route| route != &end.routes[1])).unwrap();
    assert_eq!(what, "the route 0.0.0.0/0 via 169.254.1.1 dev eth0 proto 44 is missing in x");
    let (what, _) = difference(&end, |seen| seen.routes.retain(|route| route != &end.routes[0])).unwrap();
    assert_eq!(what, "the route 169.254.1.1/32 dev eth0 proto 44 is missing in x");
}
