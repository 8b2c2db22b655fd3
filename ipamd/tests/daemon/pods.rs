//! Pods come and go through the real daemon, in a real kernel.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use crate::rules::run;
use crate::support::{
    NODE_ADDRESS, Node, add_call, address, eventually, ip, key, receive, receiver, send, source_seen,
};
use dotfour_datapath::link::{LinkChange, LinkId, VethEnd, VethPair};
use dotfour_datapath::{Batch, Netns, Socket};
use dotfour_protocol::frame::MAX_MESSAGE;
use dotfour_protocol::{Add, Attachment, Call, CniVersion, Reply, ResultFormat};
use rustix::process::Signal;

/// Somebody else's interface in a pod.
fn occupy(pod: &Netns, name: &str) {
    pod.run(|| {
        let end = |name| VethEnd { name, mac: None, index: None };
        let mut batch = Batch::new();
        batch.create_veth("occupy", &VethPair { near: end(name), far: end("x"), far_netns: None, mtu: 1500 });
        Socket::open().unwrap().run(batch).unwrap();
    })
    .unwrap();
}

#[test]
fn a_pod_gets_the_first_free_address_and_talks_at_once() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(8));
    let (one, two) = (Netns::create().unwrap(), Netns::create().unwrap());
    let first = node.add(&key("c1"), "web-1", one.as_fd()).unwrap();
    // .4 is the node's own and was offered all the same.
    assert_eq!(address(&first).to_string(), "10.240.0.5");
    assert_eq!(first.mtu, 1500);
    assert_eq!(first.pod_mac, "0a:d4:0a:f0:00:05");
    assert_eq!(source_seen(&node.netns, &one, address(&first)), Some(crate::support::NODE_ADDRESS.into()));

    let second = node.add(&key("c2"), "web-2", two.as_fd()).unwrap();
    assert_eq!(address(&second).to_string(), "10.240.0.6");
    assert_eq!(source_seen(&one, &two, address(&second)), Some(address(&first)), "pod to pod keeps the source");
    assert_eq!(source_seen(&two, &one, address(&first)), Some(address(&second)));

    let status = node.status();
    assert_eq!((status.pool.total, status.pool.assigned, status.pool.reserved), (8, 2, 0));
    assert_eq!(status.attachments[0].pod.as_ref().unwrap().name, "web-1");
    let mut links: Vec<String> = node.pod_links().into_iter().map(|link| link.name).collect();
    links.sort();
    let mut expected = vec![first.host_ifname, second.host_ifname];
    expected.sort();
    assert_eq!(links, expected);
}

#[test]
fn what_the_pod_and_the_node_get_is_what_the_design_says() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(8));
    let pod = Netns::create().unwrap();
    let attachment = node.add(&key("c1"), "web-1", pod.as_fd()).unwrap();
    let ip = |netns: &Netns, arguments: &[&str]| {
        let output = netns.run(|| std::process::Command::new("ip").args(arguments).output().unwrap()).unwrap();
        String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let inside = ip(&pod, &["-4", "address", "show", "dev", "eth0"]);
    assert!(inside.contains("inet 10.240.0.5/32 scope global noprefixroute eth0"), "{inside}");
    assert_eq!(
        ip(&pod, &["route", "show"]),
        "default via 169.254.1.1 dev eth0 proto 44 169.254.1.1 dev eth0 proto 44 scope link"
    );
    assert_eq!(ip(&pod, &["neighbour", "show"]), "169.254.1.1 dev eth0 lladdr aa:aa:aa:aa:aa:aa PERMANENT");
    let link = &attachment.host_ifname;
    assert_eq!(
        ip(&node.netns, &["route", "show", "proto", "44"]),
        format!("10.240.0.5 dev {link} scope link src 10.240.0.4")
    );
    assert_eq!(ip(&node.netns, &["neighbour", "show", "dev", link]), "10.240.0.5 lladdr 0a:d4:0a:f0:00:05 PERMANENT");
    let outside = ip(&node.netns, &["-d", "link", "show", "dev", link]);
    for expected in
        ["link/ether aa:aa:aa:aa:aa:aa", "alias dotfour/1 eth0 10.240.0.5 azure c1", "mtu 1500", "numtxqueues 1 "]
    {
        assert!(outside.contains(expected), "{expected} is not in {outside}");
    }
    let setting = format!("/proc/sys/net/ipv4/conf/{link}/proxy_arp");
    assert_eq!(node.netns.run(|| std::fs::read_to_string(setting).unwrap()).unwrap(), "1\n");
}

