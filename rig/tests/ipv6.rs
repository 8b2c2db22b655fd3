//! A dual-stack VNet obeys Azure's rules for IPv6, on a real kernel.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use dotfour_datapath::Netns;
use dotfour_rig::azure::GATEWAY_V6;
use dotfour_rig::fabric::FABRIC_MAC;
use dotfour_rig::probe::{Mirror, Pinger, seen_as, spoof_echo};
use dotfour_rig::{Node, NodeConfig, Place, Vnet, VnetConfig};

tests![
    nodes_reach_each_other_by_ipv6_with_their_own_addresses,
    a_node_has_its_ipv6_address_and_router_as_in_azure,
    an_ipv6_address_leads_to_a_node_only_while_it_is_on_its_nic,
    a_foreign_ipv6_source_is_dropped_and_counted_unless_forwarding_is_on,
    a_solicitation_for_any_address_is_answered_with_the_one_mac,
    ipv6_multicast_and_advertisements_of_a_node_go_nowhere,
    the_ipv6_gateway_does_not_answer_ping_and_nobodys_address_is_counted,
    forwarding_ends_the_learnt_route_and_accept_ra_brings_it_back,
    a_vnet_without_ipv6_has_none_anywhere,
];

/// Long enough for any answer that comes at all.
const SOON: Duration = Duration::from_secs(5);
/// How long duplicate detection may take on a busy machine, which is a second or two.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for what must not come.
const A_WHILE: Duration = Duration::from_millis(300);

