//! The fabric obeys Azure's rules, on a real kernel.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use dotfour_datapath::Netns;
use dotfour_rig::error::AddressError;
use dotfour_rig::fabric::FABRIC_MAC;
use dotfour_rig::probe::{Mirror, Pinger, seen_as, spoof_echo};
use dotfour_rig::{Node, NodeConfig, Place, RigError, Vnet, VnetConfig};

tests![
    nodes_reach_each_other_by_their_primary_addresses,
    the_first_packet_to_a_new_node_arrives,
    an_address_leads_to_a_node_only_while_it_is_on_its_nic,
    a_foreign_source_is_dropped_and_counted_for_its_nic,
    ip_forwarding_lifts_the_source_check_and_nothing_else,
    every_arp_request_is_answered_with_the_one_mac,
    the_gateway_and_the_platform_do_not_answer_ping,
    an_address_that_nobody_has_is_dropped_and_counted,
    broadcast_and_multicast_go_nowhere,
    an_address_is_on_one_nic_at_a_time,
    a_removed_node_leaves_nothing_behind_and_its_addresses_are_free_again,
    a_twin_has_the_mac_of_the_nic_and_a_master,
    a_node_has_the_nic_azure_would_give_it,
];

/// Long enough for any answer that comes at all.
const SOON: Duration = Duration::from_secs(5);
/// How long to wait for what must not come.
const A_WHILE: Duration = Duration::from_millis(300);

fn vnet(place: Place) -> Vnet {
    Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse().unwrap(), place }).unwrap()
}

