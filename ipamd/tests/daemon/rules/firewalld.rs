//! Beside a real firewalld, whose reloads make its rules anew.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use super::*;
use crate::support::NODE_ADDRESS;

/// A bus that lets everybody speak to everybody: firewalld is spoken to by no other means.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=DIRECTORY/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/>
  </policy>
</busconfig>
"#;

/// firewalld and its bus on a node, with files, and a file system of their own where they insist on one.
struct Firewalld {
    directory: PathBuf,
    process: Child,
}

impl Firewalld {
    /// With every link in a zone that accepts, as nodes of Kubernetes have it: in others it rejects what is forwarded.
    fn start(node: &Node, backend: &str) -> Self {
        let directory = node.directory.path().join("firewalld");
        fs::create_dir_all(directory.join("config")).unwrap();
        let settings = format!("DefaultZone=trusted\nFirewallBackend={backend}\n");
        fs::write(directory.join("config/firewalld.conf"), settings).unwrap();
        fs::write(directory.join("bus.conf"), BUS.replace("DIRECTORY", &directory.display().to_string())).unwrap();
        // In a process namespace, so that all of it ends with the one that is known here. Its temporary files go under /run,
        // whatever it is told.
        let script = "mount -t tmpfs tmpfs /run; dbus-daemon --config-file=bus.conf --nofork & \
                      while ! [ -S bus ]; do sleep 0.02; done; \
                      exec firewalld --nofork --nopid --log-target console --system-config \"$PWD/config\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]);
        let log = fs::File::create(directory.join("log")).unwrap();
        command
            .current_dir(&directory)
            .env("DBUS_SYSTEM_BUS_ADDRESS", bus(&directory))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let process = node.netns.run(|| command.spawn().unwrap()).unwrap();
        let firewalld = Firewalld { directory, process };
        eventually("firewalld runs", || firewalld.try_tell(node, "--state").is_ok());
        firewalld
    }

    fn tell(&self, node: &Node, what: &str) {
        self.try_tell(node, what).unwrap_or_else(|said| {
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            panic!("firewall-cmd {what}: {said}\n{log}")
        });
    }

    fn try_tell(&self, node: &Node, what: &str) -> Result<(), String> {
        let mut command = Command::new("firewall-cmd");
        command.arg(what).env("DBUS_SYSTEM_BUS_ADDRESS", bus(&self.directory));
        let output = node.netns.run(|| command.output().unwrap()).unwrap();
        let said = [output.stdout, output.stderr].concat();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
    }
}

impl Drop for Firewalld {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn bus(directory: &Path) -> String {
    format!("unix:path={}", directory.join("bus").display())
}

/// What firewalld wrote, without counters.
fn theirs(node: &Node, backend: &str) -> String {
    let list = match backend {
        "nftables" => "nft -s list table inet firewalld",
        _ => "iptables-save | grep -v '^[#:]' | sort",
    };
    run(&node.netns, list)
}

#[test]
fn a_reload_of_firewalld_s_leaves_both_sides_rules_as_they_are() {
    for backend in ["nftables", "iptables"] {
        let node = node_in_a_world();
        let firewalld = Firewalld::start(&node, backend);
        let _daemon = node.start(&config(&node, "masquerade: {vnetCidr: 10.240.0.0/16}"));
        let (pod, own) = add(&node, "one");
        let (ours, before) = (table(&node), theirs(&node, backend));
        assert!(before.lines().count() > 10, "{backend} has no rules of firewalld's: {before}");
        let sources = |when: &str| {
            assert_eq!(source_seen(&pod, &node.wire, ip(ELSEWHERE)), Some(own), "{backend}, {when}");
            assert_eq!(source_seen(&pod, &node.wire, ip(INTERNET)), Some(NODE_ADDRESS.into()), "{backend}, {when}");
        };
        sources("before");
        for what in ["--reload", "--complete-reload"] {
            firewalld.tell(&node, what);
            eventually("firewalld has its rules again", || theirs(&node, backend) == before);
            assert_eq!(table(&node), ours, "{backend}, after {what}: ours are untouched");
            sources(what);
        }
        // And when ours are made anew, theirs stay.
        run(&node.netns, "nft delete table inet dotfour");
        eventually("ours are back", || applies(&node, "restored", "ok") >= 1.0);
        assert_eq!(theirs(&node, backend), before, "{backend}: theirs are untouched");
        sources("after ours were made anew");
    }
}
