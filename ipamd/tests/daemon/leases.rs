//! Leases outlive the daemon, and nothing outlives its pod.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dotfour_datapath::Netns;
use dotfour_protocol::frame::{encode_request, encode_spooled};
use dotfour_protocol::{Add, AttachmentKey, Call, Reply, Request, SpooledDel};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::support::{
    NODE_ADDRESS, Node, add_call, address, del_call, eventually, ip, key, receive, send, source_seen,
};

/// The moment, as a plugin tells it.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

pub(crate) fn spool(node: &Node, name: &str, key: &AttachmentKey, at_ns: u64) {
    let directory = node.socket().with_file_name("spool");
    std::fs::create_dir_all(&directory).unwrap();
    let del = SpooledDel { version: dotfour_protocol::VERSION, key: key.clone(), at_ns };
    std::fs::write(directory.join(name), encode_spooled(&del).unwrap()).unwrap();
}

/// An ADD that says when its plugin was started.
fn add_started(id: &str, started_ns: u64) -> Call {
    Call::Add(Add { key: key(id), pod: None, started_ns: Some(started_ns), asked: Vec::new(), print: None })
}

fn spooled(node: &Node) -> Vec<String> {
    let entries = std::fs::read_dir(node.socket().with_file_name("spool")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name != "bad").collect()
}

fn pods(count: usize) -> Vec<Netns> {
    (0..count).map(|_| Netns::create().unwrap()).collect()
}

/// A pool of one address that rests for as long as the test runs.
fn one_address(node: &Node) -> std::path::PathBuf {
    node.config(
        "cooldown: 10m\ncooldownFloor: 10m\nsource: {kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5]}\n",
    )
}

#[test]
fn a_late_add_whose_del_came_first_fails_clean_and_a_new_one_does_not() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(4));
    let pod = Netns::create().unwrap();
    let started_ns = now_ns();
    node.del(&key("c1"));
    let Reply::Failed(failure) = node.call(add_started("c1", started_ns), Some(pod.as_fd())) else {
        panic!("a late ADD was served")
    };
    assert_eq!(failure.cause, "overtaken-by-del");
    assert!(node.pod_links().is_empty());
    assert_eq!(node.status().pool.assigned, 0);
    assert!(matches!(node.call(add_started("c1", now_ns()), Some(pod.as_fd())), Reply::Attached(_)));
}

#[test]
fn a_del_that_is_served_late_spares_what_was_added_since() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(4));
    let pod = Netns::create().unwrap();
    let del = del_call(&key("c1"), Some(now_ns()));
    assert!(matches!(node.call(add_started("c1", now_ns()), Some(pod.as_fd())), Reply::Attached(_)));
    assert_eq!(node.call(del, None), Reply::Detached);
    assert_eq!((node.status().pool.assigned, node.pod_links().len()), (1, 1));
    // A moment that has not come yet is no licence to end what is added until then.
    assert_eq!(node.call(del_call(&key("c2"), Some(u64::MAX)), None), Reply::Detached);
    let other = Netns::create().unwrap();
    assert!(matches!(node.call(add_started("c2", now_ns()), Some(other.as_fd())), Reply::Attached(_)));
    for id in ["c1", "c2"] {
        assert_eq!(node.call(del_call(&key(id), Some(now_ns())), None), Reply::Detached);
    }
    assert_eq!(node.status().pool.assigned, 0);
}

#[test]
fn undoing_an_add_that_nobody_heard_of_spares_the_one_that_was_answered_meanwhile() {
    let node = Node::new();
    let daemon = node.start(&node.static_config(100));
    let (mut undone, mut read) = (0, 0);
    for round in 0..60_u32 {
        let (pod, id) = (Netns::create().unwrap(), format!("c{round}"));
        let (first, second) = (node.connect(), node.connect());
        let request = |started_ns| encode_request(&Request::new(add_started(&id, started_ns))).unwrap();
        send(&first, &request(now_ns()), Some(pod.as_fd()));
        // Long enough for the first to be under way, and short enough for it not to be answered.
        std::thread::sleep(Duration::from_micros(u64::from(150 + round * 37 % 600)));
        send(&second, &request(now_ns()), Some(pod.as_fd()));
        drop(first);
        let Reply::Attached(attachment) = receive(&second) else { panic!("no DEL has come: {}", node.log()) };
        // What is left of the first comes last, if at all.
        std::thread::sleep(Duration::from_millis(5));
        let log = node.log();
        assert_eq!(node.pod_routes().len(), 1, "round {round}: {attachment:?} was answered and is gone:\n{log}");
        undone += usize::from(log.get(read..).unwrap_or_default().contains("nobody received the reply"));
        read = log.len();
        node.del(&key(&id));
        node.wait_until_clean();
    }
    assert_eq!(node.status().pool.assigned, 0);
    println!("in {undone} of 60 rounds something was undone by then");
    assert!(daemon.stop().success());
}

