//! The wireserver answers as Azure's does, and misbehaves as told.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use dotfour_datapath::Netns;
use dotfour_rig::azure::Fault;
use dotfour_rig::{Node, NodeConfig, Place, Vnet, VnetConfig};

tests![
    each_node_gets_the_document_of_its_own_nic,
    addresses_attached_later_appear_and_detached_ones_vanish,
    only_the_primary_address_is_answered,
    other_paths_are_not_found,
    an_error_status_comes_without_a_document,
    nothing_is_a_closed_connection,
    half_a_document_is_announced_as_a_whole_one,
    a_document_that_is_cut_off_is_shorter_than_announced,
    a_hanging_answer_comes_late_and_whole,
    a_lagging_document_is_an_old_one,
    a_fault_for_one_node_leaves_the_other_alone,
    a_dual_stack_nic_is_listed_with_both_subnets_and_no_primary_ipv6,
];

const DOCUMENT: &str = "/machine/plugins?comp=nmagent&type=getinterfaceinfov1";

fn two_nodes(place: Place) -> (Vnet, Node, Node) {
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse().unwrap(), place }).unwrap();
    let first = vnet.add_node(&NodeConfig::new("node-1", 2)).unwrap();
    let second = vnet.add_node(&NodeConfig::new("node-2", 1)).unwrap();
    (vnet, first, second)
}

/// An answer's head and body, as far as they came.
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn announced(&self) -> usize {
        let head = self.head.to_lowercase();
        let line = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        line.parse().unwrap()
    }
}

/// Asks from inside a namespace and reads until the server closes the connection. `None`: not a byte came.
fn get(netns: &Netns, path: &str) -> Option<Answer> {
    let connect = || TcpStream::connect_timeout(&SocketAddr::from(([168, 63, 129, 16], 80)), Duration::from_secs(2));
    let mut stream = netns.run(connect).unwrap().unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 168.63.129.16\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some(Answer { head: head.to_owned(), body: body.to_owned() })
}

fn document(node: &Node) -> String {
    let answer = get(node.netns(), DOCUMENT).unwrap();
    assert_eq!((answer.status(), answer.announced()), (200, answer.body.len()));
    answer.body
}

fn addresses(document: &str) -> Vec<Ipv4Addr> {
    document.split("Address=\"").filter_map(|part| part.split('"').next()?.parse().ok()).collect()
}

fn each_node_gets_the_document_of_its_own_nic(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    for (node, mac) in [(&first, "000D3AF00004"), (&second, "000D3AF00007")] {
        let text = document(node);
        assert!(text.contains(&format!("<Interface MacAddress=\"{mac}\" IsPrimary=\"true\">")), "{text}");
        assert!(text.contains("<IPSubnet Prefix=\"10.240.0.0/16\">"), "{text}");
        assert!(text.contains(&format!("Address=\"{}\" IsPrimary=\"true\"", node.address())), "{text}");
        assert_eq!(addresses(&text), vnet.addresses(node).unwrap());
        assert_eq!(text.matches("IsPrimary=\"true\"").count(), 2);
    }
    assert_eq!(vnet.wireserver().requests(), 2);
}

fn addresses_attached_later_appear_and_detached_ones_vanish(place: Place) {
    let (vnet, first, _second) = two_nodes(place);
    let added = vnet.attach_lowest_free(&first, 2).unwrap();
    assert_eq!(added, ["10.240.0.9", "10.240.0.10"].map(|text| text.parse::<Ipv4Addr>().unwrap()));
    assert_eq!(addresses(&document(&first)).len(), 5);
    vnet.detach(&first, &added[..1]).unwrap();
    assert_eq!(addresses(&document(&first)), vnet.addresses(&first).unwrap());
}

fn only_the_primary_address_is_answered(place: Place) {
    let (vnet, first, _second) = two_nodes(place);
    let secondary = vnet.addresses(&first).unwrap()[1];
    let shell =
        format!("ip address add {secondary}/32 dev eth0 && ip route add 168.63.129.16 via 10.240.0.1 src {secondary}");
    let run = || std::process::Command::new("/bin/sh").args(["-c", &shell]).env("PATH", "/usr/sbin:/sbin").status();
    assert!(first.netns().run(run).unwrap().unwrap().success());
    let connect =
        || TcpStream::connect_timeout(&SocketAddr::from(([168, 63, 129, 16], 80)), Duration::from_millis(300));
    let refused = first.netns().run(connect).unwrap().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(vnet.drops().unwrap().of(first.nic()).not_primary, 1);
    assert_eq!(vnet.wireserver().requests(), 0);
}

