//! CHECK, GC and STATUS against the real kernel.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use dotfour_datapath::Netns;
use dotfour_protocol::{Add, Call, Check, Failure, Gc, Reply, ValidAttachment};

use crate::leases::now_ns;
use crate::support::{Node, address, eventually, ip, key};

/// Longer than the time for which GC spares an attachment.
const LONG_AGO: Duration = Duration::from_secs(61);

fn check(node: &Node, id: &str, addresses: Vec<IpAddr>, pod: &Netns) -> Result<(), Failure> {
    match node.call(Call::Check(Check { key: key(id), addresses, delegated: false }), Some(pod.as_fd())) {
        Reply::Checked => Ok(()),
        Reply::Failed(failure) => Err(failure),
        other => panic!("{other:?}"),
    }
}

/// Adds a pod whose ADD was started so long ago.
fn add_ago(node: &Node, id: &str, pod: &Netns, ago: Duration) {
    let started_ns = now_ns() - u64::try_from(ago.as_nanos()).unwrap();
    let add = Add { key: key(id), pod: None, started_ns: Some(started_ns), asked: Vec::new(), print: None };
    let reply = node.call(Call::Add(add), Some(pod.as_fd()));
    assert!(matches!(reply, Reply::Attached(_)), "{reply:?}");
}

fn gc(node: &Node, valid: &[&str]) {
    let valid = valid.iter().map(|id| ValidAttachment { container_id: (*id).into(), ifname: "eth0".into() }).collect();
    let reply = node.call(Call::Gc(Gc { network: "azure".into(), valid }), None);
    assert!(matches!(reply, Reply::Collected), "{reply:?}");
}

fn ids(node: &Node) -> Vec<String> {
    let mut ids: Vec<_> = node.status().attachments.into_iter().map(|status| status.key.container_id).collect();
    ids.sort();
    ids
}

#[test]
fn check_passes_after_add_and_names_whatever_is_changed() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(8));
    let pod = Netns::create().unwrap();
    let added = node.add(&key("c1"), "web-1", pod.as_fd()).unwrap();
    let (link, held) = (added.host_ifname.clone(), vec![address(&added)]);
    assert_eq!(check(&node, "c1", held.clone(), &pod), Ok(()));

    let on_node = &node.netns;
    // Each change, what CHECK says of it, and what it says to run.
    let changes = [
        (on_node, format!("route del 10.240.0.5/32 dev {link}"), "the route 10.240.0.5/32"),
        (on_node, format!("neighbour del 10.240.0.5 dev {link}"), "the neighbour entry 10.240.0.5"),
        (on_node, format!("link set {link} mtu 1300"), "the MTU of azv"),
        (on_node, format!("link set {link} address 02:00:00:00:00:01"), "the MAC address of azv"),
        (&pod, "route del default".to_owned(), "the route 0.0.0.0/0 via 169.254.1.1 dev eth0"),
        (&pod, "neighbour del 169.254.1.1 dev eth0".to_owned(), "the neighbour entry 169.254.1.1"),
        (&pod, "link set eth0 mtu 1600".to_owned(), "the MTU of eth0"),
    ];
    for (namespace, change, says) in changes {
        ip(namespace, &change);
        let failure = check(&node, "c1", held.clone(), &pod).expect_err(&change);
        assert_eq!((failure.code, failure.cause.as_str()), (106, "attachment-differs"), "{change}");
        assert!(failure.message.starts_with(says), "{change}: {}", failure.message);
        // The fixes that it names are some. A new MAC address costs a link its neighbours, so there may be two.
        let mut next = Err(failure);
        for _ in 0..2 {
            let Err(failure) = &next else { break };
            let (_, fix) = failure.next_step.split_once("run: ip ").expect(&change);
            ip(namespace, fix);
            next = check(&node, "c1", held.clone(), &pod);
        }
        assert_eq!(next, Ok(()), "after {change}");
    }
    // Whatever is inside, the pod was not touched.
    ip(&pod, "link set eth0 down");
    assert!(check(&node, "c1", held.clone(), &pod).unwrap_err().message.starts_with("the link eth0 is down"));
    ip(on_node, &format!("link del {link}"));
    let gone = check(&node, "c1", held, &pod).unwrap_err();
    assert!(gone.code == 106 || gone.code == 3, "{gone}");
}

#[test]
fn check_refuses_what_add_did_not_make() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(8));
    let (pod, other) = (Netns::create().unwrap(), Netns::create().unwrap());
    let held = vec![address(&node.add(&key("c1"), "web-1", pod.as_fd()).unwrap())];
    assert_eq!(check(&node, "c2", held.clone(), &pod).unwrap_err().code, 3);
    let failure = check(&node, "c1", vec!["10.240.0.9".parse().unwrap()], &pod).unwrap_err();
    assert!(failure.message.contains("10.240.0.5, which prevResult does not name"), "{failure}");
    let failure = check(&node, "c1", held.clone(), &other).unwrap_err();
    assert!(failure.message.starts_with("the link eth0 is missing in the pod's namespace"), "{failure}");
    let Reply::Failed(failure) =
        node.call(Call::Check(Check { key: key("c1"), addresses: held, delegated: false }), None)
    else {
        panic!("a CHECK without a namespace passed");
    };
    assert_eq!(failure.cause, "protocol-mismatch");
}

#[test]
fn gc_ends_what_is_not_listed_and_older_than_the_grace_and_nothing_else() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(8));
    let pods: Vec<Netns> = (0..4).map(|_| Netns::create().unwrap()).collect();
    add_ago(&node, "listed", &pods[0], LONG_AGO);
    add_ago(&node, "stale", &pods[1], LONG_AGO);
    add_ago(&node, "young", &pods[2], Duration::ZERO);
    let mut elsewhere = key("elsewhere");
    elsewhere.network = "other".into();
    let started_ns = now_ns() - u64::try_from(LONG_AGO.as_nanos()).unwrap();
    let add = Add { key: elsewhere, pod: None, started_ns: Some(started_ns), asked: Vec::new(), print: None };
    assert!(matches!(node.call(Call::Add(add), Some(pods[3].as_fd())), Reply::Attached(_)));

    gc(&node, &["listed", "nobody"]);
    assert_eq!(ids(&node), ["elsewhere", "listed", "young"]);
    // As DEL does it: off the network, and the address rests.
    assert_eq!(node.status().pool.cooling, 1);
    eventually("the link is buried", || node.pod_links().len() == 3);
    gc(&node, &["listed", "nobody"]);
    assert_eq!(ids(&node), ["elsewhere", "listed", "young"]);
    gc(&node, &[]);
    assert_eq!(ids(&node), ["elsewhere", "young"]);
    assert!(node.log().contains("GC: the runtime does not know it"), "{}", node.log());
}

#[test]
fn a_node_whose_pool_is_exhausted_is_still_ready() {
    let node = Node::new();
    let _daemon = node.start(&node.static_config(1));
    let (one, two) = (Netns::create().unwrap(), Netns::create().unwrap());
    node.add(&key("c1"), "web-1", one.as_fd()).unwrap();
    assert!(node.add(&key("c2"), "web-2", two.as_fd()).is_err());
    assert!(matches!(node.call(Call::Ready, None), Reply::Ready));
}
