//! Pods with IPv6 addresses, alone and beside IPv4 ones.

use std::net::IpAddr;
use std::os::fd::AsFd;

use dotfour_datapath::Netns;
use dotfour_protocol::{Add, Attachment, Call, Check, Reply};

use crate::support::{NODE_ADDRESS, NODE_ADDRESS_V6, Node, add_call, eventually, ip, key, source_seen};

const BOTH: &str = "cooldown: 200ms\nsource: {kind: static, subnet: [10.240.0.0/16, fd00::/64], \
                    addresses: [10.240.0.5-10.240.0.12, fd00::5-fd00::c]}\n";

fn addresses(attachment: &Attachment) -> Vec<String> {
    attachment.addresses.iter().map(|address| address.address.to_string()).collect()
}

fn v6_of(attachment: &Attachment) -> IpAddr {
    attachment.addresses.iter().map(|address| address.address.addr()).find(IpAddr::is_ipv6).unwrap()
}

fn setting(netns: &Netns, name: &str) -> String {
    let read = || std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap();
    netns.run(read).unwrap().trim().to_owned()
}

fn set(netns: &Netns, name: &str, value: &str) {
    netns.run(|| std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap()).unwrap();
}

#[test]
fn a_pod_gets_an_address_of_each_family_that_the_source_offers() {
    let node = Node::new().with_ipv6();
    let _daemon = node.start(&node.config(BOTH));
    let pod = Netns::create().unwrap();
    let attachment = node.add(&key("a"), "web-0", pod.as_fd()).unwrap();
    assert_eq!(addresses(&attachment), ["10.240.0.5/32", "fd00::5/128"]);
    let gateways: Vec<String> = attachment.addresses.iter().map(|address| address.gateway.to_string()).collect();
    assert_eq!(gateways, ["169.254.1.1", "fe80::1234:5678:9abc"]);
    let routes: Vec<String> = attachment
        .routes
        .iter()
        .map(|route| format!("{} {:?}", route.dst, route.gw.map(|gw| gw.to_string())))
        .collect();
    assert_eq!(
        routes,
        [
            "169.254.1.1/32 None",
            "0.0.0.0/0 Some(\"169.254.1.1\")",
            "fe80::1234:5678:9abc/128 None",
            "::/0 Some(\"fe80::1234:5678:9abc\")",
        ]
    );
    assert_eq!(source_seen(&node.netns, &pod, v6_of(&attachment)), Some(NODE_ADDRESS_V6.into()));
    assert_eq!(source_seen(&node.netns, &pod, attachment.addresses[0].address.addr()), Some(NODE_ADDRESS.into()));

    node.del(&key("a"));
    assert_eq!(ip(&node.netns, "-6 route show proto 44"), "");
    assert_eq!(node.status().pool.cooling, 2);
}

#[test]
fn the_first_ipv6_packet_after_the_answer_arrives_both_ways() {
    let node = Node::new().with_ipv6();
    let config = node.config(&BOTH.replace("10.240.0.12", "10.240.0.200").replace("fd00::c", "fd00::c8"));
    let _daemon = node.start(&config);
    for round in 0..60 {
        let (one, other) = (Netns::create().unwrap(), Netns::create().unwrap());
        let keys = [key(&format!("one-{round}")), key(&format!("other-{round}"))];
        let first = node.add(&keys[0], "one", one.as_fd()).unwrap();
        assert_eq!(source_seen(&node.netns, &one, v6_of(&first)), Some(NODE_ADDRESS_V6.into()), "round {round}");
        let second = node.add(&keys[1], "other", other.as_fd()).unwrap();
        assert_eq!(source_seen(&other, &one, v6_of(&first)), Some(v6_of(&second)), "round {round}");
        keys.iter().for_each(|key| node.del(key));
    }
}

