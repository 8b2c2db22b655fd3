//! What becomes of a daemon whose log is not read.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use dotfour_datapath::Netns;

use crate::rules::run;
use crate::support::{Daemon, Node, key};

/// Starts a daemon that logs to a pipe.
fn start(node: &Node, addresses: u8) -> (Daemon, File) {
    let fifo = node.directory.path().join("fifo");
    run(&node.netns, &format!("mkfifo {}", fifo.display()));
    // To write too, so that this waits for nobody.
    let log = File::options().read(true).write(true).open(&fifo).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$@\" 2>{}", fifo.display()), "sh", env!("CARGO_BIN_EXE_dotfour-ipamd")]);
    let config = node.static_config(addresses);
    (node.start_as(command.args([Path::new("run"), Path::new("--config"), &config])), log)
}

/// What the pipe holds, which must be something.
fn read(mut log: &File) -> String {
    let mut buffer = vec![0; 1 << 20];
    let length = log.read(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn a_daemon_whose_log_nobody_reads_serves_and_says_later_what_was_lost() {
    let node = Node::new();
    let (daemon, log) = start(&node, 1);
    let pods = [(); 2].map(|()| Netns::create().unwrap());
    node.add(&key("c1"), "one", pods[0].as_fd()).unwrap();
    // A line each, and many times what a pipe holds.
    for _ in 0..2_000 {
        let refused = node.add(&key("c2"), "two", pods[1].as_fd()).unwrap_err();
        assert_eq!(refused.cause, "pool-exhausted");
    }
    let held = read(&log);
    assert!(held.contains("serving on") && !held.contains("were lost"), "{held}");
    assert!(daemon.stop().success());
    let rest = read(&log);
    assert!(rest.contains("lines of this log were lost") && rest.contains("stopping"), "{rest}");
}

#[test]
fn a_daemon_whose_log_was_closed_serves() {
    let node = Node::new();
    let (daemon, log) = start(&node, 3);
    drop(log);
    let pod = Netns::create().unwrap();
    for round in 0..3 {
        let key = key(&format!("c{round}"));
        node.add(&key, "one", pod.as_fd()).unwrap();
        node.del(&key);
        std::thread::sleep(std::time::Duration::from_millis(700));
    }
    assert!(daemon.stop().success());
}
