//! Addresses for pods that another plugin wires: assigned and recorded, with nothing done to the kernel.

use std::os::fd::AsFd;
use std::time::Duration;

use dotfour_datapath::Netns;
use dotfour_protocol::{
    Add, Assigned, AttachmentKey, Call, Check, CniVersion, Failure, Gc, PodName, Reply, ResultFormat, Status,
};
use rustix::process::Signal;

use crate::leases::{now_ns, spool};
use crate::support::{Node, add_call, del_call, eventually, key};

fn assign_call(key: &AttachmentKey) -> Call {
    let pod = Some(PodName { namespace: "default".into(), name: "web-1".into() });
    Call::Assign(Add { key: key.clone(), pod, started_ns: None, asked: Vec::new(), print: None })
}

fn assign(node: &Node, key: &AttachmentKey) -> Result<Vec<String>, Failure> {
    match node.call(assign_call(key), None) {
        Reply::Assigned(Assigned { addresses }) => {
            Ok(addresses.iter().map(|pod| format!("{} via {}", pod.address, pod.gateway)).collect())
        }
        Reply::Failed(failure) => Err(failure),
        other => panic!("{other:?}"),
    }
}

fn check(node: &Node, id: &str, address: &str, delegated: bool) -> Result<(), Failure> {
    let call = Call::Check(Check { key: key(id), addresses: vec![address.parse().unwrap()], delegated });
    let netns = Netns::create().unwrap();
    match node.call(call, (!delegated).then(|| netns.as_fd())) {
        Reply::Checked => Ok(()),
        Reply::Failed(failure) => Err(failure),
        other => panic!("{other:?}"),
    }
}

fn assigned(node: &Node) -> usize {
    node.status().pool.assigned
}

#[test]
fn who_gives_a_format_gets_the_result_as_the_plugin_prints_it() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(4));
    let Call::Assign(add) = assign_call(&key("c1")) else { unreachable!("made above") };
    let print = Some(ResultFormat { version: CniVersion::V0_4_0, sandbox: None });
    let reply = node.call(Call::Assign(Add { print, ..add }), None);
    let text = "{\"cniVersion\":\"0.4.0\",\"ips\":[{\"version\":\"4\",\"address\":\"10.240.0.5/16\",\"gateway\":\"10.240.0.1\"}],\
         \"routes\":[{\"dst\":\"0.0.0.0/0\",\"gw\":\"10.240.0.1\"}],\"dns\":{}}\n";
    assert_eq!(reply, Reply::Printed(text.into()));
}

#[test]
fn an_address_comes_with_its_subnet_and_gateway_and_the_kernel_is_left_alone() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(4));
    assert_eq!(assign(&node, &key("c1")).unwrap(), ["10.240.0.5/16 via 10.240.0.1"]);
    assert_eq!(assign(&node, &key("c1")).unwrap(), ["10.240.0.5/16 via 10.240.0.1"], "asked again");
    assert_eq!(assign(&node, &key("c2")).unwrap(), ["10.240.0.6/16 via 10.240.0.1"]);
    assert!(node.pod_links().is_empty() && node.pod_routes().is_empty());
    let status = node.status();
    assert_eq!(status.pool.assigned, 2);
    let first = &status.attachments[0];
    assert!(first.delegated && first.host_ifname.is_empty(), "{first:?}");
    assert_eq!(first.pod.as_ref().map(|pod| pod.name.as_str()), Some("web-1"));
    node.del(&key("c1"));
    node.del(&key("c1"));
    assert_eq!((assigned(&node), node.status().pool.cooling), (1, 1));
}

#[test]
fn both_families_are_assigned_with_the_gateway_that_azure_has_for_each() {
    let node = Node::new().with_ipv6();
    let _daemon = node.start(
        &node.config("source: {kind: static, subnet: [10.240.0.0/16, fd00::/64], addresses: [10.240.0.5, fd00::5]}\n"),
    );
    let both = ["10.240.0.5/16 via 10.240.0.1", "fd00::5/64 via fe80::1234:5678:9abc"];
    assert_eq!(assign(&node, &key("c1")).unwrap(), both);
}

#[test]
fn a_lease_without_a_link_survives_the_daemon_its_kill_and_the_collector() {
    let node = Node::new();
    let config = node.static_config(4);
    let daemon = node.start(&config);
    assert_eq!(assign(&node, &key("c1")).unwrap(), ["10.240.0.5/16 via 10.240.0.1"]);
    let (pod, gone) = (Netns::create().unwrap(), Netns::create().unwrap());
    node.add(&key("c2"), "web-2", pod.as_fd()).unwrap();
    node.add(&key("c3"), "web-3", gone.as_fd()).unwrap();
    // The collector is at work, and takes what it should.
    drop(gone);
    eventually("the lease with a dead link is collected", || assigned(&node) == 2);
    daemon.signal(Signal::KILL);
    drop(daemon);
    for round in 0..2 {
        let daemon = node.start(&config);
        assert_eq!(assigned(&node), 2, "round {round}: {}", node.log());
        assert_eq!(assign(&node, &key("c1")).unwrap(), ["10.240.0.5/16 via 10.240.0.1"]);
        assert_eq!(check(&node, "c1", "10.240.0.5", true), Ok(()));
        assert!(daemon.stop().success());
    }
    // Ended while nobody is there, by the plugin's file.
    spool(&node, "1-c1-eth0", &key("c1"), now_ns());
    let _daemon = node.start(&config);
    assert_eq!(assigned(&node), 1);
    assert_eq!(node.status().attachments[0].key, key("c2"));
}

