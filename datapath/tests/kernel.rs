//! What only a real kernel can say about the datapath, each test in network namespaces of its own.

// Clippy allows these in test functions only, not in what test functions share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::IpAddr;
use std::os::fd::AsFd;

use dotfour_datapath::address::PrefixRoute;
use dotfour_datapath::link::{Ipv4Setting, LinkChange, LinkId, VethEnd, VethPair};
use dotfour_datapath::netns::open_socket_in;
use dotfour_datapath::route::{IfPresent, Route};
use dotfour_datapath::{Batch, Departure, Departures, Mac, Netns, Socket};
use rustix::io::Errno;

const POD_MAC: Mac = Mac([0x0a, 0xd4, 10, 240, 0, 5]);
const HOST_MAC: Mac = Mac([0xaa; 6]);

/// A namespace of the test's own. Panics with what to do where the machine does not allow one.
fn netns() -> Netns {
    Netns::create().expect("network namespaces need root, or `make test`, which makes user namespaces first")
}

fn pair<'a>(pod: &'a Netns, index: u32) -> VethPair<'a> {
    VethPair {
        near: VethEnd { name: "azv0", mac: Some(HOST_MAC), index: Some(index) },
        far: VethEnd { name: "eth0", mac: Some(POD_MAC), index: Some(2) },
        far_netns: Some(pod.as_fd()),
        mtu: 1400,
    }
}

#[test]
fn a_veth_is_born_in_place_with_all_it_needs() {
    let (node, pod) = (netns(), netns());
    node.run(|| {
        let mut socket = Socket::open().unwrap();
        let mut batch = Batch::new();
        batch.create_veth("create the pair", &pair(&pod, 1_000_000));
        batch.change_link(
            "tag it",
            LinkId::Index(1_000_000),
            &LinkChange { alias: Some("ours"), ipv4: &[(Ipv4Setting::ProxyArp, 1)], ..LinkChange::default() },
        );
        let route = Route {
            destination: "10.240.0.5/32".parse().unwrap(),
            gateway: None,
            link: 1_000_000,
            preferred_source: None,
            protocol: 44,
        };
        batch.add_route("add the host route", &route, IfPresent::Refuse);
        batch.set_neighbour("add the neighbour", 1_000_000, "10.240.0.5".parse().unwrap(), POD_MAC);
        socket.run(batch).unwrap();

        let near = socket.link(LinkId::Name("azv0")).unwrap().unwrap();
        assert_eq!((near.index, near.mac, near.mtu, near.up), (1_000_000, Some(HOST_MAC), 1400, true));
        assert_eq!(near.alias.as_deref(), Some("ours"));
        assert_eq!(near.kind.as_deref(), Some("veth"));
        assert_eq!(std::fs::read_to_string("/proc/thread-self/net/route").unwrap().lines().count(), 2);
        assert!(std::fs::read_to_string("/proc/thread-self/net/arp").unwrap().contains("0a:d4:0a:f0:00:05"));
    })
    .unwrap();

    let home = Netns::current().unwrap();
    let mut inside = open_socket_in(pod.as_fd(), &home).unwrap();
    let far = inside.link(LinkId::Name("eth0")).unwrap().unwrap();
    assert_eq!((far.index, far.mac, far.mtu, far.up), (2, Some(POD_MAC), 1400, false));
    let mut batch = Batch::new();
    let address: IpAddr = "10.240.0.5".parse().unwrap();
    batch.change_link("set it up", LinkId::Index(2), &LinkChange { up: Some(true), ..LinkChange::default() });
    batch.add_address("give it its address", 2, address.into(), PrefixRoute::Omit);
    inside.run(batch).unwrap();
    assert!(inside.link(LinkId::Index(2)).unwrap().unwrap().up);
}