#[test]
fn a_pod_may_have_ipv6_alone() {
    let node = Node::new().with_ipv6();
    let _daemon = node.start(&node.config(&format!("ipFamilies: [IPv6]\n{BOTH}")));
    let (one, other) = (Netns::create().unwrap(), Netns::create().unwrap());
    let first = node.add(&key("one"), "one", one.as_fd()).unwrap();
    let second = node.add(&key("other"), "other", other.as_fd()).unwrap();
    assert_eq!(addresses(&first), ["fd00::5/128"]);
    assert_eq!(source_seen(&other, &one, v6_of(&first)), Some(v6_of(&second)));
    assert_eq!(ip(&one, "-4 route"), "");
    assert_eq!(node.status().pool.assigned, 2);
}

#[test]
fn all_families_are_assigned_or_none() {
    let node = Node::new().with_ipv6();
    let source = "ipFamilies: [IPv4, IPv6]\nsource: {kind: static, subnet: [10.240.0.0/16, fd00::/64], \
                  addresses: [10.240.0.5-10.240.0.12, fd00::5]}\n";
    let _daemon = node.start(&node.config(source));
    let (one, other) = (Netns::create().unwrap(), Netns::create().unwrap());
    node.add(&key("one"), "one", one.as_fd()).unwrap();
    let failure = node.add(&key("other"), "other", other.as_fd()).unwrap_err();
    assert_eq!(failure.code, 11, "{failure}");
    let pool = node.status().pool;
    assert_eq!((pool.assigned, pool.free), (2, 7));
    assert!(node.log().contains("1 IPv6 pod addresses on eth0, fewer than maxPods (30)"), "{}", node.log());
}

#[test]
fn an_address_asked_for_in_one_family_comes_with_any_of_the_other() {
    let node = Node::new().with_ipv6();
    let _daemon = node.start(&node.config(BOTH));
    let pod = Netns::create().unwrap();
    let Call::Add(call) = add_call(&key("a"), "web-0") else { panic!() };
    let call = Call::Add(Add { asked: vec!["fd00::9".parse().unwrap()], ..call });
    let Reply::Attached(attachment) = node.call(call, Some(pod.as_fd())) else { panic!() };
    assert_eq!(addresses(&attachment), ["10.240.0.5/32", "fd00::9/128"]);
}

#[test]
fn both_addresses_outlive_the_daemon() {
    let node = Node::new().with_ipv6();
    let config = node.config(BOTH);
    let daemon = node.start(&config);
    let pod = Netns::create().unwrap();
    let before = node.add(&key("a"), "web-0", pod.as_fd()).unwrap();
    drop(daemon);
    let _daemon = node.start(&config);
    assert_eq!(node.add(&key("a"), "web-0", pod.as_fd()).unwrap(), before);
    assert_eq!(source_seen(&node.netns, &pod, v6_of(&before)), Some(NODE_ADDRESS_V6.into()));
    let pool = node.status().pool;
    assert_eq!((pool.assigned, pool.total), (2, 16));
}

#[test]
fn a_pod_whose_runtime_turned_ipv6_off_gets_it_all_the_same() {
    let node = Node::new().with_ipv6();
    let _daemon = node.start(&node.config(BOTH));
    let pod = Netns::create().unwrap();
    set(&pod, "ipv6/conf/all/disable_ipv6", "1");
    set(&pod, "ipv6/conf/default/disable_ipv6", "1");
    let attachment = node.add(&key("a"), "web-0", pod.as_fd()).unwrap();
    assert_eq!(source_seen(&node.netns, &pod, v6_of(&attachment)), Some(NODE_ADDRESS_V6.into()));
    assert_eq!(node.pod_links().len(), 1);
}

#[test]
fn the_node_forwards_ipv6_and_goes_on_hearing_router_advertisements() {
    let node = Node::new().with_ipv6();
    assert_eq!(setting(&node.netns, "ipv6/conf/eth0/accept_ra"), "1");
    let _daemon = node.start(&node.config(BOTH));
    assert_eq!(setting(&node.netns, "ipv6/conf/all/forwarding"), "1");
    assert_eq!(setting(&node.netns, "ipv6/conf/eth0/accept_ra"), "2");
}

