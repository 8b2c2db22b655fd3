//! The table stays as planned, whatever others do to it, and is not written without need.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;

use super::*;
use crate::support::NODE_ADDRESS;

#[test]
fn whoever_removes_or_changes_rules_of_ours_finds_them_back_within_a_second_and_strangers_untouched() {
    let node = node_in_a_world();
    let _daemon = node.start(&config(&node, "masquerade: {vnetCidr: 10.240.0.0/16}"));
    let (pod, pod_address) = add(&node, "one");
    let stranger = "table ip stranger { set s { type ipv4_addr; elements = { 1.2.3.4 }; }; }";
    let as_planned = without_handles(&table(&node));
    let (mut slowest, mut repairs) = (Duration::ZERO, 0_u32);
    let soon = Duration::from_secs(1);
    for harm in [
        "nft flush ruleset",
        "nft delete table inet dotfour",
        "nft flush chain inet dotfour postrouting",
        "nft add rule inet dotfour postrouting accept",
        "nft insert rule inet dotfour guard accept comment '\"pods and the wireserver\"'",
        "nft add chain inet dotfour more '{ type filter hook forward priority 0; }'",
        "nft add counter inet dotfour theirs",
        "nft 'add table inet dotfour { flags dormant; }'",
        "nft flush set inet dotfour azure_exempt4",
        "nft add element inet dotfour azure_exempt4 '{ 203.0.113.0/24 }'",
        "nft 'flush ruleset; table ip other { chain c { }; }'",
    ] {
        let took = quickest(soon, || {
            repairs += 1;
            run(&node.netns, harm);
            let took = time_until(harm, || {
                let list = ["-a", "-s", "list", "table", "inet", "dotfour"];
                let listed = node.netns.run(|| Command::new("nft").args(list).output());
                without_handles(&String::from_utf8(listed.unwrap().unwrap().stdout).unwrap()) == as_planned
            });
            // By then it is ready for the next.
            eventually("it is counted", || applies(&node, "restored", "ok") >= f64::from(repairs));
            took
        });
        slowest = slowest.max(took);
        assert!(took < soon, "{harm}: back after {took:?}");
        run(&node.netns, &format!("nft '{stranger}'"));
        assert_eq!(source_seen(&pod, &node.wire, ip(INTERNET)), Some(NODE_ADDRESS.into()), "{harm}");
        assert_eq!(source_seen(&pod, &node.wire, ip(ELSEWHERE)), Some(pod_address), "{harm}");
    }
    assert!(run(&node.netns, "nft list table ip stranger").contains("1.2.3.4"));
    println!("back after at most {slowest:?}");
}

fn without_handles(listing: &str) -> String {
    listing.lines().map(|line| line.split(" # handle").next().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_others_do_to_their_own_tables_makes_us_write_nothing() {
    let node = node_in_a_world();
    let _daemon = node.start(&config(&node, ""));
    let before = table(&node);
    for _ in 0..20 {
        run(&node.netns, "nft 'table inet dotfour2 { chain c { }; }; table ip dotfour { chain c { }; }'");
        run(&node.netns, "nft 'delete table inet dotfour2; delete table ip dotfour'");
    }
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(table(&node), before);
    assert_eq!(applies(&node, "restored", "ok"), 0.0);
}

#[test]
fn a_daemon_that_finds_its_rules_in_force_writes_nothing_and_one_with_other_rules_does() {
    let node = node_in_a_world();
    let daemon = node.start(&config(&node, "masquerade: {vnetCidr: 10.240.0.0/16}"));
    assert_eq!(applies(&node, "start", "ok"), 1.0);
    run(&node.netns, "nft 'reset counters table inet dotfour' >/dev/null");
    let before = table(&node);
    daemon.stop();
    assert_eq!(table(&node), before, "rules stay when the daemon ends");
    let daemon = node.start(&config(&node, "masquerade: {vnetCidrs: [10.240.0.0/17, 10.240.128.0/17]}"));
    assert_eq!(applies(&node, "start", "ok"), 0.0);
    assert_eq!(table(&node), before);
    daemon.stop();
    // Another version of this program, or somebody while there was none.
    run(
        &node.netns,
        "nft 'add chain inet dotfour old { type nat hook postrouting priority 5; }; \
                      add set inet dotfour stale { type mark; }; add rule inet dotfour old meta mark @stale accept'",
    );
    let _daemon = node.start(&config(&node, "masquerade: {vnetCidr: 10.0.0.0/8}\nmetadata: block"));
    assert_eq!(applies(&node, "start", "ok"), 1.0);
    let after = table(&node);
    assert!(after.contains("10.0.0.0/8") && after.contains("metadata_blocked"), "{after}");
    assert!(!after.contains("old") && !after.contains("stale"), "{after}");
}

#[test]
fn a_table_that_cannot_be_written_is_one_clear_error_at_the_start_and_tried_again_while_serving() {
    let node = node_in_a_world();
    // A table with an owner is closed to all others.
    let own = || {
        let mut command = Command::new("nft");
        command.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut owner = node.netns.run(|| command.spawn().unwrap()).unwrap();
        let mut stdin = owner.stdin.take().unwrap();
        writeln!(stdin, "table inet dotfour {{ flags owner; }}").unwrap();
        stdin.flush().unwrap();
        eventually("the table has an owner", || run(&node.netns, "nft list ruleset").contains("flags owner"));
        (owner, stdin)
    };
    let (mut owner, stdin) = own();
    let config = config(&node, "");
    let (status, said) = node.fail(&config);
    assert!(!status.success());
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("dotfour-ipamd:")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    assert!(errors[0].contains("table inet dotfour") && errors[0].contains("not permitted"), "{said}");
    drop(stdin);
    owner.wait().unwrap();

    let daemon = node.start(&config);
    daemon.pause();
    run(&node.netns, "nft delete table inet dotfour");
    let (mut owner, stdin) = own();
    daemon.signal(Signal::CONT);
    eventually("failures are counted", || applies(&node, "restored", "failed") >= 2.0);
    drop(stdin);
    owner.wait().unwrap();
    eventually("the rules are back", || applies(&node, "restored", "ok") >= 1.0);
    assert_eq!(node.log().matches("is not as it should be; trying again").count(), 1, "{}", node.log());
}

/// Takes an element out of a set, which the table's outline does not show.
const HARM: &str = "nft flush set inet dotfour azure_exempt4";

fn is_whole(node: &Node) -> bool {
    run(&node.netns, "nft list set inet dotfour azure_exempt4").contains("10.240.0.0/16")
}

#[test]
fn a_repair_that_failed_is_tried_again_although_names_and_hooks_are_as_planned() {
    let node = node_in_a_world();
    let refuse = node.directory.path().join("refuse");
    node.put_tool(
        "nft",
        &format!(
            "case \"$*\" in *-f*) [ ! -e {} ] || {{ echo 'Error: not now' >&2; exit 1; }};; esac\n\
             PATH=${{PATH#*:}}; exec nft \"$@\"",
            refuse.display()
        ),
    );
    let _daemon = node.start(&config(&node, "masquerade: {vnetCidr: 10.240.0.0/16}"));
    fs::write(&refuse, "").unwrap();
    run(&node.netns, HARM);
    eventually("a repair has failed", || applies(&node, "restored", "failed") >= 1.0);
    assert!(!is_whole(&node));
    fs::remove_file(&refuse).unwrap();
    // Long before the table is looked at anyway.
    eventually("the element is back", || is_whole(&node));
}

/// Makes a node's `nft` hang while the first file is there; the second is there once one does.
fn let_nft_hang(node: &Node) -> (PathBuf, PathBuf) {
    let (hang, hanging) = (node.directory.path().join("hang"), node.directory.path().join("hanging"));
    let script = "while [ -e HANG ]; do touch HANGING; sleep 0.1; done\nPATH=${PATH#*:}; exec nft \"$@\"";
    node.put_tool(
        "nft",
        &script.replace("HANGING", &hanging.display().to_string()).replace("HANG", &hang.display().to_string()),
    );
    (hang, hanging)
}

/// Lets it go on some time later, where whoever waits for that is stuck, and nobody else has let it.
fn free_later(hang: &Path) {
    let hang = hang.to_owned();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(15));
        let _ = fs::remove_file(hang);
    });
}