fn two_nodes(place: Place) -> (Vnet, Node, Node) {
    let subnet = "10.240.0.0/16,fd00:10:240::/64".parse().unwrap();
    let vnet = Vnet::build(VnetConfig { subnet, place }).unwrap();
    let first = vnet.add_node(&NodeConfig::dual_stack("node-1", 2)).unwrap();
    let second = vnet.add_node(&NodeConfig::dual_stack("node-2", 0)).unwrap();
    (vnet, first, second)
}

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn shell(netns: &Netns, command: &str) -> String {
    let run = || Command::new("/bin/sh").args(["-ec", command]).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output();
    let output = netns.run(run).unwrap().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn answers(from: &Node, to: Ipv6Addr, within: Duration) -> bool {
    Pinger::open(from.netns()).unwrap().ping(to, within).unwrap().is_some()
}

/// How many echo requests a node's kernel has taken in.
fn echoes(node: &Node) -> u64 {
    let text = shell(node.netns(), "cat /proc/thread-self/net/snmp6");
    let line = text.lines().find(|line| line.starts_with("Icmp6InEchos ")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn nodes_reach_each_other_by_ipv6_with_their_own_addresses(place: Place) {
    // The very first packet arrives, and of some pair soon: nobody waits for duplicate detection.
    let mut times = Vec::new();
    let (vnet, first, second) = loop {
        let (vnet, first, second) = two_nodes(place.within(&times.len().to_string()).unwrap());
        let asked = Instant::now();
        assert!(answers(&first, second.ipv6().unwrap(), SOON));
        let took = asked.elapsed();
        times.push(took);
        if took < Duration::from_millis(500) {
            break (vnet, first, second);
        }
        assert!(times.len() < 3, "{times:?}");
    };
    let (from, to) = (first.ipv6().unwrap(), second.ipv6().unwrap());
    let mirror = Mirror::start(second.netns()).unwrap();
    assert_eq!(seen_as(first.netns(), (to, mirror.port()).into(), SOON).unwrap(), Some(from.into()));
    let v4 = SocketAddr::from((second.address(), mirror.port()));
    assert_eq!(seen_as(first.netns(), v4, SOON).unwrap(), Some(first.address().into()));
    assert_eq!(vnet.drops().unwrap().of(first.nic()), Default::default());
}

fn a_node_has_its_ipv6_address_and_router_as_in_azure(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    assert_eq!(first.ipv6(), Some(address("fd00:10:240::4")));
    let expected = ["fd00:10:240::4", "fd00:10:240::5", "fd00:10:240::6"].map(address);
    assert_eq!(vnet.ipv6_addresses(&first).unwrap(), expected);
    assert_eq!(vnet.ipv6_addresses(&second).unwrap(), [address("fd00:10:240::7")]);
    assert!(shell(first.netns(), "ip -6 -br address show eth0").contains("fd00:10:240::4/128"));
    let routes = shell(first.netns(), "ip -6 route");
    // Learnt, not configured, and no prefix is on the link.
    assert!(routes.contains(&format!("default via {GATEWAY_V6} dev eth0 proto ra")), "{routes}");
    assert!(!routes.contains("fd00:10:240::/64"), "{routes}");
    let plain = vnet.add_node(&NodeConfig::new("node-3", 0)).unwrap();
    assert_eq!(plain.ipv6(), None);
    assert!(!shell(plain.netns(), "ip -6 address").contains("fd00"));
}

fn an_ipv6_address_leads_to_a_node_only_while_it_is_on_its_nic(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    let extra = address("fd00:10:240::7:7");
    shell(second.netns(), "ip address add fd00:10:240::7:7/128 dev lo");
    assert!(!answers(&first, extra, A_WHILE));
    vnet.attach(&second, &[extra]).unwrap();
    assert!(answers(&first, extra, SOON));
    vnet.detach(&second, &[extra]).unwrap();
    assert!(!answers(&first, extra, A_WHILE));
    assert_eq!(vnet.drops().unwrap().of(second.nic()).foreign_source, 0);
    spoof_echo(second.netns(), extra, first.ipv6().unwrap()).unwrap();
    assert_eq!(vnet.drops().unwrap().of(second.nic()).foreign_source, 1);
    let added = vnet.attach_lowest_free_ipv6(&first, 2).unwrap();
    assert_eq!(added, ["fd00:10:240::8", "fd00:10:240::9"].map(address));
    assert_eq!(vnet.ipv6_addresses(&first).unwrap().len(), 5);
}

fn a_foreign_ipv6_source_is_dropped_and_counted_unless_forwarding_is_on(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    let (to, before) = (second.ipv6().unwrap(), echoes(&second));
    let foreign = [address("fd00:10:240::99"), address("2001:db8::1"), to];
    for source in foreign {
        spoof_echo(first.netns(), source, to).unwrap();
    }
    let drops = vnet.drops().unwrap();
    assert_eq!((drops.of(first.nic()).foreign_source, drops.of(second.nic()).foreign_source), (3, 0));
    assert_eq!(echoes(&second), before);
    vnet.set_ip_forwarding(&first, true).unwrap();
    spoof_echo(first.netns(), foreign[0], to).unwrap();
    assert_eq!(echoes(&second), before + 1);
    vnet.set_ip_forwarding(&first, false).unwrap();
    spoof_echo(first.netns(), foreign[0], to).unwrap();
    assert_eq!(vnet.drops().unwrap().of(first.nic()).foreign_source, 4);
}

fn a_solicitation_for_any_address_is_answered_with_the_one_mac(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    // As if the subnet were on the link, so that the node asks for each address.
    shell(first.netns(), "ip route add fd00:10:240::/64 dev eth0");
    let own_secondary = vnet.ipv6_addresses(&first).unwrap()[1];
    for target in [second.ipv6().unwrap(), address("fd00:10:240::dead"), own_secondary] {
        let asked = Instant::now();
        loop {
            answers(&first, target, Duration::from_millis(100));
            let entry = shell(first.netns(), &format!("ip neighbour show {target}"));
            if entry.contains(&FABRIC_MAC.to_string()) {
                break;
            }
            assert!(asked.elapsed() < SOON, "{target}: {entry:?}");
        }
    }
    assert!(answers(&first, second.ipv6().unwrap(), SOON));
    let entry = shell(second.netns(), &format!("ip neighbour show {GATEWAY_V6}"));
    assert!(entry.contains(&FABRIC_MAC.to_string()), "{entry:?}");
    // A node that tests whether an address is taken is told nothing, and may have it.
    shell(first.netns(), "ip address add fd00:10:240::5/128 dev eth0");
    let asked = Instant::now();
    let seen = loop {
        let seen = shell(first.netns(), "ip -6 address show eth0");
        if !seen.contains("tentative") || asked.elapsed() > PATIENCE {
            break seen;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(seen.contains("fd00:10:240::5/128"), "{seen}");
    assert!(!seen.contains("dadfailed") && !seen.contains("tentative"), "{seen}");
}

fn ipv6_multicast_and_advertisements_of_a_node_go_nowhere(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    let index = |node: &Node| node.links().unwrap().iter().find(|link| link.name == "eth0").unwrap().index;
    let listener = second.netns().run(|| UdpSocket::bind("[::]:4000").unwrap()).unwrap();
    listener.set_read_timeout(Some(A_WHILE)).unwrap();
    let sender = first.netns().run(|| UdpSocket::bind((first.ipv6().unwrap(), 0)).unwrap()).unwrap();
    let before = vnet.drops().unwrap().of(first.nic()).broadcast;
    for group in ["ff02::1", "ff05::1", "ff0e::1"] {
        sender.send_to(b"hello", SocketAddrV6::new(address(group), 4000, 0, index(&first))).unwrap();
    }
    assert!(listener.recv(&mut [0; 16]).is_err());
    assert_eq!(vnet.drops().unwrap().of(first.nic()).broadcast, before + 3);
    // The listener does listen.
    sender.send_to(b"hello", (second.ipv6().unwrap(), 4000)).unwrap();
    assert_eq!(listener.recv(&mut [0; 16]).unwrap(), 5);
}

fn the_ipv6_gateway_does_not_answer_ping_and_nobodys_address_is_counted(place: Place) {
    let (vnet, first, _second) = two_nodes(place);
    let ping = format!("ping -c 1 -W 1 {GATEWAY_V6}%eth0 >/dev/null && echo answered || echo silent");
    assert_eq!(shell(first.netns(), &ping).trim(), "silent");
    assert!(!answers(&first, address("fd00:10:240::dead"), A_WHILE));
    assert!(!answers(&first, address("2001:db8::1"), A_WHILE));
    assert_eq!(vnet.drops().unwrap().no_such_address, 2);
}

fn forwarding_ends_the_learnt_route_and_accept_ra_brings_it_back(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    let routed = || shell(first.netns(), "ip -6 route show default").contains("proto ra");
    assert!(routed());
    shell(first.netns(), "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    assert!(!routed());
    vnet.advertise_router(&first).unwrap();
    std::thread::sleep(A_WHILE);
    assert!(!routed());
    shell(first.netns(), "echo 2 > /proc/sys/net/ipv6/conf/eth0/accept_ra");
    vnet.advertise_router(&first).unwrap();
    let asked = Instant::now();
    while !routed() {
        assert!(asked.elapsed() < SOON, "no route from the advertisement");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(answers(&first, second.ipv6().unwrap(), SOON));
    // A node that comes up asks for itself, as after a reboot.
    shell(second.netns(), "ip link set eth0 down && ip link set eth0 up");
    let asked = Instant::now();
    while !shell(second.netns(), "ip -6 route show default").contains("proto ra") {
        assert!(asked.elapsed() < SOON, "no answer to the node's router solicitation");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn a_vnet_without_ipv6_has_none_anywhere(place: Place) {
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse().unwrap(), place }).unwrap();
    assert!(vnet.add_node(&NodeConfig::dual_stack("node-0", 0)).is_err());
    let node = vnet.add_node(&NodeConfig::new("node-1", 0)).unwrap();
    assert!(vnet.advertise_router(&node).is_err());
    assert_eq!(shell(vnet.fabric().netns().netns(), "ip -6 -o address show scope link"), "");
    assert!(!shell(vnet.fabric().netns().netns(), "nft list tables").contains("ip6"));
}