#[test]
fn from_inside_a_pod_the_node_s_links_are_seen_by_their_names() {
    let (node, pod) = (netns(), netns());
    let mut batch = Batch::new();
    batch.create_veth("create the pair", &pair(&pod, 1_000_000));
    node.run(|| Socket::open().unwrap().run(batch).unwrap()).unwrap();
    let mut inside = open_socket_in(pod.as_fd(), &Netns::current().unwrap()).unwrap();
    let mut look = |netnsid, name| {
        let mut batch = inside.batch();
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        batch.change_link("set the pod's end up", LinkId::Name("eth0"), &up);
        batch.get_link_across("look", netnsid, name);
        inside.run_to_link(batch)
    };
    assert_eq!(look(0, "azv0").unwrap(), Some(1_000_000));
    for (netnsid, name, errno) in [(0, "azv1", Errno::NODEV), (9, "azv0", Errno::INVAL)] {
        assert_eq!(look(netnsid, name).unwrap_err().to_string(), format!("cannot look: {errno}"));
    }
}

#[test]
fn the_refused_step_is_named_and_the_rest_of_the_batch_is_carried_out() {
    let (node, pod) = (netns(), netns());
    node.run(|| {
        let mut socket = Socket::open().unwrap();
        let mut batch = Batch::new();
        batch.change_link("set up nobody", LinkId::Index(77), &LinkChange { up: Some(true), ..LinkChange::default() });
        batch.create_veth("create the pair", &pair(&pod, 5));
        let refused = socket.run(batch).unwrap_err();
        assert_eq!(refused.errno(), Some(Errno::NODEV));
        assert!(refused.to_string().contains("set up nobody"), "{refused}");
        assert!(socket.link(LinkId::Index(5)).unwrap().is_some());

        let mut again = Batch::new();
        again.create_veth("create it again", &pair(&pod, 6));
        let refused = socket.run(again).unwrap_err();
        assert_eq!(refused.errno(), Some(Errno::EXIST));
        assert!(socket.link(LinkId::Index(6)).unwrap().is_none());
    })
    .unwrap();
}

#[test]
fn a_group_is_deleted_at_once_and_others_stay() {
    let (node, pods) = (netns(), [netns(), netns(), netns()]);
    node.run(|| {
        let mut socket = Socket::open().unwrap();
        for (i, pod) in pods.iter().enumerate() {
            let name = format!("azv{i}");
            let index = 100 + u32::try_from(i).unwrap();
            let mut batch = Batch::new();
            batch.create_veth(
                "create",
                &VethPair { near: VethEnd { name: &name, ..pair(pod, index).near }, ..pair(pod, index) },
            );
            let group = if i == 1 { 0 } else { 9 };
            let change = LinkChange { group: Some(group), up: Some(false), ..LinkChange::default() };
            batch.change_link("condemn", LinkId::Index(index), &change);
            socket.run(batch).unwrap();
        }
        let mut batch = Batch::new();
        batch.delete_group("bury", 9);
        socket.run(batch).unwrap();
        let left: Vec<String> =
            socket.links().unwrap().into_iter().map(|l| l.name).filter(|n| n.starts_with("azv")).collect();
        assert_eq!(left, ["azv1"]);
    })
    .unwrap();
}

#[test]
fn a_port_of_a_bridge_names_its_master_and_leaves_the_bridge_its_own_mac() {
    let (node, other) = (netns(), netns());
    node.run(|| {
        let mut socket = Socket::open().unwrap();
        let mut batch = Batch::new();
        batch.create_bridge("create the bridge", "br0", HOST_MAC);
        let twin = VethEnd { name: "twin", mac: Some(POD_MAC), index: None };
        batch.create_veth("create the pair", &VethPair { near: twin, ..pair(&other, 5) });
        socket.run(batch).unwrap();

        let bridge = socket.link(LinkId::Name("br0")).unwrap().unwrap();
        let enslave = LinkChange { master: Some(bridge.index), ..LinkChange::default() };
        let mut batch = Batch::new();
        batch.change_link("enslave", LinkId::Name("twin"), &enslave);
        socket.run(batch).unwrap();
        assert_eq!(socket.link(LinkId::Name("twin")).unwrap().unwrap().master, Some(bridge.index));
        let bridge = socket.link(LinkId::Name("br0")).unwrap().unwrap();
        assert_eq!((bridge.mac, bridge.up, bridge.kind.as_deref()), (Some(HOST_MAC), true, Some("bridge")));

        let mut batch = Batch::new();
        let free = LinkChange { master: Some(0), ..LinkChange::default() };
        batch.change_link("free", LinkId::Name("twin"), &free);
        socket.run(batch).unwrap();
        assert_eq!(socket.link(LinkId::Name("twin")).unwrap().unwrap().master, None);
    })
    .unwrap();
}