/// Adds a pod for a caller that wants a result of CNI 1.1.0.
fn printed(node: &Node, id: &str, sandbox: &str, pod: &Netns) -> Reply {
    let Call::Add(add) = add_call(&key(id), "web-0") else { unreachable!("made above") };
    let print = Some(ResultFormat { version: CniVersion::V1_1_0, sandbox: Some(sandbox.into()) });
    node.call(Call::Add(Add { print, ..add }), Some(pod.as_fd()))
}

#[test]
fn who_gives_a_format_gets_the_result_as_the_plugin_prints_it() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(4));
    let pod = Netns::create().unwrap();
    let reply = printed(&node, "c1", "/run/netns/c1", &pod);
    let attachment = node.add(&key("c1"), "web-0", pod.as_fd()).unwrap();
    let Attachment { host_ifname, host_mac, pod_mac, mtu, .. } = &attachment;
    let text = format!(
        "{{\"cniVersion\":\"1.1.0\",\"interfaces\":[\
         {{\"name\":\"{host_ifname}\",\"mac\":\"{host_mac}\",\"mtu\":{mtu}}},\
         {{\"name\":\"eth0\",\"mac\":\"{pod_mac}\",\"mtu\":{mtu},\"sandbox\":\"/run/netns/c1\"}}],\
         \"ips\":[{{\"interface\":1,\"address\":\"10.240.0.5/32\",\"gateway\":\"169.254.1.1\"}}],\
         \"routes\":[{{\"dst\":\"169.254.1.1/32\"}},{{\"dst\":\"0.0.0.0/0\",\"gw\":\"169.254.1.1\"}}],\"dns\":{{}}}}\n"
    );
    assert_eq!(reply, Reply::Printed(text));
    assert_eq!(printed(&node, "c1", "/run/netns/c1", &pod), reply, "asked again");
}

#[test]
fn an_add_whose_result_no_message_holds_is_refused_and_undone() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(4));
    let pod = Netns::create().unwrap();
    let Reply::Failed(failure) = printed(&node, "c1", &"x".repeat(MAX_MESSAGE - 300), &pod) else { panic!("answered") };
    assert!(failure.message.contains("over the limit of 65536"), "{failure}");
    eventually("the lease has ended", || node.status().pool.assigned == 0);
    node.wait_until_clean();
}

#[test]
fn asking_again_gives_the_same_answer_and_another_namespace_is_a_conflict() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(8));
    let (pod, other) = (Netns::create().unwrap(), Netns::create().unwrap());
    let first = node.add(&key("c1"), "web-1", pod.as_fd()).unwrap();
    assert_eq!(node.add(&key("c1"), "web-1", pod.as_fd()).unwrap(), first);
    let conflict = node.add(&key("c1"), "web-1", other.as_fd()).unwrap_err();
    assert_eq!(conflict.cause, "attachment-conflict");
    occupy(&other, "eth0");
    let conflict = node.add(&key("c1"), "web-1", other.as_fd()).unwrap_err();
    assert_eq!(conflict.cause, "attachment-conflict");
    assert_eq!(node.status().pool.assigned, 1);
    assert_eq!(node.pod_links().len(), 1);
}

#[test]
fn a_deleted_pod_leaves_nothing_and_its_address_cools_down() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(1));
    let pods = [Netns::create().unwrap(), Netns::create().unwrap()];
    node.add(&key("c1"), "web-1", pods[0].as_fd()).unwrap();
    node.del(&key("c1"));
    assert!(node.pod_routes().is_empty(), "the route goes before the answer");
    assert_eq!(node.status().pool.cooling, 1);
    let refused = node.add(&key("c2"), "web-2", pods[1].as_fd()).unwrap_err();
    assert_eq!((refused.code, refused.cause.as_str()), (11, "pool-exhausted"));
    node.del(&key("c1"));
    node.del(&key("never-added"));
    node.wait_until_clean();
    eventually("the address is warm again", || node.add(&key("c2"), "web-2", pods[1].as_fd()).is_ok());
}

