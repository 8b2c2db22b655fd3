//! A sandbox lets nothing out and leaves nothing behind. These tests look at it from outside, so they are ordinary ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const RIG: &str = env!("CARGO_BIN_EXE_dotfour-rig");
/// These tests may themselves be run in a sandbox. `up` is to make one of its own all the same, as if this were not set.
const INHERITED: &str = "DOTFOUR_RIG_SANDBOX";
/// Killing processes and dismantling namespaces takes milliseconds.
const SOON: Duration = Duration::from_secs(60);

fn sandbox(command: &[&str]) -> Command {
    let mut rig = Command::new(RIG);
    rig.arg("sandbox").arg("--").args(command).stdin(Stdio::null());
    rig
}

fn output(command: &[&str]) -> Output {
    sandbox(command).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the machine has that a sandbox must not change.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    mounts: String,
    links: String,
    run: BTreeSet<String>,
}

impl Machine {
    fn now() -> Self {
        let links = fs::read_to_string("/proc/self/net/dev").unwrap();
        Machine {
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap(),
            // Names without counters.
            links: links.lines().filter_map(|line| line.split(':').next()).collect::<Vec<_>>().join("\n"),
            run: fs::read_dir("/run").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect(),
        }
    }
}

/// Every namespace that a process is in or has open, as `net:[4026531840]`.
fn namespaces_in_use() -> BTreeSet<String> {
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let processes = processes.filter(|path| path.file_name().unwrap().to_str().unwrap().parse::<u32>().is_ok());
    let held = processes.flat_map(|process| ["ns", "fd"].map(|kind| process.join(kind)));
    let links = held.filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten();
    links.filter_map(|link| fs::read_link(link.path()).ok()?.into_os_string().into_string().ok()).collect()
}

/// A sandbox that runs until it is ended, full of what could stay behind.
struct Busy {
    outer: Child,
    /// Its command waits for a line on this. Not left in `outer`, which would close it before it waits.
    input: Option<ChildStdin>,
    // Its other end stays open, so that nothing in there ends for want of a reader.
    _output: BufReader<ChildStdout>,
    namespaces: Vec<String>,
}

