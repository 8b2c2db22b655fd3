//! Beside the rules of others, and under re-application.

use std::sync::atomic::AtomicBool;

use dotfour_ipamd::config::{Masquerade, Metadata};
use dotfour_ipamd::rules::apply::Nft;
use dotfour_ipamd::rules::plan::{Inputs, plan};
use dotfour_ipamd::rules::table::Content;

use super::*;
use crate::support::NODE_ADDRESS;

/// Rules of the shape kube-proxy writes: one service whose endpoint is in the VNet, one whose endpoint is not.
const KUBE_PROXY: &str = "*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -m comment --comment services -j KUBE-SERVICES
-A POSTROUTING -m comment --comment postrouting -j KUBE-POSTROUTING
-A KUBE-SERVICES -d 10.0.0.10/32 -p udp -m udp --dport 7007 -j DNAT --to-destination 10.240.9.9:7007
-A KUBE-SERVICES -d 10.0.0.11/32 -p udp -m udp --dport 7007 -j DNAT --to-destination 203.0.113.9:7007
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
";

/// The same in the words of kube-proxy's nftables mode.
const KUBE_PROXY_NFTABLES: &str = "add table ip kube-proxy
flush table ip kube-proxy
table ip kube-proxy {
  chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept;
    ip daddr 10.0.0.10 udp dport 7007 dnat to 10.240.9.9:7007
    ip daddr 10.0.0.11 udp dport 7007 dnat to 203.0.113.9:7007
  }
  chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept;
    mark and 0x4000 == 0 return
    meta mark set mark xor 0x4000 masquerade fully-random
  }
}
";

#[test]
fn rules_of_kube_proxy_s_and_ours_stay_as_they_are_and_work_together_whoever_comes_first() {
    for (restore, save, text) in [
        ("iptables-legacy-restore", "iptables-legacy-save", KUBE_PROXY),
        ("iptables-nft-restore", "iptables-nft-save", KUBE_PROXY),
        ("nft -f -", "nft list table ip kube-proxy", KUBE_PROXY_NFTABLES),
    ] {
        for theirs_first in [true, false] {
            let case = format!("{restore}, theirs first: {theirs_first}");
            let node = node_in_a_world();
            let load = || run(&node.netns, &format!("{restore} <<'END'\n{text}END"));
            let theirs = || {
                let saved = run(&node.netns, save);
                let lasting = saved.lines().filter(|line| !line.starts_with(['#', ':']));
                lasting.map(str::to_owned).collect::<Vec<_>>()
            };
            if theirs_first {
                load();
            }
            let _daemon = node.start(&config(&node, "masquerade: {vnetCidr: 10.240.0.0/16}"));
            let (pod, own) = add(&node, "one");
            if !theirs_first {
                load();
            }
            let (before, ours) = (theirs(), table(&node));
            let seen = |service: &str, endpoint: &str| {
                let receiver = receiver(&node.wire, ip(endpoint), 7007);
                pod.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"who", (service, 7007)).unwrap()).unwrap();
                receiver.recv_from(&mut [0; 4]).ok().map(|(_, source)| source.ip())
            };
            for again in 0..3 {
                assert_eq!(seen("10.0.0.10", ELSEWHERE), Some(own), "{case}, {again}");
                assert_eq!(seen("10.0.0.11", INTERNET), Some(NODE_ADDRESS.into()), "{case}, {again}");
                load();
                assert_eq!(theirs(), before, "{case}, {again}");
                assert_eq!(table(&node), ours, "{case}, {again}: ours are untouched");
            }
            run(&node.netns, "nft delete table inet dotfour");
            eventually("ours are back", || applies(&node, "restored", "ok") >= 1.0);
            assert_eq!(theirs(), before, "{case}: theirs are untouched");
        }
    }
}

#[test]
fn a_chain_that_the_ip_masq_agent_left_is_reported_and_left_alone() {
    for program in ["iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"] {
        let node = node_in_a_world();
        run(&node.netns, &format!("{program} -w 5 -t nat -N IP-MASQ-AGENT"));
        let _daemon = node.start(&config(&node, "masquerade: {vnetCidr: 10.240.0.0/16}"));
        eventually("it is reported", || node.log().contains(&format!(" {program} has a chain IP-MASQ-AGENT")));
        run(&node.netns, &format!("{program} -w 5 -t nat -S IP-MASQ-AGENT"));
    }
}