#[test]
fn a_deleted_link_is_told_of_and_what_is_made_or_changed_is_not() {
    let (node, pod) = (netns(), netns());
    node.run(|| {
        let mut departures = Departures::listen().unwrap();
        let mut socket = Socket::open().unwrap();
        for index in [100, 101] {
            let mut batch = Batch::new();
            batch.create_veth("create", &pair(&pod, index));
            let change = LinkChange { alias: Some("ours"), up: Some(false), ..LinkChange::default() };
            batch.change_link("change", LinkId::Index(index), &change);
            batch.delete_link("delete", LinkId::Index(index));
            socket.run(batch).unwrap();
        }
        // Anything else that had come through would come first.
        assert_eq!(departures.wait().unwrap(), Departure::Link(100));
        assert_eq!(departures.wait().unwrap(), Departure::Link(101));
    })
    .unwrap();
}

#[test]
fn a_link_has_no_address_of_its_own_unless_it_is_wanted() {
    let (node, pod) = (netns(), netns());
    let addresses = |wanted| {
        node.run(|| {
            let mut socket = Socket::open().unwrap();
            let mut batch = Batch::new();
            batch.create_veth("create", &pair(&pod, 100));
            let change = LinkChange { ipv6_link_local: wanted, ..LinkChange::default() };
            batch.change_link("say", LinkId::Index(100), &change);
            socket.run(batch).unwrap();
            let mut inside = open_socket_in(pod.as_fd(), &Netns::current().unwrap()).unwrap();
            let mut batch = Batch::new();
            batch.change_link("up", LinkId::Index(2), &LinkChange { up: Some(true), ..LinkChange::default() });
            inside.run(batch).unwrap();
            // Looking makes the kernel notice the carrier, and with it comes the address.
            socket.link(LinkId::Index(100)).unwrap();
            let addresses = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap().lines().count();
            let mut batch = Batch::new();
            batch.delete_link("delete", LinkId::Index(100));
            socket.run(batch).unwrap();
            addresses
        })
        .unwrap()
    };
    assert_eq!((addresses(Some(false)), addresses(Some(true)), addresses(None)), (0, 1, 1));
}

#[test]
fn a_route_is_deleted_only_by_its_owner() {
    let (node, pod) = (netns(), netns());
    node.run(|| {
        let mut socket = Socket::open().unwrap();
        let mut batch = Batch::new();
        batch.create_veth("create", &pair(&pod, 5));
        let route = |protocol| Route {
            destination: "10.240.0.5/32".parse().unwrap(),
            gateway: None,
            link: 5,
            preferred_source: None,
            protocol,
        };
        batch.add_route("add", &route(44), IfPresent::Refuse);
        socket.run(batch).unwrap();
        for (protocol, errno) in [(4, Some(Errno::SRCH)), (44, None), (44, Some(Errno::SRCH))] {
            let mut batch = Batch::new();
            batch.delete_route("delete", &route(protocol));
            assert_eq!(socket.run(batch).err().and_then(|e| e.errno()), errno);
        }
    })
    .unwrap();
}

#[test]
fn what_is_no_network_namespace_is_not_entered() {
    let file = std::fs::File::open("/proc/self/ns/mnt").unwrap();
    let home = Netns::current().unwrap();
    let e = open_socket_in(file.as_fd(), &home).unwrap_err();
    assert_eq!(e.raw_os_error(), Some(Errno::INVAL.raw_os_error()));
    let e = open_socket_in(std::fs::File::open("/dev/null").unwrap().as_fd(), &home).unwrap_err();
    assert_eq!(e.raw_os_error(), Some(Errno::INVAL.raw_os_error()));
}