impl Busy {
    /// A VNet with two nodes; an orphan and a process of a session of its own, both in a node's namespace.
    fn start() -> Self {
        let script = "
            for kind in user mnt net pid; do readlink /proc/self/ns/$kind; done
            readlink /proc/1/ns/net
            (nsenter --net=/run/netns/node-1 sleep 9999 &)
            nsenter --net=/run/netns/node-2 setsid sleep 9999 &
            nsenter --net=/run/netns/node-1 readlink /proc/self/ns/net
            nsenter --net=/run/netns/fabric readlink /proc/self/ns/net
            mkdir /run/scratch && mount -t tmpfs scratch /run/scratch
            echo ready
            read line
            exit 4";
        let mut outer = Command::new(RIG)
            .env_remove(INHERITED)
            .args(["up", "--", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(outer.stdout.take().unwrap());
        let mut namespaces = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the sandbox ended early: {namespaces:?}");
            match line.trim() {
                "ready" => break,
                line if line.contains(":[") => namespaces.push(line.to_owned()),
                _ => {}
            }
        }
        assert_eq!(namespaces.len(), 7, "{namespaces:?}");
        Busy { input: outer.stdin.take(), outer, _output: output, namespaces }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.outer), signal).unwrap();
    }

    /// The namespaces that are the sandbox's own. (As root it has the machine's user namespace.)
    fn own(&self) -> impl Iterator<Item = &String> {
        let machine = fs::read_link("/proc/self/ns/user").unwrap().into_os_string().into_string().unwrap();
        self.namespaces.iter().filter(move |namespace| **namespace != machine)
    }

    /// Those of them that are in use still.
    fn left(&self) -> Vec<&String> {
        let in_use = namespaces_in_use();
        self.own().filter(|own| in_use.contains(*own)).collect()
    }

    /// Its status, once it has ended by itself.
    fn status(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.outer.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < SOON, "the outer process does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn assert_gone(&self) {
        let started = Instant::now();
        while !self.left().is_empty() {
            assert!(started.elapsed() < SOON, "still in use: {:?}", self.left());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn the_status_is_the_commands() {
    assert_eq!(output(&["true"]).status.code(), Some(0));
    assert_eq!(output(&["sh", "-c", "exit 3"]).status.code(), Some(3));
    assert_eq!(output(&["sh", "-c", "kill -TERM $$"]).status.code(), Some(128 + 15));
    let missing = output(&["/nowhere/program"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(text(&missing.stderr).contains("cannot run /nowhere/program: No such file"), "{}", text(&missing.stderr));
}

#[test]
fn inside_there_is_only_a_loopback_link_an_empty_run_and_the_command() {
    let script = "cut -d: -f1 /proc/net/dev | tail -n +3; ls /run; id -u; set -- /proc/[0-9]*; echo $# $PPID";
    let inside = text(&output(&["sh", "-c", script]).stdout);
    let lines: Vec<&str> = inside.split_whitespace().collect();
    // Two processes: the first one, and the shell, whose parent it is.
    assert_eq!(lines, ["lo", "dotfour-rig", "lock", "netns", "0", "2", "1"]);
}

#[test]
fn orphans_are_reaped() {
    let script = "(sleep 0.05 &) ; (sleep 0.05 &) ; sleep 0.3; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l";
    assert_eq!(text(&output(&["sh", "-c", script]).stdout).trim(), "0");
}

#[test]
fn a_command_is_born_with_no_signal_blocked() {
    let status = text(&output(&["grep", "SigBlk", "/proc/self/status"]).stdout);
    assert_eq!(status.split_whitespace().nth(1), Some("0000000000000000"), "{status}");
}

#[test]
fn nothing_stays_after_a_normal_end() {
    let before = Machine::now();
    let mut busy = Busy::start();
    assert_eq!(busy.left().len(), busy.own().count());
    // The command reads a line and ends; the others would go on.
    drop(busy.input.take());
    assert_eq!(busy.status().code(), Some(4));
    busy.assert_gone();
    assert_eq!(Machine::now(), before);
}

#[test]
fn nothing_stays_after_a_signal_that_can_be_handed_on() {
    let before = Machine::now();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        let mut busy = Busy::start();
        busy.signal(signal);
        assert_eq!(busy.status().code(), Some(128 + signal.as_raw()));
        busy.assert_gone();
    }
    assert_eq!(Machine::now(), before);
}

#[test]
fn nothing_stays_after_the_outer_process_is_killed() {
    let before = Machine::now();
    let mut busy = Busy::start();
    busy.signal(Signal::KILL);
    assert_eq!(busy.status().signal(), Some(9));
    busy.assert_gone();
    assert_eq!(Machine::now(), before);
}

#[test]
fn no_mount_gets_out_of_a_sandbox() {
    // On a machine whose mounts are shared, as systemd makes them; here it is a mount namespace of the test's own.
    let script = format!(
        "mount --make-rshared / && before=$(cat /proc/self/mountinfo) && \
         {RIG} sandbox -- sh -c 'mount -t tmpfs inner /mnt; echo out; read line' | {{ \
         read out; after=$(cat /proc/self/mountinfo); [ \"$before\" = \"$after\" ] && echo $out; }}"
    );
    let unshare = ["--user", "--map-root-user", "--mount", "sh", "-c", &script];
    let seen = Command::new("unshare").args(unshare).stdin(Stdio::null()).output().unwrap();
    assert_eq!(text(&seen.stdout), "out\n", "{}", text(&seen.stderr));
}

#[test]
fn a_sandbox_fits_into_a_sandbox() {
    let both = output(&[RIG, "sandbox", "--", "sh", "-c", "touch /run/inner; ls /run; exit 5"]);
    assert_eq!(both.status.code(), Some(5), "{}", text(&both.stderr));
    assert!(text(&both.stdout).contains("inner"));
    let outer = output(&["sh", "-c", &format!("{RIG} sandbox -- touch /run/inner && ls /run")]);
    assert!(outer.status.success() && !text(&outer.stdout).contains("inner"), "{outer:?}");
}

#[test]
fn an_ordinary_user_gets_a_whole_vnet() {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    let everyone = map.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap() > 65_534;
    let script = "cat /proc/self/uid_map; nsenter --net=/run/netns/node-1 ping -c1 -W5 10.240.0.35";
    let mut command = Command::new("env");
    command.args(["-u", INHERITED]);
    if rustix::process::geteuid().is_root() && everyone {
        command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    // Otherwise whoever runs this is an ordinary user, or has been made root of a user namespace by one.
    // A copy where everybody may go: the checkout may be in a directory for its owner alone.
    let directory = std::env::temp_dir().join(format!("dotfour-rig-test-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let rig = directory.join("dotfour-rig");
    // By another process: a program that this one has open to write while a parallel test starts another is "busy".
    assert!(Command::new("install").args(["-m", "755", RIG]).arg(&rig).status().unwrap().success());
    let up = command.arg(&rig).args(["up", "--", "sh", "-c", script]).current_dir("/").output().unwrap();
    fs::remove_dir_all(&directory).unwrap();
    assert!(up.status.success(), "{}{}", text(&up.stdout), text(&up.stderr));
    let owner =
        text(&up.stdout).lines().find_map(|line| line.trim().strip_prefix("0 ").map(str::trim).map(str::to_owned));
    let owner = owner.unwrap();
    assert!(!owner.starts_with("0 "), "the sandbox is the real root's: {owner}");
}

#[test]
fn a_machine_that_forbids_namespaces_is_told_what_to_change() {
    // In a user namespace of the test's own: what it forbids, it forbids there only.
    let script = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all {RIG} sandbox -- true"
    );
    let refused = Command::new("unshare").args(["--user", "--map-root-user", "sh", "-c", &script]).output().unwrap();
    let words = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{words}");
    assert!(words.contains("user.max_user_namespaces is 0"), "{words}");
    assert!(words.contains("sysctl user.max_user_namespaces"), "{words}");
}