fn two_nodes(place: Place) -> (Vnet, Node, Node) {
    let vnet = vnet(place);
    let first = vnet.add_node(&NodeConfig::new("node-1", 2)).unwrap();
    let second = vnet.add_node(&NodeConfig::new("node-2", 0)).unwrap();
    (vnet, first, second)
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn ip(netns: &Netns, arguments: &str) -> String {
    let run = || Command::new("/usr/sbin/ip").args(arguments.split(' ')).stderr(Stdio::inherit()).output().unwrap();
    let output = netns.run(run).unwrap();
    assert!(output.status.success(), "ip {arguments}");
    String::from_utf8(output.stdout).unwrap()
}

fn answers(from: &Node, to: Ipv4Addr, within: Duration) -> bool {
    Pinger::open(from.netns()).unwrap().ping(to, within).unwrap().is_some()
}

fn nodes_reach_each_other_by_their_primary_addresses(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    assert!(answers(&first, second.address(), SOON));
    let mirror = Mirror::start(second.netns()).unwrap();
    let responder = SocketAddr::from((second.address(), mirror.port()));
    assert_eq!(seen_as(first.netns(), responder, SOON).unwrap(), Some(first.address().into()));
    assert_eq!(vnet.drops().unwrap().no_such_address, 0);
}

fn the_first_packet_to_a_new_node_arrives(place: Place) {
    let vnet = vnet(place);
    let first = vnet.add_node(&NodeConfig::new("node-0", 0)).unwrap();
    for number in 1..=40 {
        let node = vnet.add_node(&NodeConfig::new(format!("node-{number}"), 0)).unwrap();
        assert!(answers(&first, node.address(), SOON), "{} does not answer", node.name());
    }
}

fn an_address_leads_to_a_node_only_while_it_is_on_its_nic(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    let extra = address("10.240.7.7");
    // The node would answer at once; what counts is whether the fabric brings the question.
    ip(second.netns(), "address add 10.240.7.7/32 dev lo");
    assert!(!answers(&first, extra, A_WHILE));
    vnet.attach(&second, &[extra]).unwrap();
    assert!(answers(&first, extra, SOON));
    vnet.detach(&second, &[extra]).unwrap();
    assert!(!answers(&first, extra, A_WHILE));
    // The other way round, the source is what is no longer on the NIC.
    assert_eq!(vnet.drops().unwrap().of(second.nic()).foreign_source, 0);
    spoof_echo(second.netns(), extra, first.address()).unwrap();
    assert_eq!(vnet.drops().unwrap().of(second.nic()).foreign_source, 1);
    // And on the other node it is welcome.
    ip(second.netns(), "address del 10.240.7.7/32 dev lo");
    ip(first.netns(), "address add 10.240.7.7/32 dev lo");
    vnet.attach(&first, &[extra]).unwrap();
    assert!(answers(&second, extra, SOON));
}

fn a_foreign_source_is_dropped_and_counted_for_its_nic(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    let before = icmp_received(&second);
    let own = vnet.addresses(&first).unwrap()[1];
    for foreign in [address("10.240.99.99"), address("192.0.2.1"), second.address()] {
        spoof_echo(first.netns(), foreign, second.address()).unwrap();
    }
    let drops = vnet.drops().unwrap();
    assert_eq!((drops.of(first.nic()).foreign_source, drops.of(second.nic()).foreign_source), (3, 0));
    assert_eq!(icmp_received(&second), before);
    // Without a taker the node would send the reply back to the fabric, which would be a foreign source again.
    ip(first.netns(), &format!("address add {own}/32 dev lo"));
    spoof_echo(first.netns(), own, second.address()).unwrap();
    assert_eq!(vnet.drops().unwrap().of(first.nic()).foreign_source, 3);
    assert_eq!(icmp_received(&second), before + 1);
}

/// How many ICMP messages a node's kernel has taken in.
fn icmp_received(node: &Node) -> u64 {
    let text = node.netns().run(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap()).unwrap();
    let line = text.lines().filter(|line| line.starts_with("Icmp: ")).nth(1).unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

fn ip_forwarding_lifts_the_source_check_and_nothing_else(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    let foreign = address("10.240.99.99");
    let before = icmp_received(&second);
    vnet.set_ip_forwarding(&first, true).unwrap();
    spoof_echo(first.netns(), foreign, second.address()).unwrap();
    assert_eq!(icmp_received(&second), before + 1);
    spoof_echo(first.netns(), foreign, address("168.63.129.16")).unwrap();
    let drops = vnet.drops().unwrap().of(first.nic());
    assert_eq!((drops.foreign_source, drops.not_primary), (0, 1));
    vnet.set_ip_forwarding(&first, false).unwrap();
    spoof_echo(first.netns(), foreign, second.address()).unwrap();
    assert_eq!(icmp_received(&second), before + 1);
    assert_eq!(vnet.drops().unwrap().of(first.nic()).foreign_source, 1);
}

fn every_arp_request_is_answered_with_the_one_mac(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    ip(first.netns(), "route add 192.0.2.0/24 dev eth0");
    let own_secondary = vnet.addresses(&first).unwrap()[1];
    let strangers = [vnet_gateway(), second.address(), address("10.240.250.250"), own_secondary, address("192.0.2.9")];
    for target in strangers {
        // Whether anybody answers is not the question; the kernel asks for the MAC first.
        answers(&first, target, Duration::from_millis(100));
        let entry = ip(first.netns(), &format!("neighbour show {target}"));
        assert!(entry.contains(&FABRIC_MAC.to_string()), "{target}: {entry:?}");
    }
}

fn vnet_gateway() -> Ipv4Addr {
    address("10.240.0.1")
}

fn the_gateway_and_the_platform_do_not_answer_ping(place: Place) {
    let (_vnet, first, _second) = two_nodes(place);
    for silent in [vnet_gateway(), address("168.63.129.16"), address("169.254.169.254")] {
        assert!(!answers(&first, silent, A_WHILE), "{silent} answered");
    }
    // Nor does the platform refuse a connection to a port it does not serve.
    let elsewhere = SocketAddr::from(([168, 63, 129, 16], 81));
    let refused = first.netns().run(|| TcpStream::connect_timeout(&elsewhere, A_WHILE)).unwrap().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::TimedOut);
}

fn an_address_that_nobody_has_is_dropped_and_counted(place: Place) {
    let (vnet, first, _second) = two_nodes(place);
    assert!(!answers(&first, address("10.240.250.250"), A_WHILE));
    assert!(!answers(&first, address("8.8.8.8"), A_WHILE));
    assert_eq!(vnet.drops().unwrap().no_such_address, 2);
}

fn broadcast_and_multicast_go_nowhere(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    let listener = second.netns().run(|| std::net::UdpSocket::bind("0.0.0.0:4000").unwrap()).unwrap();
    let group = address("224.1.2.3");
    listener.join_multicast_v4(&group, &second.address()).unwrap();
    listener.set_read_timeout(Some(A_WHILE)).unwrap();
    let sender = first.netns().run(|| std::net::UdpSocket::bind((first.address(), 0)).unwrap()).unwrap();
    sender.set_broadcast(true).unwrap();
    let send = |to: Ipv4Addr| sender.send_to(b"hello", SocketAddrV4::new(to, 4000)).unwrap();
    for everybody in [address("10.240.255.255"), address("255.255.255.255"), group] {
        send(everybody);
    }
    assert!(listener.recv(&mut [0; 16]).is_err());
    assert_eq!(vnet.drops().unwrap().of(first.nic()).broadcast, 3);
    // The listener does listen.
    send(second.address());
    assert_eq!(listener.recv(&mut [0; 16]).unwrap(), 5);
}

fn an_address_is_on_one_nic_at_a_time(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    let taken = vnet.addresses(&first).unwrap()[1];
    let free = address("10.240.3.3");
    let refused = vnet.attach(&second, &[free, taken]).unwrap_err();
    assert!(
        matches!(refused, RigError::Address(AddressError::Taken(address)) if address == IpAddr::V4(taken)),
        "{refused}"
    );
    assert_eq!(vnet.addresses(&second).unwrap(), [second.address()]);
    assert!(!answers(&first, free, A_WHILE));
    let refused = vnet.detach(&second, &[second.address()]).unwrap_err();
    assert!(matches!(refused, RigError::Address(AddressError::Primary(_))), "{refused}");
}

fn a_removed_node_leaves_nothing_behind_and_its_addresses_are_free_again(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    let (address, netns) = (first.address(), first.netns_path().to_owned());
    assert!(netns.exists());
    vnet.remove_node(&first).unwrap();
    assert!(!answers(&second, address, A_WHILE));
    drop(first);
    assert!(!netns.exists());
    let links = ip(vnet.fabric().netns().netns(), "-br link");
    assert!(!links.contains("nic0"), "{links}");
    let third = vnet.add_node(&NodeConfig::new("node-1", 0)).unwrap();
    assert_eq!(third.address(), address);
    assert!(answers(&second, address, SOON));
    assert_eq!(vnet.drops().unwrap().nics.len(), 2);
}

fn a_twin_has_the_mac_of_the_nic_and_a_master(place: Place) {
    let vnet = vnet(place);
    let config = NodeConfig { accelerated_networking: true, ..NodeConfig::new("node-1", 0) };
    let node = vnet.add_node(&config).unwrap();
    let other = vnet.add_node(&NodeConfig::new("node-2", 0)).unwrap();
    let same_mac: Vec<_> = node.links().unwrap().into_iter().filter(|link| link.mac == Some(node.mac())).collect();
    let named = |name: &str| same_mac.iter().find(|link| link.name == name).unwrap();
    assert_eq!(same_mac.len(), 2);
    assert_eq!(named("eth0").master, None);
    assert!(named("enP1s1").master.is_some_and(|master| master != 0));
    assert!(answers(&other, node.address(), SOON));
}

fn a_node_has_the_nic_azure_would_give_it(place: Place) {
    let (vnet, first, _second) = two_nodes(place);
    let links = first.links().unwrap();
    let nic = links.iter().find(|link| link.name == "eth0").unwrap();
    assert_eq!((nic.mtu, nic.up, nic.master), (1500, true, None));
    assert_eq!(nic.mac.unwrap().0[..3], [0x00, 0x0d, 0x3a]);
    assert_eq!(links.len(), 2);
    assert_eq!(first.address(), address("10.240.0.4"));
    assert_eq!(vnet.addresses(&first).unwrap(), ["10.240.0.4", "10.240.0.5", "10.240.0.6"].map(address));
    assert!(ip(first.netns(), "-br address show eth0").contains("10.240.0.4/16"));
    assert!(ip(first.netns(), "route show default").contains("via 10.240.0.1 dev eth0"));
}