#[test]
fn a_pod_that_was_deleted_sends_nothing_although_its_link_is_there_and_is_no_forger() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(4));
    let heard = receiver(&node.netns, NODE_ADDRESS.into(), 7011);
    let pod = Netns::create().unwrap();
    let mut buried = 0;
    // The janitor is quick, and the machine may be slow.
    while buried < 20 {
        let attachment = node.add(&key("c1"), "web-1", pod.as_fd()).unwrap();
        // As Calico has them, for instance: a route of somebody else's stays.
        let route = format!("route append {}/32 dev {} proto static", address(&attachment), attachment.host_ifname);
        ip(&node.netns, &route);
        let sender = pod.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        sender.send_to(b"a pod", (NODE_ADDRESS, 7011)).unwrap();
        assert_eq!(heard.recv(&mut [0; 16]).unwrap(), 5);
        node.del(&key("c1"));
        let sent = sender.send_to(b"gone", (NODE_ADDRESS, 7011));
        let there = node.pod_links().iter().any(|link| link.up);
        assert!(heard.recv(&mut [0; 16]).is_err(), "a pod that was deleted is heard");
        node.wait_until_clean();
        if sent.is_ok() && there {
            let counters = run(&node.netns, "nft list counter inet dotfour spoofed");
            assert!(counters.contains("packets 0"), "{counters}");
            return;
        }
        buried += 1;
    }
    panic!("the janitor was quicker in all of {buried} rounds");
}

#[test]
fn a_pod_created_again_at_once_finds_its_names_free() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(20));
    let pod = Netns::create().unwrap();
    for round in 0..5 {
        // The same pod name, and the very same namespace, before the janitor has been there.
        let id = format!("c{round}");
        let attachment = node.add(&key(&id), "web-0", pod.as_fd()).unwrap();
        assert_eq!(source_seen(&node.netns, &pod, address(&attachment)), Some(crate::support::NODE_ADDRESS.into()));
        node.del(&key(&id));
    }
    for _ in 0..4 {
        // And the same container, whose link has been renamed out of the way before.
        node.add(&key("again"), "web-0", pod.as_fd()).unwrap();
        node.del(&key("again"));
    }
    node.wait_until_clean();
    assert_eq!(node.status().pool.assigned, 0);
}

#[test]
fn the_newest_sandbox_gets_the_pod_s_link_name_and_the_older_keeps_its_traffic() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(8));
    let (old, new) = (Netns::create().unwrap(), Netns::create().unwrap());
    let older = node.add(&key("c1"), "web-0", old.as_fd()).unwrap();
    let newer = node.add(&key("c2"), "web-0", new.as_fd()).unwrap();
    assert_eq!(older.host_ifname, newer.host_ifname);
    assert_eq!(source_seen(&new, &old, address(&older)), Some(address(&newer)));
    let status = node.status();
    assert_ne!(status.attachments[0].host_ifname, status.attachments[1].host_ifname);
    assert_eq!(status.attachments[1].host_ifname, newer.host_ifname);
    node.del(&key("c1"));
    assert_eq!(source_seen(&node.netns, &new, address(&newer)), Some(crate::support::NODE_ADDRESS.into()));
    node.del(&key("c2"));
    node.wait_until_clean();
}

#[test]
fn a_daemon_that_starts_again_recovers_its_pods() {
    let node = Node::new();
    let config = node.static_config(8);
    let daemon = node.start(&config);
    let (one, two) = (Netns::create().unwrap(), Netns::create().unwrap());
    let first = node.add(&key("c1"), "web-1", one.as_fd()).unwrap();
    assert!(daemon.stop().success());
    assert!(!node.socket().exists());
    assert_eq!(source_seen(&node.netns, &one, address(&first)), Some(crate::support::NODE_ADDRESS.into()));

    let daemon = node.start(&config);
    assert_eq!(node.status().pool.assigned, 1);
    assert_eq!(node.add(&key("c1"), "web-1", one.as_fd()).unwrap(), first);
    let second = node.add(&key("c2"), "web-2", two.as_fd()).unwrap();
    assert_ne!(address(&second), address(&first));

    // Killed, with a condemned link not yet deleted.
    node.del(&key("c2"));
    daemon.signal(Signal::KILL);
    drop(daemon);
    let _daemon = node.start(&config);
    eventually("the condemned link is deleted", || node.pod_links().len() == 1);
    node.del(&key("c1"));
    node.wait_until_clean();
}

