//! Several interfaces in one pod, as a meta plugin asks for them.

use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use dotfour_datapath::Netns;
use dotfour_protocol::{Attachment, AttachmentKey, Call, Check, Reply};

use crate::support::{Node, address, ip, key, receiver};

const SOURCE: &str = "cooldown: 200ms\nsource: {kind: static, subnet: [10.240.0.0/16, fd00::/64], \
                      addresses: [10.240.0.5-10.240.0.12, fd00::5-fd00::c]}\n";

fn key_of(ifname: &str) -> AttachmentKey {
    AttachmentKey { ifname: ifname.into(), ..key("pod") }
}

fn check(node: &Node, ifname: &str, attachment: &Attachment, pod: &Netns) -> Reply {
    let addresses = attachment.addresses.iter().map(|address| address.address.addr()).collect();
    node.call(Call::Check(Check { key: key_of(ifname), addresses, delegated: false }), Some(pod.as_fd()))
}

/// Asks every address of an attachment from the node, whose packets are answered only if they find the way back: the
/// answer has to come from the address that was asked.
fn answers(node: &Node, pod: &Netns, attachment: &Attachment) {
    for asked in attachment.addresses.iter().map(|address| address.address.addr()) {
        let any: IpAddr = if asked.is_ipv4() { [0, 0, 0, 0].into() } else { [0; 16].into() };
        let server = receiver(pod, asked, 7008);
        let client = node.netns.run(|| UdpSocket::bind((any, 0)).unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        client.send_to(b"?", (asked, 7008)).unwrap();
        let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
        server.send_to(b"!", from).unwrap();
        let (_, from) = client.recv_from(&mut [0; 8]).unwrap_or_else(|e| panic!("{asked} does not answer: {e}"));
        assert_eq!(from.ip(), asked);
    }
}

#[test]
fn every_interface_answers_by_itself_until_it_is_deleted() {
    let node = Node::new().with_ipv6();
    let _daemon = node.start(&node.config(SOURCE));
    let pod = Netns::create().unwrap();
    let names = ["eth0", "net1", "net2"];
    let given: Vec<Attachment> =
        names.iter().map(|name| node.add(&key_of(name), "web", pod.as_fd()).unwrap()).collect();
    for (name, attachment) in names.iter().zip(&given) {
        answers(&node, &pod, attachment);
        assert_eq!(check(&node, name, attachment, &pod), Reply::Checked, "{name}");
        assert_eq!(node.add(&key_of(name), "web", pod.as_fd()).as_ref(), Ok(attachment), "again");
    }
    assert_eq!(given[0].routes.len(), 4);
    assert_eq!(given[1].routes, [], "the routes of a further interface are not the pod's");

    // The first one goes, and the others stay.
    node.del(&key_of("eth0"));
    given[1..].iter().for_each(|attachment| answers(&node, &pod, attachment));
    node.del(&key_of("net1"));
    answers(&node, &pod, &given[2]);
    node.del(&key_of("net2"));
    node.wait_until_clean();
    assert_eq!(node.status().pool.assigned, 0);
}

#[test]
fn an_interface_beside_another_plugin_s_leaves_that_one_its_default_route() {
    let node = Node::new().with_ipv6();
    let _daemon = node.start(&node.config(SOURCE));
    let pod = Netns::create().unwrap();
    ip(&pod, "link add eth0 type veth peer name other");
    ip(&pod, "link set eth0 up");
    ip(&pod, "link set other up");
    ip(&pod, "address add 192.0.2.2/24 dev eth0");
    ip(&pod, "route add default via 192.0.2.1");
    let before = ip(&pod, "-4 route");
    let attachment = node.add(&key_of("net1"), "web", pod.as_fd()).unwrap();
    assert_eq!(ip(&pod, "-4 route"), before);
    answers(&node, &pod, &attachment);
}

#[test]
fn a_rule_or_route_that_is_missing_is_named_with_the_command_that_mends_it() {
    let node = Node::new().with_ipv6();
    let _daemon = node.start(&node.config(SOURCE));
    let pod = Netns::create().unwrap();
    node.add(&key_of("eth0"), "web", pod.as_fd()).unwrap();
    let attachment = node.add(&key_of("net1"), "web", pod.as_fd()).unwrap();
    let own = address(&attachment);
    for broken in [format!("-4 rule del from {own}"), "-6 rule del from fd00::6".to_owned()] {
        ip(&pod, &broken);
        let Reply::Failed(failure) = check(&node, "net1", &attachment, &pod) else { panic!("not noticed") };
        assert_eq!(failure.cause, "attachment-differs");
        let (_, fix) = failure.next_step.split_once("run: ip ").unwrap();
        assert!(failure.message.contains("rule from"), "{failure}");
        ip(&pod, fix.split([';', '\n']).next().unwrap());
        assert_eq!(check(&node, "net1", &attachment, &pod), Reply::Checked, "after {fix}");
    }
    let table = ip(&pod, &format!("-4 rule show from {own}"));
    let table = table.split_whitespace().skip_while(|word| *word != "lookup").nth(1).unwrap().to_owned();
    ip(&pod, &format!("route del default table {table}"));
    let Reply::Failed(failure) = check(&node, "net1", &attachment, &pod) else { panic!("not noticed") };
    assert!(failure.message.contains(&format!("table {table}")), "{failure}");
}

#[test]
fn what_a_deleted_interface_left_is_not_in_the_way_of_the_next() {
    let node = Node::new().with_ipv6();
    let _daemon = node.start(&node.config(SOURCE));
    let pod = Netns::create().unwrap();
    for round in 0..6 {
        // At once, while the janitor still has the link of the one before: each must be the pod's first.
        let name = ["eth0", "net1", "net2"][round % 3];
        let attachment = node.add(&key_of(name), "web", pod.as_fd()).unwrap();
        assert_eq!(attachment.routes.len(), 4, "round {round}");
        answers(&node, &pod, &attachment);
        node.del(&key_of(name));
    }
    // A further interface's rule stays in the namespace, and the next with the address replaces it.
    node.add(&key_of("eth0"), "web", pod.as_fd()).unwrap();
    for round in 0..6 {
        let attachment = node.add(&key_of("net1"), "web", pod.as_fd()).unwrap();
        assert_eq!(attachment.routes, [], "round {round}");
        answers(&node, &pod, &attachment);
        node.del(&key_of("net1"));
        std::thread::sleep(Duration::from_millis(250));
    }
}