fn other_paths_are_not_found(place: Place) {
    let (vnet, first, _second) = two_nodes(place);
    for path in ["/", "/machine/plugins", "/machine/plugins?comp=nmagent&type=GetSupportedApis", "/machine"] {
        assert_eq!(get(first.netns(), path).unwrap().status(), 404, "{path}");
    }
    assert_eq!(vnet.wireserver().requests(), 0);
}

fn an_error_status_comes_without_a_document(place: Place) {
    let (vnet, first, _second) = two_nodes(place);
    vnet.wireserver().set_fault(Fault::Status(500));
    let answer = get(first.netns(), DOCUMENT).unwrap();
    assert_eq!((answer.status(), answer.announced(), answer.body.as_str()), (500, 0, ""));
    vnet.wireserver().set_fault(Fault::None);
    assert_eq!(addresses(&document(&first)).len(), 3);
}

fn nothing_is_a_closed_connection(place: Place) {
    let (vnet, first, _second) = two_nodes(place);
    vnet.wireserver().set_fault(Fault::Nothing);
    assert!(get(first.netns(), DOCUMENT).is_none());
}

fn half_a_document_is_announced_as_a_whole_one(place: Place) {
    let (vnet, first, _second) = two_nodes(place);
    let whole = document(&first);
    vnet.wireserver().set_fault(Fault::Half);
    let half = document(&first);
    assert_eq!(half, whole[..whole.len() / 2]);
}

fn a_document_that_is_cut_off_is_shorter_than_announced(place: Place) {
    let (vnet, first, _second) = two_nodes(place);
    let whole = document(&first);
    vnet.wireserver().set_fault(Fault::CutOff);
    let answer = get(first.netns(), DOCUMENT).unwrap();
    assert_eq!((answer.status(), answer.announced()), (200, whole.len()));
    assert_eq!(answer.body, whole[..whole.len() / 2]);
}

fn a_hanging_answer_comes_late_and_whole(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    let hang = Duration::from_secs(2);
    vnet.wireserver().set_fault_for(first.address(), Fault::Hang(hang));
    let asked = Instant::now();
    std::thread::scope(|scope| {
        let late = scope.spawn(|| document(&first));
        while vnet.wireserver().requests() == 0 && !late.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Nobody else waits meanwhile.
        document(&second);
        assert!(!late.is_finished());
        assert_eq!(addresses(&late.join().unwrap()).len(), 3);
    });
    assert!(asked.elapsed() >= hang);
}

fn a_lagging_document_is_an_old_one(place: Place) {
    let (vnet, first, _second) = two_nodes(place);
    vnet.attach_lowest_free(&first, 1).unwrap();
    let attached = Instant::now();
    let lag = Duration::from_secs(3);
    vnet.wireserver().set_fault(Fault::Lag(lag));
    assert_eq!(addresses(&document(&first)).len(), 3);
    std::thread::sleep(lag.saturating_sub(attached.elapsed()));
    assert_eq!(addresses(&document(&first)).len(), 4);
}

fn a_fault_for_one_node_leaves_the_other_alone(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    vnet.wireserver().set_fault_for(first.address(), Fault::Status(503));
    assert_eq!(get(first.netns(), DOCUMENT).unwrap().status(), 503);
    assert_eq!(addresses(&document(&second)).len(), 2);
    vnet.wireserver().set_fault(Fault::None);
    assert_eq!(addresses(&document(&first)).len(), 3);
}

fn a_dual_stack_nic_is_listed_with_both_subnets_and_no_primary_ipv6(place: Place) {
    let subnet = "10.240.0.0/16,fd00:10:240::/64".parse().unwrap();
    let vnet = Vnet::build(VnetConfig { subnet, place }).unwrap();
    let both = vnet.add_node(&NodeConfig::dual_stack("node-1", 1)).unwrap();
    let plain = vnet.add_node(&NodeConfig::new("node-2", 0)).unwrap();
    let text = document(&both);
    let v6 = "<IPSubnet Prefix=\"fd00:10:240::/64\"><IPAddress Address=\"fd00:10:240::4\" IsPrimary=\"false\"/>\
              <IPAddress Address=\"fd00:10:240::5\" IsPrimary=\"false\"/></IPSubnet>";
    assert!(text.contains(v6), "{text}");
    assert_eq!(text.matches("IsPrimary=\"true\"").count(), 2);
    assert!(!document(&plain).contains("fd00"));
    vnet.detach(&both, &vnet.ipv6_addresses(&both).unwrap()[1..]).unwrap();
    assert!(!document(&both).contains("fd00:10:240::5"));
}