#[test]
fn a_pod_whose_namespace_died_while_the_daemon_was_away_holds_no_address() {
    let node = Node::new();
    let config = node.static_config(8);
    let daemon = node.start(&config);
    let pod = Netns::create().unwrap();
    node.add(&key("c1"), "web-1", pod.as_fd()).unwrap();
    daemon.stop();
    drop(pod);
    node.wait_until_clean();
    let _daemon = node.start(&config);
    assert_eq!(node.status().pool.assigned, 0);
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_and_the_first_goes_on() {
    let node = Node::new();
    let config = node.static_config(8);
    let _daemon = node.start(&config);
    let mut second = node.spawn(&config);
    assert!(!second.wait().success());
    assert!(node.log().contains("another dotfour-ipamd uses stateDir"), "{}", node.log());
    node.status();
}

#[test]
fn what_is_not_a_network_namespace_is_refused_and_leaves_nothing() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(8));
    for path in ["/dev/null", "/proc/self/ns/mnt", "/"] {
        let file = std::fs::File::open(path).unwrap();
        let failure = node.add(&key("c1"), "web-1", file.as_fd()).unwrap_err();
        assert_eq!((failure.code, failure.cause.as_str()), (4, "invalid-namespace"), "{path}");
        assert!(failure.message.contains("CNI_NETNS"), "{failure}");
    }
    let failure = node.call(add_call(&key("c1"), "web-1"), None);
    assert!(matches!(failure, dotfour_protocol::Reply::Failed(f) if f.message.contains("no network namespace")));
    assert_eq!(node.status().pool.assigned, 0);
    assert!(node.pod_links().is_empty());
}

#[test]
fn an_interface_name_that_is_taken_is_refused_and_leaves_nothing() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(8));
    let pod = Netns::create().unwrap();
    occupy(&pod, "eth0");
    let failure = node.add(&key("c1"), "web-1", pod.as_fd()).unwrap_err();
    assert_eq!((failure.code, failure.cause.as_str()), (4, "interface-taken"));
    assert!(failure.message.contains("CNI_IFNAME"), "{failure}");
    assert_eq!(node.status().pool.assigned, 0);
    assert!(node.pod_links().is_empty() && node.pod_routes().is_empty());
    pod.run(|| {
        let mut batch = Batch::new();
        batch.delete_link("make room", LinkId::Name("eth0"));
        Socket::open().unwrap().run(batch).unwrap();
    })
    .unwrap();
    assert_eq!(address(&node.add(&key("c1"), "web-1", pod.as_fd()).unwrap()).to_string(), "10.240.0.6");
}

#[test]
fn a_step_inside_the_pod_that_fails_undoes_the_node_s_half() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(8));
    let (pod, other) = (Netns::create().unwrap(), Netns::create().unwrap());
    node.add(&key("other"), "other", other.as_fd()).unwrap();
    // Links get their indexes one after the other, and a further interface's table has the number of its link.
    let table = (node.pod_links()[0].index + 1).to_string();
    // Default routes of somebody else's, so that ours are refused: in the main table, and in that of a further interface.
    occupy(&pod, "net1");
    pod.run(|| {
        let mut batch = Batch::new();
        batch.change_link("up", LinkId::Name("x"), &LinkChange { up: Some(true), ..LinkChange::default() });
        Socket::open().unwrap().run(batch).unwrap();
        for table in ["main", &table] {
            let route = ["route", "add", "default", "dev", "net1", "table", table];
            assert!(std::process::Command::new("ip").args(route).status().unwrap().success());
        }
    })
    .unwrap();
    let failure = node.add(&key("c1"), "web-1", pod.as_fd()).unwrap_err();
    assert_eq!((failure.code, failure.cause.as_str()), (101, "kernel-refused"));
    assert!(failure.message.contains("default route"), "{failure}");
    assert_eq!((node.pod_links().len(), node.pod_routes().len()), (1, 1), "the other pod's");
    assert_eq!(node.status().pool.assigned, 1);
    assert_eq!(pod.run(|| Socket::open().unwrap().link(LinkId::Name("eth0")).unwrap()).unwrap(), None);
}

#[test]
fn an_add_whose_caller_is_gone_is_undone() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(8));
    let pod = Netns::create().unwrap();
    let request = dotfour_protocol::Request::new(add_call(&key("c1"), "web-1"));
    let caller = node.connect();
    send(&caller, &dotfour_protocol::frame::encode_request(&request).unwrap(), Some(pod.as_fd()));
    drop(caller);
    eventually("the ADD is refused or undone", || {
        let log = node.log();
        log.contains("the caller of the ADD is gone") || log.contains("nobody received the reply")
    });
    assert_eq!(node.status().pool.assigned, 0);
    node.wait_until_clean();
}

