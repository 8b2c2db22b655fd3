//! How the daemon starts, and how it does not.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Node, address, eventually, key};
use dotfour_datapath::Netns;
use dotfour_datapath::link::{VethEnd, VethPair};
use dotfour_datapath::{Batch, Socket};

const DOCUMENT: &str = r#"<Interfaces><Interface MacAddress="000D3A1BC721" IsPrimary="true"><IPSubnet
    Prefix="10.240.0.0/16"><IPAddress Address="10.240.0.4" IsPrimary="true"/><IPAddress Address="10.240.0.2"
    IsPrimary="false"/><IPAddress Address="10.240.0.7" IsPrimary="false"/><IPAddress Address="10.240.0.6"
    IsPrimary="false"/></IPSubnet></Interface></Interfaces>"#;

/// Answers every request on the node's loopback with these bytes.
fn serve(node: &Node, answer: impl Into<Vec<u8>>) -> String {
    let answer = answer.into();
    let listener = node.netns.run(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap_or(0);
            let expected = b"GET /machine/plugins?comp=nmagent&type=getinterfaceinfov1 HTTP/1.1\r\n";
            assert!(request[..length].starts_with(expected), "{:?}", String::from_utf8_lossy(&request[..length]));
            let _ = stream.write_all(&answer);
        }
    });
    url
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn config(node: &Node, url: &str) -> std::path::PathBuf {
    node.config(&format!("source: {{kind: wireserver, url: {url}, timeout: 2s, refresh: 100ms}}\n"))
}

#[test]
fn the_pool_comes_from_the_wireserver_s_document() {
    let node = Node::new();
    let url = serve(&node, http("200 OK", DOCUMENT));
    let _daemon = node.start(&config(&node, &url));
    let pod = Netns::create().unwrap();
    let attachment = node.add(&key("c1"), "web-1", pod.as_fd()).unwrap();
    assert_eq!(address(&attachment).to_string(), "10.240.0.6", "the first secondary at or after base + 4");
    assert_eq!(node.status().pool.total, 2);
}

#[test]
fn an_accelerated_networking_twin_changes_nothing() {
    let node = Node::new();
    node.netns
        .run(|| {
            // A second link with the NIC's MAC and with a master, as the VF has it.
            let end = |name, mac| VethEnd { name, mac, index: None };
            let mut batch = Batch::new();
            let pair = VethPair {
                near: end("enP1s1", Some(crate::support::NIC_MAC.parse().unwrap())),
                far: end("vf", None),
                far_netns: None,
                mtu: 1500,
            };
            batch.create_veth("create the VF", &pair);
            Socket::open().unwrap().run(batch).unwrap();
            let ip = |arguments: &[&str]| {
                assert!(std::process::Command::new("ip").args(arguments).status().unwrap().success());
            };
            ip(&["link", "add", "master0", "type", "bridge"]);
            ip(&["link", "set", "enP1s1", "master", "master0"]);
            ip(&["link", "set", "master0", "address", "02:00:00:00:00:01"]);
        })
        .unwrap();
    let url = serve(&node, http("200 OK", DOCUMENT));
    let _daemon = node.start(&config(&node, &url));
    assert_eq!(node.status().nic, "eth0");
}

#[test]
fn each_failing_wireserver_is_a_clear_start_up_error() {
    let half = &DOCUMENT[..DOCUMENT.len() / 2];
    let promised_more = http("200 OK", DOCUMENT).replace(half, "");
    let other_mac = DOCUMENT.replace("000D3A1BC721", "000D3A000000");
    for (answer, named) in [
        (http("500 Internal Server Error", "sorry"), "HTTP 500"),
        (String::new(), "cannot be read"),
        (http("200 OK", ""), "not usable"),
        (http("200 OK", half), "not usable"),
        (promised_more, "broke off"),
        (http("200 OK", &other_mac), "00:0d:3a:00:00:00"),
        ("SSH-2.0-OpenSSH_9.2\r\n".into(), "cannot be read"),
    ] {
        let node = Node::new();
        let url = serve(&node, answer.clone());
        let (status, log) = node.fail(&config(&node, &url));
        assert_eq!(status.code(), Some(1), "{answer:?}: {log}");
        let last = log.lines().last().unwrap();
        assert!(last.starts_with("dotfour-ipamd: ") && last.contains(named), "{answer:?} ended with {last:?}");
        assert!(node.pod_links().is_empty());
    }
}