#[test]
fn a_daemon_that_starts_among_more_pods_than_a_socket_takes_answers_serves_and_ends() {
    let node = Node::new();
    let config = node.config(
        "cooldown: 200ms\nsource: {kind: static, subnet: 10.240.0.0/16, addresses: [10.240.1.0-10.240.2.255]}\n",
    );
    let daemon = node.start(&config);
    let pods = pods(301);
    let (late, early) = pods.split_last().unwrap();
    for (number, pod) in early.iter().enumerate() {
        node.add(&key(&format!("c{number}")), &format!("web-{number}"), pod.as_fd()).unwrap();
    }
    assert!(daemon.stop().success());
    let daemon = node.start(&config);
    assert_eq!(node.status().pool.assigned, 300);
    node.add(&key("late"), "late", late.as_fd()).unwrap();
    node.del(&key("late"));
    // It ends only when all that calls have left is done, for which it needs its socket.
    assert!(daemon.stop().success());
}

#[test]
fn a_tombstone_survives_the_daemon() {
    let node = Node::new();
    let config = node.static_config(4);
    let daemon = node.start(&config);
    let started_ns = now_ns();
    node.del(&key("c1"));
    daemon.signal(Signal::KILL);
    drop(daemon);
    let _daemon = node.start(&config);
    let pod = Netns::create().unwrap();
    let add =
        Call::Add(Add { key: key("c1"), pod: None, started_ns: Some(started_ns), asked: Vec::new(), print: None });
    assert!(matches!(node.call(add, Some(pod.as_fd())), Reply::Failed(f) if f.cause == "overtaken-by-del"));
}

#[test]
fn names_and_rests_survive_a_kill() {
    let node = Node::new();
    let config = node.config(
        "cooldown: 10m\ncooldownFloor: 10m\nsource: {kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5-10.240.0.6]}\n",
    );
    let daemon = node.start(&config);
    let pods = pods(3);
    node.add(&key("c1"), "web-1", pods[0].as_fd()).unwrap();
    node.add(&key("c2"), "web-2", pods[1].as_fd()).unwrap();
    node.del(&key("c1"));
    daemon.signal(Signal::KILL);
    drop(daemon);
    let _daemon = node.start(&config);
    let status = node.status();
    assert_eq!((status.pool.assigned, status.pool.cooling, status.pool.free), (1, 1, 0));
    assert_eq!(status.attachments[0].pod.as_ref().unwrap().name, "web-2");
    assert_eq!(node.add(&key("c3"), "web-3", pods[2].as_fd()).unwrap_err().cause, "pool-exhausted");
}

#[test]
fn whatever_happened_to_the_journal_no_pod_loses_its_lease() {
    for damage in [&b""[..], b"\0\0\0\0\0\0\0\0\0\0\0\0", b"{\"Networks\":{}}\n", b" \n"] {
        let node = Node::new();
        let config = node.static_config(4);
        let daemon = node.start(&config);
        let pod = Netns::create().unwrap();
        let attachment = node.add(&key("c1"), "web-1", pod.as_fd()).unwrap();
        daemon.stop();
        let journal = node.socket().with_file_name("leases.log");
        if damage.is_empty() {
            std::fs::remove_file(&journal).unwrap();
        } else {
            std::fs::write(&journal, damage).unwrap();
        }
        let _daemon = node.start(&config);
        assert!(node.log().contains("the journal is incomplete"), "{}", node.log());
        assert_eq!(node.status().pool.assigned, 1);
        assert_eq!(node.add(&key("c1"), "web-1", pod.as_fd()).unwrap(), attachment);
        assert_eq!(source_seen(&node.netns, &pod, address(&attachment)), Some(NODE_ADDRESS.into()));
    }
}

#[test]
fn a_pod_whose_namespace_dies_gives_its_address_back_without_a_del() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(4));
    let (gone, stays) = (Netns::create().unwrap(), Netns::create().unwrap());
    node.add(&key("c1"), "web-1", gone.as_fd()).unwrap();
    node.add(&key("c2"), "web-2", stays.as_fd()).unwrap();
    drop(gone);
    // By the kernel's event: leases and links are compared after half a minute only.
    eventually("the lease is collected", || node.status().pool.assigned == 1);
    eventually("it is counted", || node.status().collected == 1);
    assert_eq!(node.status().attachments[0].key, key("c2"));
    assert!(node.log().contains("its network namespace is gone"));
}