#[test]
fn an_add_that_has_waited_for_long_is_not_made_for_a_caller_that_is_gone() {
    let node = Node::new();
    let daemon = node.start(&node.static_config(8));
    let pod = Netns::create().unwrap();
    let mut call = add_call(&key("c1"), "web-1");
    let dotfour_protocol::Call::Add(add) = &mut call else { panic!("{call:?}") };
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    add.started_ns = Some(u64::try_from(now.tv_sec - 1).unwrap() * 1_000_000_000);
    daemon.pause();
    let caller = node.connect();
    let request = dotfour_protocol::frame::encode_request(&dotfour_protocol::Request::new(call)).unwrap();
    send(&caller, &request, Some(pod.as_fd()));
    drop(caller);
    daemon.signal(Signal::CONT);
    eventually("the ADD is refused", || node.log().contains("the caller of the ADD is gone"));
    assert_eq!(node.status().pool.cooling, 0, "an address was lent");
    node.wait_until_clean();
}

#[test]
fn garbage_on_the_socket_is_answered_and_harms_nobody() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(8));
    for bytes in [&b"{"[..], b"\0\0\0\0", b"{\"version\":99,\"call\":{}}", &[b'['; 60_000]] {
        let caller = node.connect();
        send(&caller, bytes, None);
        let dotfour_protocol::Reply::Failed(failure) = receive(&caller) else { panic!("garbage was served") };
        assert_eq!(failure.cause, "protocol-mismatch");
    }
    drop(node.connect());
    let _silent: Vec<_> = (0..3).map(|_| node.connect()).collect();
    assert_eq!(node.status().pool.assigned, 0);
}

#[test]
fn a_caller_that_is_not_root_is_refused_even_if_the_socket_lets_it_in() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(8));
    let everyone = std::fs::Permissions::from_mode(0o777);
    for path in [node.socket(), node.directory.path().join("state"), node.directory.path().to_owned()] {
        std::fs::set_permissions(path, everyone.clone()).unwrap();
    }
    let as_nobody = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody)
                .map(|()| node.call(dotfour_protocol::Call::Status(dotfour_protocol::Status { after: None }), None))
        });
        thread.join().unwrap()
    });
    match as_nobody {
        Ok(dotfour_protocol::Reply::Failed(failure)) => assert_eq!(failure.cause, "permission-denied"),
        Ok(other) => panic!("a stranger was served: {other:?}"),
        // A user namespace made without privilege has one user only, so there is no stranger to be.
        Err(e) => {
            let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
            assert_eq!(map.split_whitespace().nth(2), Some("1"), "cannot become another user: {e}");
        }
    }
}

#[test]
fn a_burst_of_callers_gets_distinct_addresses() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(100));
    let pods: Vec<Netns> = (0..100).map(|_| Netns::create().unwrap()).collect();
    let mut addresses: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = pods
            .chunks(10)
            .enumerate()
            .map(|(worker, pods)| {
                let node = &node;
                scope.spawn(move || {
                    let add = |(i, pod): (usize, &Netns)| {
                        let name = format!("c{worker}-{i}");
                        address(&node.add(&key(&name), &name, pod.as_fd()).unwrap())
                    };
                    pods.iter().enumerate().map(add).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 100);
    assert_eq!(node.status().pool.free, 0);
}

#[test]
fn a_pod_gets_the_address_it_asks_for_or_an_error_that_says_why_not() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(8));
    let (one, two) = (Netns::create().unwrap(), Netns::create().unwrap());
    let ask = |id: &str, asked: &str, netns: &Netns| {
        let add = Add { key: key(id), pod: None, started_ns: None, asked: vec![asked.parse().unwrap()], print: None };
        match node.call(Call::Add(add), Some(netns.as_fd())) {
            Reply::Attached(attachment) => Ok(address(&attachment).to_string()),
            Reply::Failed(failure) => Err((failure.code, failure.cause)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask("c1", "10.240.0.9", &one), Ok("10.240.0.9".into()));
    assert_eq!(ask("c1", "10.240.0.9", &one), Ok("10.240.0.9".into()), "the same again");
    assert_eq!(ask("c1", "10.240.0.8", &one), Err((100, "attachment-conflict".into())));
    assert_eq!(ask("c2", "10.240.0.9", &two), Err((11, "address-taken".into())));
    assert_eq!(ask("c2", "10.240.0.4", &two), Err((7, "address-unknown".into())), "the node's own");
    assert_eq!(ask("c2", "10.240.9.9", &two), Err((7, "address-unknown".into())));
    assert_eq!((node.status().pool.assigned, node.pod_links().len()), (1, 1));
}