#[test]
fn an_end_that_cannot_be_recorded_is_an_error_for_a_delegated_lease_alone_until_it_can() {
    let node = Node::new();
    let config = node.static_config(4);
    let daemon = node.start(&config);
    let pod = Netns::create().unwrap();
    node.add(&key("wired"), "web-2", pod.as_fd()).unwrap();
    assign(&node, &key("c1")).unwrap();
    // The journal is written anew once it is long enough, and then it cannot be.
    let in_the_way = node.directory.path().join("state/leases.new");
    std::fs::create_dir(&in_the_way).unwrap();
    for n in 0..300 {
        node.del(&key(&format!("{n:01500}")));
    }
    for _ in 0..2 {
        let Reply::Failed(failure) = node.call(del_call(&key("c1"), None), None) else { panic!("ended") };
        assert_eq!((failure.code, failure.cause.as_str()), (105, "not-recorded"));
    }
    // The next start sees by its link that it is over.
    node.del(&key("wired"));
    assert_eq!(assigned(&node), 1);
    daemon.signal(Signal::KILL);
    drop(daemon);
    std::fs::remove_dir(&in_the_way).unwrap();
    let daemon = node.start(&config);
    assert_eq!(assigned(&node), 1, "it is on record still");
    node.del(&key("c1"));
    daemon.signal(Signal::KILL);
    drop(daemon);
    let _daemon = node.start(&config);
    assert_eq!(assigned(&node), 0);
}

#[test]
fn an_attachment_is_wired_by_one_plugin_only() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(4));
    let pod = Netns::create().unwrap();
    assign(&node, &key("c1")).unwrap();
    node.add(&key("c2"), "web-2", pod.as_fd()).unwrap();
    let Reply::Failed(failure) = node.call(add_call(&key("c1"), "web-1"), Some(pod.as_fd())) else { panic!("wired") };
    assert_eq!((failure.code, failure.cause.as_str()), (100, "attachment-conflict"));
    assert!(failure.message.contains("another plugin"), "{failure}");
    let failure = assign(&node, &key("c2")).unwrap_err();
    assert_eq!((failure.code, failure.cause.as_str()), (100, "attachment-conflict"));
    assert!(failure.message.contains("dotfour itself"), "{failure}");
    assert_eq!((assigned(&node), node.pod_links().len()), (2, 1), "nothing has changed");
}

#[test]
fn check_looks_at_the_lease_alone_and_at_its_own_kind_of_lease() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(4));
    assign(&node, &key("c1")).unwrap();
    assert_eq!(check(&node, "c1", "10.240.0.5", true), Ok(()));
    let cause = |id, address, delegated| check(&node, id, address, delegated).unwrap_err().cause;
    assert_eq!(cause("c1", "10.240.0.6", true), "attachment-differs");
    assert_eq!(cause("c1", "10.240.0.5", false), "unknown-container");
    assert_eq!(cause("c9", "10.240.0.5", true), "unknown-container");
    node.del(&key("c1"));
    assert_eq!(cause("c1", "10.240.0.5", true), "unknown-container");
}

#[test]
fn gc_ends_what_is_not_listed_and_old_enough() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(4));
    let long_ago = now_ns() - 61_000_000_000_u64.min(now_ns() - 1);
    let old =
        |id| Call::Assign(Add { key: key(id), pod: None, started_ns: Some(long_ago), asked: Vec::new(), print: None });
    for id in ["c1", "c2"] {
        assert!(matches!(node.call(old(id), None), Reply::Assigned(_)));
    }
    assign(&node, &key("young")).unwrap();
    let valid = vec![dotfour_protocol::ValidAttachment { container_id: "c2".into(), ifname: "eth0".into() }];
    assert_eq!(node.call(Call::Gc(Gc { network: "azure".into(), valid }), None), Reply::Collected);
    let mut left: Vec<String> = node.status().attachments.into_iter().map(|lease| lease.key.container_id).collect();
    left.sort();
    assert_eq!(left, ["c2", "young"]);
}

#[test]
fn a_wanted_address_is_assigned_and_a_late_call_whose_del_came_first_fails() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(4));
    let asked = vec!["10.240.0.7".parse().unwrap()];
    let call = Call::Assign(Add { key: key("c1"), pod: None, started_ns: None, asked, print: None });
    let Reply::Assigned(got) = node.call(call, None) else { panic!("refused") };
    assert_eq!(got.addresses[0].address.to_string(), "10.240.0.7/16");
    let started_ns = Some(now_ns());
    std::thread::sleep(Duration::from_millis(1));
    node.del(&key("c2"));
    let late = Call::Assign(Add { key: key("c2"), pod: None, started_ns, asked: Vec::new(), print: None });
    assert!(matches!(node.call(late, None), Reply::Failed(failure) if failure.cause == "overtaken-by-del"));
}

#[test]
fn the_status_lists_pods_with_the_longest_names_in_pages_that_fit() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(130));
    for number in 0..130 {
        let (namespace, name) = (vec!["n"; 63].concat(), format!("{number:03}{}", vec!["p"; 250].concat()));
        let add = Add {
            key: key(&format!("{number:064}")),
            pod: Some(PodName { namespace, name }),
            started_ns: None,
            asked: Vec::new(),
            print: None,
        };
        assert!(matches!(node.call(Call::Assign(add), None), Reply::Assigned(_)));
    }
    let (mut listed, mut pages, mut after) = (0, 0, None);
    loop {
        let Reply::Status(status) = node.call(Call::Status(Status { after }), None) else { panic!("no status") };
        (listed, pages) = (listed + status.attachments.len(), pages + 1);
        if !status.more {
            break;
        }
        after = status.attachments.last().and_then(|last| last.addresses.first().copied());
    }
    assert_eq!(listed, 130);
    assert!(pages > 1, "130 such names would fit into one message");
}