#[test]
fn while_nft_hangs_the_daemon_looks_at_its_source_and_answers() {
    let node = node_in_a_world();
    let (hang, hanging) = let_nft_hang(&node);
    let source = "source: {kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5], refresh: 50ms}";
    let _daemon = node.start(&node.config(&format!("masquerade: {{vnetCidr: 10.240.0.0/16}}\n{source}\n")));
    // What it looks at once, at its start, is behind it then.
    run(&node.netns, HARM);
    eventually("the element is back", || is_whole(&node));
    fs::write(&hang, "").unwrap();
    run(&node.netns, HARM);
    eventually("nft hangs", || hanging.exists());
    // Many looks later.
    free_later(&hang);
    std::thread::sleep(Duration::from_secs(1));
    let _ = applies(&node, "restored", "ok");
    assert!(hang.exists(), "the answer came only when nft had ended");
    fs::remove_file(&hang).unwrap();
    eventually("the element is back", || is_whole(&node));
}

#[test]
fn a_daemon_that_starts_ends_although_nft_hangs() {
    let node = node_in_a_world();
    let (hang, hanging) = let_nft_hang(&node);
    fs::write(&hang, "").unwrap();
    let daemon = node.spawn(&config(&node, "masquerade: {vnetCidr: 10.240.0.0/16}"));
    eventually("nft hangs", || hanging.exists());
    free_later(&hang);
    assert!(daemon.stop().success());
    assert!(hang.exists(), "it ended only when nft had ended");
}

#[test]
fn a_daemon_ends_although_nft_hangs() {
    let node = node_in_a_world();
    let (hang, hanging) = let_nft_hang(&node);
    let daemon = node.start(&config(&node, "masquerade: {vnetCidr: 10.240.0.0/16}"));
    fs::write(&hang, "").unwrap();
    run(&node.netns, HARM);
    eventually("nft hangs", || hanging.exists());
    free_later(&hang);
    daemon.stop();
    assert!(hang.exists(), "it ended only when nft had ended");
}

#[test]
fn a_change_is_put_right_although_the_kernel_s_word_of_it_was_lost() {
    let node = node_in_a_world();
    let daemon = node.start(&config(&node, "masquerade: {vnetCidr: 10.240.0.0/16}"));
    daemon.pause();
    // More than there is room for, so that nothing is heard of what comes behind it.
    run(&node.netns, "nft 'table ip other { set s { type ipv4_addr . inet_service; }; }'");
    let elements = (0..1000).map(|i| format!("10.0.{}.{} . 80", i / 250, i % 250)).collect::<Vec<_>>().join(",");
    let file = node.directory.path().join("elements");
    fs::write(&file, format!("add element ip other s {{ {elements} }}\n")).unwrap();
    let flood =
        format!("for i in $(seq 150); do nft -f {} && nft flush set ip other s || exit 1; done", file.display());
    run(&node.netns, &flood);
    run(&node.netns, HARM);
    daemon.signal(Signal::CONT);
    eventually("the element is back", || is_whole(&node));
    assert!(node.log().contains("was lost"), "{}", node.log());
}
