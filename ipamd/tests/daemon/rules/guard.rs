//! What pods do not reach, and that they do not forge addresses.

use std::net::{SocketAddr, TcpListener, TcpStream};

use dotfour_ipamd::wiring::names::{EXEMPT_GROUP, POD_GROUP};

use super::*;
use crate::support::NODE_ADDRESS;

/// Whether a TCP connection comes about to a host that answers on this port.
fn connects(from: &Netns, to: &Netns, host: &str, port: u16) -> bool {
    let address = SocketAddr::new(ip(host), port);
    let mut listener = None;
    // Another test's child, between fork and exec, may still have the one before.
    eventually("the port is free", || {
        listener = to.run(|| TcpListener::bind(address).ok()).unwrap();
        listener.is_some()
    });
    from.run(|| TcpStream::connect_timeout(&address, Duration::from_millis(700)).is_ok()).unwrap()
}

#[test]
fn pods_reach_the_wireserver_s_dns_and_not_its_secrets_and_the_host_network_reaches_all() {
    for (line, metadata) in [("", true), ("metadata: allow", true), ("metadata: block", false)] {
        let node = node_in_a_world();
        // A file that exempts them changes nothing.
        write_later(&node, "nonMasqueradeCIDRs: [168.63.129.16/32, 10.0.0.0/8]");
        let _daemon = node.start(&config(&node, &format!("masquerade: {{configDir: CONFIG}}\n{line}")));
        let (pod, _) = add(&node, "one");
        for (host, port, reached) in
            [(WIRESERVER, 80, false), (WIRESERVER, 32526, false), (WIRESERVER, 53, true), (IMDS, 80, metadata)]
        {
            assert_eq!(connects(&pod, &node.wire, host, port), reached, "{line:?}: a pod to {host}:{port}");
            assert!(connects(&node.netns, &node.wire, host, port), "{line:?}: the host to {host}:{port}");
        }
        assert_eq!(source_seen(&pod, &node.wire, ip(WIRESERVER)), Some(NODE_ADDRESS.into()), "{line:?}: UDP, as DNS");
        let counted = |counter: &str| run(&node.netns, &format!("nft list counter inet dotfour {counter}"));
        assert!(!counted("wireserver_blocked").contains("packets 0"), "{line:?}: what is dropped is counted");
        assert_eq!(counted("metadata_blocked").contains("packets 0"), metadata, "{line:?}");
    }
}

fn write_later(node: &Node, text: &str) {
    fs::create_dir(node.directory.path().join("config")).unwrap();
    write(node, "ip-masq-agent", text);
}

#[test]
fn a_pod_cannot_speak_as_another_nor_as_a_stranger() {
    // In the group that ADD gives, in that of exempt pods, and in none, as older releases left them.
    for (rp_filter, group) in [(0, POD_GROUP), (1, POD_GROUP), (2, POD_GROUP), (0, EXEMPT_GROUP), (0, 0)] {
        let node = node_in_a_world();
        run(&node.netns, &format!("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo {rp_filter} >$f; done"));
        let _daemon = node.start(&config(&node, ""));
        let ((pod, own), (_other, other_address)) = (add(&node, "one"), add(&node, "two"));
        let links = node.pod_links();
        assert!(links.len() == 2 && links.iter().all(|link| link.group == POD_GROUP), "{links:?}");
        links.iter().for_each(|link| drop(run(&node.netns, &format!("ip link set {} group {group}", link.name))));
        for forged in [other_address.to_string(), INTERNET.to_owned(), "10.240.0.77".to_owned()] {
            run(&pod, &format!("ip address add {forged}/32 dev eth0"));
            let receiver = receiver(&node.wire, ip(ELSEWHERE), 7009);
            let say = |source: &str| {
                let sent = pod.run(|| UdpSocket::bind((source, 0)).unwrap().send_to(b"x", (ELSEWHERE, 7009)));
                sent.unwrap().unwrap();
                receiver.recv_from(&mut [0; 4]).ok().map(|(_, from)| from.ip())
            };
            assert_eq!(say(&forged), None, "rp_filter {rp_filter}, group {group}: {forged}");
            assert_eq!(say(&own.to_string()), Some(own), "rp_filter {rp_filter}, group {group}: its own");
        }
        if rp_filter == 0 {
            let counted = run(&node.netns, "nft list counter inet dotfour spoofed");
            assert!(counted.contains("packets 3"), "{counted}");
        }
    }
}

#[test]
fn the_links_of_an_older_release_are_put_into_their_group_at_the_start() {
    let node = node_in_a_world();
    let config = config(&node, "");
    let daemon = node.start(&config);
    let _pods = (add(&node, "one"), add(&node, "two"));
    daemon.stop();
    let links = node.pod_links();
    // The other one is a stranger's doing, and stays.
    for (link, group) in links.iter().zip([0, 7]) {
        run(&node.netns, &format!("ip link set {} group {group}", link.name));
    }
    let _daemon = node.start(&config);
    let groups: Vec<u32> = node.pod_links().iter().map(|link| link.group).collect();
    assert_eq!(groups, [POD_GROUP, 7]);
}
