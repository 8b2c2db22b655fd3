//! The instance metadata service answers as Azure's does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use dotfour_rig::{Node, NodeConfig, Place, Vnet, VnetConfig};
use serde_json::Value;

tests![
    a_node_reads_the_addresses_of_its_own_nic_in_both_families,
    what_azure_refuses_is_refused,
    more_than_five_requests_a_second_are_too_many,
    only_the_primary_address_gets_an_answer,
];

const NETWORK: &str = "/metadata/instance/network?api-version=2021-02-01&format=json";
const TRUE: &str = "Metadata: true\r\n";

fn two_nodes(place: Place) -> (Vnet, Node, Node) {
    let subnet = "10.240.0.0/16,fd00:10:240::/64".parse().unwrap();
    let vnet = Vnet::build(VnetConfig { subnet, place }).unwrap();
    let first = vnet.add_node(&NodeConfig::dual_stack("node-1", 1)).unwrap();
    let second = vnet.add_node(&NodeConfig::new("node-2", 0)).unwrap();
    (vnet, first, second)
}

fn get(node: &Node, path: &str, headers: &str) -> (u16, String) {
    let service = SocketAddr::from(([169, 254, 169, 254], 80));
    let connect = || TcpStream::connect_timeout(&service, Duration::from_secs(2));
    let mut stream = node.netns().run(connect).unwrap().unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n{headers}Connection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    assert_eq!(length, Some(body.len()));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn a_node_reads_the_addresses_of_its_own_nic_in_both_families(place: Place) {
    let (vnet, first, second) = two_nodes(place);
    let (status, body) = get(&first, NETWORK, TRUE);
    let expected: Value = serde_json::from_str(
        r#"{"interface":[{
            "ipv4":{"ipAddress":[{"privateIpAddress":"10.240.0.4","publicIpAddress":""},
                                 {"privateIpAddress":"10.240.0.5","publicIpAddress":""}],
                    "subnet":[{"address":"10.240.0.0","prefix":"16"}]},
            "ipv6":{"ipAddress":[{"privateIpAddress":"fd00:10:240::4"},{"privateIpAddress":"fd00:10:240::5"}]},
            "macAddress":"000D3AF00004"}]}"#,
    )
    .unwrap();
    assert_eq!((status, serde_json::from_str(&body).unwrap()), (200, expected));
    let (_, whole) = get(&second, "/metadata/instance?api-version=2021-02-01", TRUE);
    let whole: Value = serde_json::from_str(&whole).unwrap();
    let nic = &whole["network"]["interface"][0];
    assert_eq!(nic["ipv4"]["ipAddress"][0]["privateIpAddress"], second.address().to_string());
    assert_eq!(nic["ipv6"]["ipAddress"], Value::Array(Vec::new()));
    assert_eq!(vnet.metadata().asked(), [first.address(), second.address()].map(IpAddr::from));
}

fn what_azure_refuses_is_refused(place: Place) {
    let (_vnet, first, _second) = two_nodes(place);
    assert_eq!(get(&first, NETWORK, "").0, 400);
    assert_eq!(get(&first, NETWORK, "Metadata: true\r\nX-Forwarded-For: 10.0.0.1\r\n").0, 400);
    let (status, body) = get(&first, "/metadata/instance/network", TRUE);
    assert!(status == 400 && body.contains("api-version was not specified") && body.contains("newest-versions"));
    assert_eq!(get(&first, "/metadata/instance/nothing?api-version=2021-02-01", TRUE).0, 404);
    assert_eq!(get(&first, "/metadata/versions", TRUE).0, 200);
}

fn more_than_five_requests_a_second_are_too_many(place: Place) {
    let (_vnet, first, second) = two_nodes(place);
    // A busy machine may take more than a second for all of them.
    for tries in (0..10).rev() {
        let statuses: Vec<u16> = (0..7).map(|_| get(&first, NETWORK, TRUE).0).collect();
        assert!(statuses[..5].iter().all(|status| *status == 200), "{statuses:?}");
        if statuses.contains(&429) {
            break;
        }
        assert!(tries > 0, "{statuses:?}");
        std::thread::sleep(Duration::from_millis(1100));
    }
    assert_eq!(get(&second, NETWORK, TRUE).0, 200);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(get(&first, NETWORK, TRUE).0, 200);
}

fn only_the_primary_address_gets_an_answer(place: Place) {
    let (vnet, first, _second) = two_nodes(place);
    let secondary = vnet.addresses(&first).unwrap()[1];
    let shell = format!(
        "ip address add {secondary}/32 dev eth0 && ip route add 169.254.169.254 via 10.240.0.1 src {secondary}"
    );
    let run = || std::process::Command::new("/bin/sh").args(["-c", &shell]).env("PATH", "/usr/sbin:/sbin").status();
    assert!(first.netns().run(run).unwrap().unwrap().success());
    let service = SocketAddr::from(([169, 254, 169, 254], 80));
    let connect = || TcpStream::connect_timeout(&service, Duration::from_millis(300));
    assert!(first.netns().run(connect).unwrap().is_err());
    assert_eq!(vnet.drops().unwrap().of(first.nic()).not_primary, 1);
    assert!(vnet.metadata().asked().is_empty());
}