#[test]
fn no_packet_has_a_wrong_source_while_rules_are_applied_again_and_again() {
    const TIMES: u32 = 300;
    let node = node_in_a_world();
    let _daemon = node.start(&config(&node, "masquerade: {vnetCidr: 10.240.0.0/16}"));
    let (pod, own) = add(&node, "one");
    // Ports come round; a connection before must be forgotten by then.
    run(&node.netns, "echo 1 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout");
    let receivers = [ELSEWHERE, INTERNET, IMDS].map(|host| receiver(&node.wire, ip(host), 7010));
    let contents = ["198.51.100.0/24", "198.51.100.0/25"].map(|other| {
        let masquerade = Masquerade {
            vnet_cidrs: vec!["10.240.0.0/16".parse().unwrap(), other.parse().unwrap()],
            ..Masquerade::default()
        };
        let inputs = Inputs {
            masquerade: &masquerade,
            metadata: Metadata::Allow,
            agent: None,
            nic: "eth0",
            node: NODE_ADDRESS,
            node_v6: None,
            azure_pods: &["10.240.0.0/16".parse().unwrap()],
            kubenet_pods: &[],
        };
        Content::of(&plan(&inputs).plan)
    });
    let done = AtomicBool::new(false);
    let packets = std::thread::scope(|scope| {
        let done = &done;
        // The daemon puts its own back meanwhile, which is one more.
        scope.spawn(move || {
            let applied = node.netns.run(|| {
                let nft = Nft::find().unwrap();
                for content in contents.iter().cycle().take(TIMES as usize) {
                    // It fails if the daemon's transaction comes between the look and the change.
                    let _ = nft.outline().and_then(|present| nft.apply(content, present.as_ref()));
                }
            });
            done.store(true, Ordering::Relaxed);
            applied.unwrap();
        });
        let sent = pod.run(|| {
            let mut sent = 0_u32;
            while !done.load(Ordering::Relaxed) {
                let hosts = [(ELSEWHERE, own), (INTERNET, NODE_ADDRESS.into()), (IMDS, NODE_ADDRESS.into())];
                for ((host, expected), receiver) in hosts.into_iter().zip(&receivers) {
                    UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"who", (host, 7010)).unwrap();
                    let (_, source) = receiver.recv_from(&mut [0; 4]).expect("a packet was lost");
                    assert_eq!(source.ip(), expected, "{host} after {sent} packets");
                    sent += 1;
                }
            }
            sent
        });
        sent.unwrap()
    });
    println!("{packets} packets from ever other ports under {TIMES} re-applications");
    assert!(packets > TIMES);
}

#[test]
fn a_plan_for_both_modes_and_both_families_is_what_nft_then_lists() {
    let node = Node::new();
    let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    let masquerade = Masquerade {
        vnet_cidrs: networks(&["10.240.0.0/16", "fd00:240::/48"]),
        cluster_cidrs: networks(&["10.244.0.0/16", "fd00:244::/56"]),
        config_dir: None,
    };
    let inputs = Inputs {
        masquerade: &masquerade,
        metadata: Metadata::Block,
        agent: None,
        nic: "eth0",
        node: NODE_ADDRESS,
        node_v6: None,
        azure_pods: &networks(&["10.240.0.0/16", "fd00:240::/64"]),
        kubenet_pods: &networks(&["10.244.3.0/24", "fd00:244:0:3::/64"]),
    };
    let content = Content::of(&plan(&inputs).plan);
    let found = node.netns.run(|| {
        let nft = Nft::find().unwrap();
        nft.apply(&content, None).unwrap();
        // Again, over what is there.
        nft.apply(&content, nft.outline().unwrap().as_ref()).unwrap();
        nft.outline().unwrap().unwrap()
    });
    assert_eq!(found.unwrap(), content.outline());
    let kubenet = run(&node.netns, "nft list set inet dotfour kubenet_exempt4");
    assert!(kubenet.contains("10.244.0.0/16") && !kubenet.contains("10.240.0.0/16"), "{kubenet}");
    let azure = run(&node.netns, "nft list set inet dotfour azure_exempt6");
    assert!(azure.contains("fd00:240::/48") && azure.contains("fd00:244::/56"), "{azure}");
}

#[test]
fn a_forward_chain_that_drops_is_reported_at_the_start_and_left_alone() {
    let node = Node::new();
    let foreign = "table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; }; }; \
                   table inet docker { chain open { type filter hook forward priority filter; policy accept; }; }";
    run(&node.netns, &format!("nft '{foreign}'"));
    let before = run(&node.netns, "nft list chain ip filter FORWARD");
    let _daemon = node.start(&node.static_config(8));
    eventually("the chain is reported", || node.log().contains("chain FORWARD of ip filter drops"));
    assert!(!node.log().contains("inet docker"), "{}", node.log());
    assert_eq!(run(&node.netns, "nft list chain ip filter FORWARD"), before);
}

#[test]
fn a_forward_chain_is_reported_although_legacy_iptables_cannot_be_asked() {
    let node = Node::new();
    run(&node.netns, "nft 'table ip closed { chain shut { type filter hook forward priority 0; policy drop; }; }'");
    run(&node.netns, "iptables-legacy -w 5 -P FORWARD DROP");
    node.put_tool("iptables-legacy", "echo it is broken >&2; exit 1");
    let _daemon = node.start(&node.static_config(8));
    eventually("what cannot be read is told", || node.log().contains("iptables-legacy: it is broken"));
    eventually("the chain is reported", || node.log().contains("chain shut of ip closed drops"));
}
