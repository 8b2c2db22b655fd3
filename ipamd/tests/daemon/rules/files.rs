//! The ip-masq-agent's files, while the daemon runs.

use super::*;
use crate::support::NODE_ADDRESS;

#[test]
fn a_changed_file_is_in_force_within_two_seconds_and_a_bad_one_changes_nothing() {
    let node = node_in_a_world();
    let config = config(&node, "masquerade: {configDir: CONFIG}");
    let root = node.directory.path().join("config");
    // As kubelet mounts a ConfigMap.
    let publish = |version: &str, text: &str| {
        fs::create_dir(root.join(version)).unwrap();
        fs::write(root.join(version).join("ip-masq-agent"), text).unwrap();
        std::os::unix::fs::symlink(version, root.join("..new")).unwrap();
        fs::rename(root.join("..new"), root.join("..data")).unwrap();
    };
    publish("..1", "nonMasqueradeCIDRs: [10.240.0.0/16]");
    std::os::unix::fs::symlink("..data/ip-masq-agent", root.join("ip-masq-agent")).unwrap();
    let daemon = node.start(&config);
    let (pod, own) = add(&node, "one");
    let peer_sees = || source_seen(&pod, &node.wire, ip(PEER));
    assert_eq!(peer_sees(), Some(NODE_ADDRESS.into()));

    let (soon, mut tries) = (Duration::from_secs(2), 0);
    let took = quickest(soon, || {
        tries += 1;
        publish(&format!("..without-{tries}"), "nonMasqueradeCIDRs: [10.240.0.0/16]");
        eventually("the peer sees the node", || peer_sees() == Some(NODE_ADDRESS.into()));
        publish(&format!("..with-{tries}"), "nonMasqueradeCIDRs: [10.240.0.0/16, 10.9.0.0/16]");
        time_until("the peer sees the pod", || peer_sees() == Some(own))
    });
    assert!(took < soon, "a swapped symlink is in force after {took:?}");
    println!("a ConfigMap's change is in force after {took:?}");

    write(&node, "ip-masq-agent-config-mine", "nonMasqueradeCIDRs: [10.240.0.1/16]");
    eventually("the bad file is counted", || metric(&node, "dotfour_masquerade_bad_files") == 1.0);
    eventually("it is told", || node.log().contains("ip-masq-agent-config-mine: 10.240.0.1/16 has host bits set"));
    assert_eq!(peer_sees(), Some(own));

    // The good one changes meanwhile; the last good rules are those of when all were good, after a restart too.
    publish("..3", "nonMasqueradeCIDRs: [10.240.0.0/16]");
    daemon.stop();
    run(&node.netns, "nft flush ruleset");
    let _daemon = node.start(&config);
    assert_eq!(metric(&node, "dotfour_masquerade_bad_files"), 1.0);
    assert_eq!(peer_sees(), Some(own));

    write(&node, "ip-masq-agent-config-mine", "{}");
    eventually("the peer sees the node", || peer_sees() == Some(NODE_ADDRESS.into()));
    assert_eq!(metric(&node, "dotfour_masquerade_bad_files"), 0.0, "{}", node.log());
    assert!(node.log().contains("exempts no destination"), "{}", node.log());
}

#[test]
fn ten_thousand_cidrs_are_in_force_soon_and_cost_one_look_up() {
    let node = node_in_a_world();
    let config = config(&node, "masquerade: {configDir: CONFIG}");
    let list: Vec<String> = (0..10_000).map(|n| format!("- 11.{}.{}.0/25\n", n / 256, n % 256)).collect();
    write(&node, "ip-masq-agent", &format!("nonMasqueradeCIDRs:\n- 10.240.0.0/16\n{}", list.concat()));
    let begun = Instant::now();
    let daemon = node.start(&config);
    let first = begun.elapsed();
    assert_eq!(run(&node.netns, "nft list set inet dotfour azure_exempt4").matches("/25").count(), 10_000);
    assert_eq!(run(&node.netns, "nft list chain inet dotfour azure").matches("exempt").count(), 4);
    daemon.stop();
    let begun = Instant::now();
    let _daemon = node.start(&config);
    println!("10,000 CIDRs: serving after {first:?}, and after {:?} where they are in force already", begun.elapsed());
    for line in node.log().lines().filter(|line| line.contains("is in force")) {
        println!("{line}");
    }
    let (pod, _) = add(&node, "one");
    assert_eq!(source_seen(&pod, &node.wire, ip(INTERNET)), Some(NODE_ADDRESS.into()));
}

#[test]
fn a_repair_that_crowds_out_the_kernel_s_word_of_others_does_not_lead_to_another_and_another() {
    let node = node_in_a_world();
    let config = config(&node, "masquerade: {configDir: CONFIG}");
    // More than there is room for where nobody has the privilege to ask for more, as in a user's own namespace.
    let list: Vec<String> = (0..1500).map(|n| format!("- 11.{}.{}.0/25\n", n / 256, n % 256)).collect();
    write(&node, "ip-masq-agent", &format!("nonMasqueradeCIDRs:\n- 10.240.0.0/16\n{}", list.concat()));
    let _daemon = node.start(&config);
    run(&node.netns, "nft flush set inet dotfour azure_exempt4");
    eventually("it is repaired", || applies(&node, "restored", "ok") >= 1.0);
    std::thread::sleep(Duration::from_secs(2));
    assert!(applies(&node, "restored", "ok") <= 2.0, "{}", node.log());
    assert_eq!(run(&node.netns, "nft list set inet dotfour azure_exempt4").matches("/25").count(), 1500);
}