#[test]
fn ipv4_pods_leave_the_node_s_ipv6_alone() {
    let node = Node::new().with_ipv6();
    let _daemon = node.start(&node.static_config(8));
    let pod = Netns::create().unwrap();
    assert_eq!(addresses(&node.add(&key("a"), "web-0", pod.as_fd()).unwrap()), ["10.240.0.5/32"]);
    assert_eq!(setting(&node.netns, "ipv6/conf/all/forwarding"), "0");
    assert_eq!(setting(&node.netns, "ipv6/conf/eth0/accept_ra"), "1");
}

#[test]
fn a_node_that_has_ipv6_turned_off_says_so_and_does_not_start() {
    let node = Node::new().with_ipv6();
    set(&node.netns, "ipv6/conf/default/disable_ipv6", "1");
    let (status, log) = node.fail(&node.config(BOTH));
    assert!(!status.success());
    assert!(log.contains("net.ipv6.conf.default.disable_ipv6") && log.contains("ipFamilies"), "{log}");
}

#[test]
fn a_check_compares_both_families() {
    let node = Node::new().with_ipv6();
    let _daemon = node.start(&node.config(BOTH));
    let pod = Netns::create().unwrap();
    let attachment = node.add(&key("a"), "web-0", pod.as_fd()).unwrap();
    let addresses = attachment.addresses.iter().map(|address| address.address.addr()).collect();
    let check = Call::Check(Check { key: key("a"), addresses, delegated: false });
    assert_eq!(node.call(check.clone(), Some(pod.as_fd())), Reply::Checked);
    ip(&pod, "-6 route del default");
    let Reply::Failed(failure) = node.call(check, Some(pod.as_fd())) else { panic!() };
    assert!(failure.message.contains("::/0"), "{failure}");
}

#[test]
fn a_pod_has_a_link_local_address_only_beside_another_ipv6_one() {
    for (config, expected) in
        [(BOTH, true), ("source: {kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5]}\n", false)]
    {
        let node = Node::new().with_ipv6();
        let _daemon = node.start(&node.config(config));
        let pod = Netns::create().unwrap();
        node.add(&key("a"), "web-0", pod.as_fd()).unwrap();
        // The kernel would make it at once where an interface comes up, and be done with its tests 2 s later.
        let addresses = ip(&pod, "-6 address show dev eth0");
        assert_eq!(addresses.contains("inet6 fe80:"), expected, "{addresses}");
    }
}

#[test]
fn host_links_keep_no_multicast_routes_whoever_wired_them() {
    let node = Node::new().with_ipv6();
    let daemon = node.start(&node.config(BOTH));
    let routes = || ip(&node.netns, "-6 route show table local type multicast");
    let of_pods = || routes().lines().filter(|route| route.contains("dev azv")).count();
    let pods: Vec<Netns> = (0..3).map(|_| Netns::create().unwrap()).collect();
    for (n, pod) in pods.iter().enumerate() {
        node.add(&key(&format!("c{n}")), &format!("web-{n}"), pod.as_fd()).unwrap();
    }
    eventually("new links lose theirs", || of_pods() == 0);
    assert!(routes().contains("dev eth0"), "the NIC keeps its own: {}", routes());
    drop(daemon);
    let links = node.pod_links();
    assert_eq!(links.len(), 3);
    for link in &links {
        ip(
            &node.netns,
            &format!("-6 route append multicast ff00::/8 dev {} table local proto kernel metric 256", link.name),
        );
    }
    assert_eq!(of_pods(), 3);
    let _daemon = node.start(&node.config(BOTH));
    eventually("and those that were there already", || of_pods() == 0);
    assert!(routes().contains("dev eth0"), "{}", routes());
}