#[test]
fn a_wireserver_that_is_not_there_or_never_answers_is_a_clear_start_up_error() {
    let node = Node::new();
    let (status, log) = node.fail(&config(&node, "http://127.0.0.1:9"));
    assert_eq!(status.code(), Some(1));
    assert!(log.lines().last().unwrap().contains("http://127.0.0.1:9"), "{log}");

    let node = Node::new();
    let silent = node.netns.run(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let (status, log) = node.fail(&config(&node, &format!("http://{}", silent.local_addr().unwrap())));
    assert_eq!(status.code(), Some(1));
    assert!(log.lines().last().unwrap().contains("no complete answer within 2s"), "{log}");
}

#[test]
fn a_daemon_that_waits_for_its_source_ends_when_it_is_told_to() {
    let node = Node::new();
    let silent = node.netns.run(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let daemon = node.spawn(&node.config(&format!("source: {{kind: wireserver, url: {url}, timeout: 60s}}\n")));
    // It asks, and is not answered.
    silent.set_nonblocking(true).unwrap();
    let mut asked = None;
    eventually("the source is asked", || {
        asked = silent.accept().ok();
        asked.is_some()
    });
    assert!(daemon.stop().success());
    drop(asked);
}

#[test]
fn a_daemon_that_serves_ends_when_it_is_told_to_while_its_source_is_silent() {
    let node = Node::new();
    let listener = node.netns.run(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        let _ = first.read(&mut [0; 1024]);
        let _ = first.write_all(http("200 OK", DOCUMENT).as_bytes());
        drop(first);
        // The second is held, and not answered.
        let second = listener.accept();
        let _ = tell.send(second);
    });
    let source = format!("source: {{kind: wireserver, url: {url}, timeout: 60s, refresh: 50ms}}\n");
    let daemon = node.start(&node.config(&source));
    let asked = told.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(daemon.stop().success());
    drop(asked);
}

#[test]
fn an_address_that_azure_stack_s_file_gains_later_enters_the_pool() {
    let node = Node::new();
    let file = node.directory.path().join("interfaces.json");
    let document = |addresses: &[&str]| {
        let listed: Vec<String> =
            addresses.iter().map(|a| format!(r#"{{"Address":"{a}","IsPrimary":{}}}"#, *a == "10.240.0.4")).collect();
        let subnet = format!(r#"{{"Prefix":"10.240.0.0/16","IPAddresses":[{}]}}"#, listed.join(","));
        format!(r#"{{"Interfaces":[{{"MacAddress":"000D3A1BC721","IsPrimary":true,"IPSubnets":[{subnet}]}}]}}"#)
    };
    std::fs::write(&file, document(&["10.240.0.4", "10.240.0.8"])).unwrap();
    let config = node.config(&format!("source: {{kind: static, file: {}, refresh: 50ms}}\n", file.display()));
    let _daemon = node.start(&config);
    let pods = [Netns::create().unwrap(), Netns::create().unwrap()];
    assert_eq!(address(&node.add(&key("c1"), "web-1", pods[0].as_fd()).unwrap()).to_string(), "10.240.0.8");
    assert_eq!(node.add(&key("c2"), "web-2", pods[1].as_fd()).unwrap_err().cause, "pool-exhausted");
    // A file that is being written says nothing.
    std::fs::write(&file, "{\"Interfaces\":[").unwrap();
    eventually("the half file is reported", || node.log().contains("the pool stays as it is"));
    std::fs::write(&file, document(&["10.240.0.4", "10.240.0.8", "10.240.0.9"])).unwrap();
    eventually("the new address is lent", || node.add(&key("c2"), "web-2", pods[1].as_fd()).is_ok());
}

#[test]
fn a_source_that_loses_an_address_in_use_does_not_take_it_from_its_pod() {
    let node = Node::new();
    let listener = node.netns.run(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // What it says, which goes on when the test says so.
    let stage = Arc::new(AtomicUsize::new(0));
    let says = Arc::clone(&stage);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let shorter = DOCUMENT.replace(
                r#"<IPAddress Address="10.240.0.6"
    IsPrimary="false"/>"#,
                "",
            );
            let empty = r#"<Interfaces><Interface MacAddress="000D3A1BC721" IsPrimary="true"><IPSubnet
                Prefix="10.240.0.0/16"><IPAddress Address="10.240.0.4" IsPrimary="true"/></IPSubnet></Interface></Interfaces>"#;
            let longer = DOCUMENT.replace("10.240.0.2", "10.240.0.9");
            let body = [DOCUMENT, &shorter, empty, &longer][says.load(Ordering::Relaxed)];
            let _ = stream.write_all(http("200 OK", body).as_bytes());
        }
    });
    let _daemon = node.start(&config(&node, &url));
    let pod = Netns::create().unwrap();
    assert_eq!(address(&node.add(&key("c1"), "web-1", pod.as_fd()).unwrap()).to_string(), "10.240.0.6");
    stage.store(1, Ordering::Relaxed);
    eventually("the loss is reported", || node.log().contains("the source does not report it any more"));
    assert_eq!(node.status().pool.assigned, 1);
    stage.store(2, Ordering::Relaxed);
    eventually("an empty report is none", || node.log().contains("the source reports no pod address any more"));
    assert_eq!(node.status().pool.assigned, 1);
    stage.store(3, Ordering::Relaxed);
    eventually("a new address enters the pool", || node.status().pool.total == 3);
}

#[test]
fn bad_arguments_and_configurations_end_with_one_clear_error() {
    let node = Node::new();
    for (text, named) in [
        ("source: {kind: wireservr}\n", "did you mean `wireserver`?"),
        ("cooldwn: 1s\nsource: {kind: wireserver}\n", "did you mean `cooldown`?"),
        ("mtu: 9000\nsource: {kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5]}\n", "1500 bytes"),
        ("nic: eth7\nsource: {kind: static, subnet: 10.0.0.0/8, addresses: [10.0.0.4]}\n", "eth7"),
    ] {
        let (status, log) = node.fail(&node.config(text));
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.lines().last().unwrap().contains(named), "{text}: {log}");
    }
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_dotfour-ipamd")).arg("dance").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("dance"));
}
