//! The rules, in a real kernel: who sees which source address, what pods do not reach, and that it stays so.

mod coexistence;
mod files;
mod firewalld;
mod guard;
mod kept;
mod sources;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dotfour_datapath::Netns;

use crate::support::{Node, address, eventually, key, quickest, receiver, source_seen};

const GATEWAY: &str = "10.240.0.1";
const ELSEWHERE: &str = "10.240.9.9";
const PEER: &str = "10.9.0.5";
const ON_PREM: &str = "192.168.7.7";
const INTERNET: &str = "203.0.113.9";
const LINK_LOCAL: &str = "169.254.7.7";
const IMDS: &str = "169.254.169.254";
const WIRESERVER: &str = "168.63.129.16";

/// A node in a world that has one host for every kind of destination.
fn node_in_a_world() -> Node {
    let node = Node::new();
    run(&node.wire, &format!("ip address add {GATEWAY}/16 dev nic0"));
    // The fabric brings what is for a pod to its node.
    run(&node.wire, "ip route add 10.240.0.5 via 10.240.0.4");
    for host in [ELSEWHERE, PEER, ON_PREM, INTERNET, LINK_LOCAL, IMDS, WIRESERVER] {
        run(&node.wire, &format!("ip address add {host}/32 dev nic0"));
    }
    node
}

/// Runs a command in a namespace; returns what it printed.
pub(crate) fn run(netns: &Netns, command: &str) -> String {
    let output = netns.run(|| Command::new("sh").args(["-c", command]).output().unwrap()).unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn config(node: &Node, more: &str) -> PathBuf {
    let directory = node.directory.path().join("config");
    let _ = fs::create_dir(&directory);
    let more = more.replace("CONFIG", &directory.display().to_string());
    node.config(&format!(
        "cooldown: 200ms\n{more}\n\
         source: {{kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5-10.240.0.12]}}\n"
    ))
}

fn write(node: &Node, name: &str, text: &str) {
    fs::write(node.directory.path().join("config").join(name), text).unwrap();
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn add(node: &Node, name: &str) -> (Netns, IpAddr) {
    let pod = Netns::create().unwrap();
    let attachment = node.add(&key(name), name, pod.as_fd()).unwrap();
    (pod, address(&attachment))
}

fn metric(node: &Node, series: &str) -> f64 {
    let mut stream = UnixStream::connect(node.socket().with_file_name("metrics.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().unwrap()
}

fn applies(node: &Node, reason: &str, result: &str) -> f64 {
    metric(node, &format!("dotfour_rules_applies_total{{reason=\"{reason}\",result=\"{result}\"}}"))
}

/// The table with the numbers the kernel gave its objects: the same text means that nothing was written.
fn table(node: &Node) -> String {
    run(&node.netns, "nft -a -s list table inet dotfour")
}

/// Waits, and says how long it took.
fn time_until(what: &str, condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    eventually(what, condition);
    begun.elapsed()
}