#[test]
fn a_thousand_sandboxes_of_one_pod_without_a_del_hold_one_live_address() {
    let node = Node::new();
    let source = "source: {kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5-10.240.0.36]}";
    let _daemon = node.start(&node.config(&format!("cooldown: 50ms\n{source}\n")));
    let mut sandbox = Netns::create().unwrap();
    for round in 0..1_000 {
        // The kubelet's retry: a new sandbox of the same pod, the old one just gone.
        sandbox = Netns::create().unwrap();
        let key = key(&format!("c{round}"));
        let begun = Instant::now();
        while let Err(failure) = node.add(&key, "crash-loop", sandbox.as_fd()) {
            assert_eq!(failure.cause, "pool-exhausted", "{failure}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{failure}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    eventually("only the last sandbox holds an address", || node.status().pool.assigned == 1);
    let status = node.status();
    assert_eq!(status.attachments[0].key.container_id, "c999");
    eventually("all are counted", || node.status().collected == 999);
    drop(sandbox);
}

#[test]
fn a_del_that_found_no_daemon_is_applied_at_the_next_start() {
    let node = Node::new();
    let config = node.static_config(4);
    let daemon = node.start(&config);
    let pods = pods(2);
    node.add(&key("c1"), "web-1", pods[0].as_fd()).unwrap();
    let second = node.add(&key("c2"), "web-2", pods[1].as_fd()).unwrap();
    daemon.stop();
    spool(&node, "1", &key("c1"), now_ns());
    let _daemon = node.start(&config);
    assert_eq!(node.status().pool.assigned, 1, "applied before the first caller is served");
    assert!(spooled(&node).is_empty());
    eventually("its link is deleted", || node.pod_links().len() == 1);
    assert_eq!(source_seen(&node.netns, &pods[1], address(&second)), Some(NODE_ADDRESS.into()));
}

#[test]
fn a_spooled_del_from_before_the_node_s_boot_is_in_no_later_pod_s_way() {
    let node = Node::new();
    let config = node.static_config(4);
    node.start(&config).stop();
    // Its clock had run for longer than this boot's.
    spool(&node, "1", &key("c1"), now_ns() + 3_600_000_000_000);
    let _daemon = node.start(&config);
    assert!(spooled(&node).is_empty());
    let pod = Netns::create().unwrap();
    assert!(matches!(node.call(add_started("c1", now_ns()), Some(pod.as_fd())), Reply::Attached(_)));
}

#[test]
fn a_spooled_del_of_a_pod_added_again_since_is_void() {
    let node = Node::new();
    let config = node.static_config(4);
    let daemon = node.start(&config);
    let pod = Netns::create().unwrap();
    let before = now_ns();
    let again =
        Call::Add(Add { key: key("c1"), pod: None, started_ns: Some(now_ns()), asked: Vec::new(), print: None });
    assert!(matches!(node.call(again, Some(pod.as_fd())), Reply::Attached(_)));
    spool(&node, "live", &key("c1"), before);
    eventually("the daemon takes it while it serves", || spooled(&node).is_empty());
    assert_eq!(node.status().pool.assigned, 1);
    // The lease remembers when its ADD was started, also over a restart.
    daemon.signal(Signal::KILL);
    drop(daemon);
    spool(&node, "restart", &key("c1"), before);
    let _daemon = node.start(&config);
    assert!(spooled(&node).is_empty());
    assert_eq!(node.status().pool.assigned, 1);
    spool(&node, "newer", &key("c1"), now_ns());
    eventually("a newer one ends it", || node.status().pool.assigned == 0);
}

#[test]
fn what_is_no_spooled_del_is_set_aside_and_what_is_being_written_is_left_alone() {
    let node = Node::new();
    let directory = node.socket().with_file_name("spool");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("garbage"), b"{\"key\":").unwrap();
    std::fs::write(directory.join("huge"), vec![b' '; 100_000]).unwrap();
    std::fs::write(directory.join(".half"), b"{").unwrap();
    let _daemon = node.start(&node.static_config(4));
    assert_eq!(spooled(&node), [".half"]);
    assert_eq!(std::fs::read_dir(directory.join("bad")).unwrap().count(), 2);
    assert!(node.log().contains("garbage is set aside"), "{}", node.log());
}

#[test]
fn adds_whose_callers_gave_up_while_the_daemon_was_stopped_are_not_carried_out() {
    let node = Node::new();
    let daemon = node.start(&node.static_config(8));
    daemon.pause();
    let pods = pods(6);
    for (n, pod) in pods.iter().enumerate() {
        let caller = node.connect();
        let request = Request::new(add_call(&key(&format!("c{n}")), "web"));
        send(&caller, &encode_request(&request).unwrap(), Some(pod.as_fd()));
    }
    daemon.signal(Signal::CONT);
    // In line behind them.
    assert_eq!(node.status().pool.assigned, 0);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(node.status().pool.assigned, 0);
    assert!(node.pod_links().is_empty());
    drop(pods);
}

#[test]
fn pool_addresses_that_cloud_init_put_on_the_nic_are_one_finding_and_not_lent() {
    let node = Node::new();
    for n in 5..35 {
        ip(&node.netns, &format!("address add 10.240.0.{n}/16 dev eth0"));
    }
    let _daemon = node.start(&node.static_config(30));
    assert_eq!(node.status().pool.reserved, 30);
    let log = node.log();
    let findings: Vec<&str> =
        log.lines().filter(|line| line.contains("apply_network_config_for_secondary_ips")).collect();
    assert_eq!(findings.len(), 1, "{log}");
    assert!(findings[0].contains("30 pool addresses are on eth0"), "{}", findings[0]);
    let pod = Netns::create().unwrap();
    assert_eq!(node.add(&key("c1"), "web", pod.as_fd()).unwrap_err().cause, "pool-exhausted");
}

#[test]
fn with_reclaim_thirty_held_addresses_become_thirty_running_pods() {
    let node = Node::new();
    for n in 5..35 {
        ip(&node.netns, &format!("address add 10.240.0.{n}/16 dev eth0"));
    }
    let config = node.config(
        "cooldown: 200ms\nreclaimNicAddresses: true\nsource: {kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5-10.240.0.34], refresh: 50ms}\n",
    );
    let _daemon = node.start(&config);
    eventually("the addresses are free", || node.status().pool.free == 30);
    let pods = pods(30);
    for (n, pod) in pods.iter().enumerate() {
        let attachment = node.add(&key(&format!("c{n}")), &format!("web-{n}"), pod.as_fd()).unwrap();
        let seen = source_seen(&node.netns, pod, address(&attachment));
        assert_eq!(seen, Some(NODE_ADDRESS.into()), "the node keeps its own address");
    }
    assert_eq!(node.status().pool.assigned, 30);
}

#[test]
fn with_reclaim_the_node_keeps_its_own_address_that_came_behind_a_pool_s() {
    let node = Node::new();
    // The kernel takes all addresses of a network with the first of them, unless it is told otherwise.
    ip(&node.netns, &format!("address del {NODE_ADDRESS}/16 dev eth0"));
    for address in ["10.240.0.5", &NODE_ADDRESS.to_string()] {
        ip(&node.netns, &format!("address add {address}/16 dev eth0"));
    }
    ip(&node.netns, "route replace default via 10.240.0.1 dev eth0");
    let source = "source: {kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5], refresh: 50ms}";
    let _daemon = node.start(&node.config(&format!("cooldown: 0s\nreclaimNicAddresses: true\n{source}\n")));
    eventually("the address is free", || node.status().pool.free == 1);
    assert!(ip(&node.netns, "address show dev eth0").contains(&format!("{NODE_ADDRESS}/16")));
}

#[test]
fn a_pod_whose_link_does_not_say_so_any_more_keeps_its_address() {
    let node = Node::new();
    let source = "source: {kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5-10.240.0.6], refresh: 50ms}";
    let config = node.config(&format!("cooldown: 0s\n{source}\n"));
    let daemon = node.start(&config);
    let pods = pods(3);
    let first = node.add(&key("c1"), "web-1", pods[0].as_fd()).unwrap();
    drop(daemon);
    ip(&node.netns, &format!("link set {} alias dotfour/9", first.host_ifname));
    let _daemon = node.start(&config);
    let second = node.add(&key("c2"), "web-2", pods[1].as_fd()).unwrap();
    assert_ne!(address(&second), address(&first));
    assert_eq!(node.add(&key("c3"), "web-3", pods[2].as_fd()).unwrap_err().cause, "pool-exhausted");
}

/// Has 10.240.0.5, behind the link `azvold`, as azure-vnet leaves its pods.
fn add_somebody_else_s_pod(node: &Node) {
    ip(&node.netns, "link add azvold type veth peer name oldpod");
    ip(&node.netns, "link set azvold up");
    ip(&node.netns, "route add 10.240.0.5/32 dev azvold proto static");
}

#[test]
fn an_address_whose_other_use_ended_while_nobody_looked_rests() {
    let node = Node::new();
    add_somebody_else_s_pod(&node);
    let source = "source: {kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5]}";
    let config = node.config(&format!("cooldown: 10m\ncooldownFloor: 10m\n{source}\n"));
    for _ in 0..2 {
        let daemon = node.start(&config);
        assert_eq!(node.status().pool.reserved, 1, "in use, it does not only rest");
        drop(daemon);
    }
    ip(&node.netns, "link delete azvold");
    let _daemon = node.start(&config);
    assert_eq!(node.status().pool.cooling, 1);
}

#[test]
fn an_address_routed_to_somebody_else_s_pod_is_reserved_until_that_pod_is_gone() {
    let node = Node::new();
    add_somebody_else_s_pod(&node);
    let source = "source: {kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5-10.240.0.6], refresh: 50ms}";
    let config = node.config(&format!("cooldown: 6s\n{source}\n"));
    let daemon = node.start(&config);
    let pods = pods(2);
    assert_eq!(address(&node.add(&key("c1"), "web-1", pods[0].as_fd()).unwrap()).to_string(), "10.240.0.6");
    assert_eq!(node.add(&key("c2"), "web-2", pods[1].as_fd()).unwrap_err().cause, "pool-exhausted");
    assert!(node.log().contains("routed to azvold"), "{}", node.log());
    ip(&node.netns, "link delete azvold");
    // Its connections may still be alive.
    eventually("it rests", || node.status().pool.cooling == 1);
    daemon.signal(Signal::KILL);
    drop(daemon);
    let _daemon = node.start(&config);
    assert_eq!(node.status().pool.cooling, 1, "on record too");
    assert_eq!(node.add(&key("c2"), "web-2", pods[1].as_fd()).unwrap_err().cause, "pool-exhausted");
    eventually("it is free again", || node.add(&key("c2"), "web-2", pods[1].as_fd()).is_ok());
}

#[test]
fn with_every_address_resting_the_oldest_is_lent_after_the_floor() {
    let node = Node::new();
    let source = "source: {kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5]}";
    let _daemon = node.start(&node.config(&format!("cooldown: 10m\ncooldownFloor: 3s\n{source}\n")));
    let pods = pods(2);
    node.add(&key("c1"), "web-1", pods[0].as_fd()).unwrap();
    node.del(&key("c1"));
    assert_eq!(node.add(&key("c2"), "web-2", pods[1].as_fd()).unwrap_err().cause, "pool-exhausted");
    eventually("the oldest is lent", || node.add(&key("c2"), "web-2", pods[1].as_fd()).is_ok());
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_burst_leaks_nothing() {
    let node = Arc::new(Node::new());
    let config = node
        .config("cooldown: 0s\nsource: {kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5-10.240.0.104]}\n");
    for round in 0..5_u64 {
        let daemon = node.start(&config);
        let pods = pods(40);
        std::thread::scope(|scope| {
            for (worker, pods) in pods.chunks(10).enumerate() {
                let node = Arc::clone(&node);
                scope.spawn(move || {
                    for (n, pod) in pods.iter().enumerate() {
                        let request = Request::new(add_call(&key(&format!("r{round}-{worker}-{n}")), "web"));
                        // The daemon may be gone by now.
                        let Some(caller) = node.try_connect() else { return };
                        crate::support::try_call(&caller, &encode_request(&request).unwrap(), pod.as_fd());
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(5 + 7 * round));
            daemon.signal(Signal::KILL);
        });
        drop(daemon);
        let daemon = node.start(&config);
        let status = node.status();
        let links = node.pod_links();
        assert_eq!(status.pool.assigned, links.len(), "a lease for every link and no other");
        let mut addresses: Vec<_> =
            status.attachments.iter().flat_map(|attachment| attachment.addresses.clone()).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), links.len());
        drop(pods);
        eventually("all are collected", || node.status().pool.free == 100);
        daemon.stop();
    }
}

#[test]
fn an_address_is_lent_again_only_after_its_rest_also_over_a_kill() {
    let node = Node::new();
    let config = one_address(&node);
    let daemon = node.start(&config);
    let pods = pods(2);
    node.add(&key("c1"), "web-1", pods[0].as_fd()).unwrap();
    node.del(&key("c1"));
    daemon.signal(Signal::KILL);
    drop(daemon);
    let _daemon = node.start(&config);
    assert_eq!(node.status().pool.cooling, 1);
    assert_eq!(node.add(&key("c2"), "web-2", pods[1].as_fd()).unwrap_err().cause, "pool-exhausted");
}
