//! A daemon that does not do as it should is reported with the end of its log. (One that does is for `e2e` to test.)

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dotfour_rig::daemon::DaemonError;
use dotfour_rig::{DaemonConfig, Node, NodeConfig, Place, Vnet, VnetConfig};

tests![
    a_daemon_that_ends_at_once_is_reported_with_its_log,
    a_daemon_that_never_serves_is_reported_after_its_time,
    a_daemon_that_ignores_sigterm_is_killed_and_reported,
    a_daemon_that_ends_on_sigterm_has_its_status_returned,
    a_suspended_daemon_goes_on_where_it_was,
    a_dropped_daemon_is_killed,
    a_program_that_is_not_there_is_named,
    a_daemon_reads_its_configuration_and_runs_in_the_nodes_namespace,
];

/// How long something may take that is to happen.
const PATIENCE: Duration = Duration::from_secs(10);

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn node(place: Place) -> (Vnet, Node) {
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse().unwrap(), place }).unwrap();
    let node = vnet.add_node(&NodeConfig::new("node-1", 0)).unwrap();
    (vnet, node)
}

/// A daemon that is this shell script. `$3` is its configuration file.
fn script(node: &Node, text: &str) -> DaemonConfig {
    let path = node.state_dir().join("daemon.sh");
    // Written by another process: a file that this one has open while a parallel test starts a program is "busy".
    let mut install =
        Command::new("install").args(["-m", "755", "/dev/stdin"]).arg(&path).stdin(Stdio::piped()).spawn().unwrap();
    writeln!(install.stdin.take().unwrap(), "#!/bin/sh\n{text}").unwrap();
    assert!(install.wait().unwrap().success());
    DaemonConfig::new(path)
}

fn a_daemon_that_ends_at_once_is_reported_with_its_log(place: Place) {
    let (_vnet, node) = node(place);
    let config = script(&node, "for i in $(seq 50); do echo line $i >&2; done; exit 7");
    let error = node.start_daemon(&config).unwrap_err();
    let DaemonError::Ended { status, log, .. } = &error else { panic!("{error}") };
    assert_eq!(status.code(), Some(7));
    assert!(log.contains("line 50") && !log.contains("line 30\n"), "{log}");
    assert!(error.to_string().contains("line 50"), "{error}");
}

fn a_daemon_that_never_serves_is_reported_after_its_time(place: Place) {
    let (_vnet, node) = node(place);
    let config = DaemonConfig { ready_within: Duration::from_millis(200), ..script(&node, "exec sleep 60") };
    let error = node.start_daemon(&config).unwrap_err();
    assert!(matches!(error, DaemonError::NotReady { .. }), "{error}");
    assert!(error.to_string().contains("its log is empty"), "{error}");
}

fn a_daemon_that_ignores_sigterm_is_killed_and_reported(place: Place) {
    let (_vnet, node) = node(place);
    let daemon = node.spawn_daemon(&script(&node, "trap '' TERM; echo deaf; while :; do sleep 0.01; done")).unwrap();
    wait_for("it is deaf", || daemon.log().contains("deaf"));
    let pid = daemon.pid();
    let error = daemon.stop(Duration::from_millis(200)).unwrap_err();
    assert!(matches!(error, DaemonError::NotStopped { .. }), "{error}");
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
}

fn a_daemon_that_ends_on_sigterm_has_its_status_returned(place: Place) {
    let (_vnet, node) = node(place);
    let daemon =
        node.spawn_daemon(&script(&node, "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done")).unwrap();
    wait_for("it is up", || daemon.log().contains("up"));
    assert_eq!(daemon.stop(PATIENCE).unwrap().code(), Some(3));
}

fn a_suspended_daemon_goes_on_where_it_was(place: Place) {
    let (_vnet, node) = node(place);
    let daemon = node.spawn_daemon(&script(&node, "while echo x; do :; done")).unwrap();
    daemon.suspend();
    // The signal takes effect when the process next looks.
    wait_for("it stands still", || state(daemon.pid()) == 'T');
    let before = daemon.log().len();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(daemon.log().len(), before);
    daemon.resume();
    wait_for("it goes on", || daemon.log().len() > before);
}

/// A process's state (proc_pid_stat(5)): a letter behind the program's name, which is in parentheses and may hold anything.
fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

fn a_dropped_daemon_is_killed(place: Place) {
    let (_vnet, node) = node(place);
    let daemon = node.spawn_daemon(&script(&node, "exec sleep 60")).unwrap();
    let pid = daemon.pid();
    assert!(fs::exists(format!("/proc/{pid}")).unwrap());
    drop(daemon);
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
}

fn a_program_that_is_not_there_is_named(place: Place) {
    let (_vnet, node) = node(place);
    let error = node.start_daemon(&DaemonConfig::new("/nowhere/dotfour-ipamd")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/dotfour-ipamd"), "{error}");
}

fn a_daemon_reads_its_configuration_and_runs_in_the_nodes_namespace(place: Place) {
    let (_vnet, node) = node(place);
    let config =
        DaemonConfig { more: "metrics: off".to_owned(), ..script(&node, "cat $3; readlink /proc/self/ns/net") };
    let mut daemon = node.spawn_daemon(&config).unwrap();
    wait_for("it ends", || daemon.ended().is_some());
    let log = daemon.log();
    let namespace = node.netns().run(|| fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    assert!(log.ends_with(&format!("{}\n", namespace.display())), "{log}");
    let directory = node.state_dir().display();
    for line in [
        "mode: azure".to_owned(),
        format!("socket: {directory}/ipamd.sock"),
        format!("stateDir: {directory}/ipamd"),
        "cooldown: 30000ms".to_owned(),
        "maxPods: 30".to_owned(),
        "source:\n  kind: wireserver\n  url: http://168.63.129.16\n  timeout: 2s".to_owned(),
        "metrics: off".to_owned(),
    ] {
        assert!(log.contains(&format!("{line}\n")), "{line}: {log}");
    }
}
