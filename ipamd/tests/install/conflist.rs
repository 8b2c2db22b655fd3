//! The daemon's network configuration: there when it serves, whole at every moment, and one of ours at most.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;

use dotfour_ipamd::install::conflist::{Owner, look};
use serde_json::{Value, json};

use super::*;
use crate::support::{Daemon, Node, eventually};

const OURS: &str = "10-dotfour.conflist";

/// A node with the directories of a container runtime.
struct Host {
    node: Node,
    bin_dir: PathBuf,
    conf_dir: PathBuf,
}

impl Host {
    fn new() -> Self {
        let node = Node::new();
        let (bin_dir, conf_dir) = (node.directory.path().join("bin"), node.directory.path().join("net.d"));
        assert!(install(&bin_dir, &plugin()).output().unwrap().status.success());
        Host { node, bin_dir, conf_dir }
    }

    fn config(&self, more: &str) -> PathBuf {
        self.node.config(&format!(
            "cniBinDir: {}\ncniConfDir: {}\n{more}\n\
             source: {{kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5-10.240.0.9], refresh: 50ms}}\n",
            self.bin_dir.display(),
            self.conf_dir.display()
        ))
    }

    fn start(&self, more: &str) -> Daemon {
        let daemon = self.node.start(&self.config(more));
        // The socket comes first.
        daemon
    }

    fn put(&self, name: &str, text: &str) {
        fs::create_dir_all(&self.conf_dir).unwrap();
        fs::write(self.conf_dir.join(name), text).unwrap();
    }

    fn list(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.conf_dir.join(OURS)).ok()?).ok()
    }

    fn eventually_has(&self, name: &str) {
        eventually(&format!("{name} is there:\n{}", self.node.log()), || self.conf_dir.join(name).exists());
    }
}

#[test]
fn the_list_appears_when_the_daemon_serves_and_stays_when_it_ends() {
    let host = Host::new();
    // It cannot serve, so it promises nothing.
    let (_, log) = host.node.fail(&host.config("nic: eth7"));
    assert!(log.contains("eth7"), "{log}");
    assert!(!host.conf_dir.exists());
    let daemon = host.start("");
    host.eventually_has(OURS);
    let file = host.conf_dir.join(OURS).metadata().unwrap();
    assert_eq!(file.mode() & 0o7777, 0o600);
    let list = host.list().unwrap();
    let socket = host.node.socket();
    assert_eq!(
        list["plugins"],
        json!([{"type": "dotfour", "capabilities": {"ips": true}, "socket": socket}]),
        "portmap is not there"
    );
    let told = || host.node.log().contains("has no portmap") && host.node.log().contains("has no loopback");
    eventually("what is missing is told", told);
    daemon.stop();
    assert!(host.conf_dir.join(OURS).exists(), "SIGTERM removes nothing");
    let _again = host.start("");
    eventually("it looked", || host.node.log().matches("has no portmap").count() == 2);
    let after = host.conf_dir.join(OURS).metadata().unwrap();
    assert_eq!((after.ino(), after.mtime_nsec()), (file.ino(), file.mtime_nsec()), "an equal one is left alone");
}

#[test]
fn without_a_directory_nothing_is_written_and_without_a_plugin_nothing_is_promised() {
    let host = Host::new();
    let quiet = host.node.static_config(5);
    host.node.start(&quiet).stop();
    assert!(!host.conf_dir.exists());
    fs::remove_file(host.bin_dir.join("dotfour")).unwrap();
    let _daemon = host.start("");
    eventually("it is told", || host.node.log().contains("run dotfour-ipamd install"));
    assert!(!host.conf_dir.exists());
    assert!(install(&host.bin_dir, &plugin()).output().unwrap().status.success());
    host.eventually_has(OURS);
}

#[test]
fn portmap_stands_behind_us_where_it_is_and_limits_the_versions_that_are_offered() {
    let host = Host::new();
    let _daemon = host.start("");
    host.eventually_has(OURS);
    assert_eq!(host.list().unwrap()["cniVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    write_program(&host.bin_dir.join("portmap.new"), &fs::read("/usr/lib/cni/portmap").unwrap());
    fs::rename(host.bin_dir.join("portmap.new"), host.bin_dir.join("portmap")).unwrap();
    eventually("the list follows", || host.list().unwrap()["plugins"].as_array().unwrap().len() == 2);
    let list = host.list().unwrap();
    assert_eq!(list["plugins"][1], json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}));
    assert_eq!(list["cniVersion"], "1.0.0");
    let spoken = dotfour_ipamd::install::reference::versions(Path::new("/usr/lib/cni/portmap")).unwrap();
    let offered = list["cniVersions"].as_array().unwrap();
    assert!(offered.iter().all(|version| spoken.iter().any(|known| known == version)), "{list}");
    // One that says nothing is no reason to have no network.
    write_program(&host.bin_dir.join("portmap.new"), b"#!/bin/false\n");
    fs::rename(host.bin_dir.join("portmap.new"), host.bin_dir.join("portmap")).unwrap();
    eventually("it is told", || host.node.log().contains("does not say which versions"));
    assert_eq!(host.list().unwrap()["cniVersions"], json!(["0.3.1", "0.4.0", "1.0.0"]));
}

#[test]
fn a_portmap_that_never_answers_holds_up_nobody_and_does_not_stay() {
    let host = Host::new();
    let pid = host.node.directory.path().join("pid");
    write_program(
        &host.bin_dir.join("portmap"),
        format!("#!/bin/sh\necho $$ >{}\nexec sleep 60\n", pid.display()).as_bytes(),
    );
    let _daemon = host.start("");
    eventually("it is asked", || fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')));
    let process = PathBuf::from("/proc").join(fs::read_to_string(&pid).unwrap().trim());
    let mut scrape =
        std::os::unix::net::UnixStream::connect(host.node.socket().with_file_name("metrics.sock")).unwrap();
    scrape.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    write!(scrape, "GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
    scrape.read_exact(&mut [0; 12]).unwrap();
    assert!(process.exists(), "the answer came only when it had ended");
    eventually("it is told", || host.node.log().contains("does not say which versions"));
    host.eventually_has(OURS);
    assert!(!process.exists(), "it runs still");
}

#[test]
fn an_older_list_of_ours_makes_room_and_there_are_never_two_nor_none() {
    let host = Host::new();
    let old = r#"{"cniVersion": "1.0.0", "name": "azure", "plugins": [{"type": "dotfour"}]}"#;
    host.put("05-old.conflist", old);
    host.put("99-bridge.conf", r#"{"type": "bridge"}"#);
    let done = AtomicBool::new(false);
    let counts = std::thread::scope(|scope| {
        let ended = SetAtEnd(&done);
        let watcher = scope.spawn(|| {
            let mut counts = Vec::new();
            while !done.load(Ordering::Relaxed) {
                // A directory is not read in one moment: a file that gets another name meanwhile may be seen twice, or
                // not at all. Of two readings that are equal, nothing has changed between.
                let (one, two) = (look(&host.conf_dir).unwrap(), look(&host.conf_dir).unwrap());
                if one == two {
                    counts.push(one.iter().filter(|file| file.owner == Owner::Ours).count());
                }
            }
            counts
        });
        for name in ["10-dotfour.conflist", "20-dotfour.conflist", "10-dotfour.conflist"] {
            let daemon = host.start(&format!("cniConflist: {name}"));
            host.eventually_has(name);
            eventually("the daemon is done", || host.node.log().contains(&format!("{name}\n")));
            daemon.stop();
            assert_eq!(names(&host.conf_dir), [name, "99-bridge.conf"]);
        }
        drop(ended);
        watcher.join().unwrap()
    });
    println!("{} looks", counts.len());
    assert!(counts.len() > 100);
    assert_eq!(counts.iter().filter(|count| **count != 1).count(), 0);
    // One by each name, and one that is no list: the others go.
    host.put("05-old.conf", r#"{"type": "dotfour"}"#);
    host.put("06-old.conflist", old);
    let _daemon = host.start("");
    eventually("they are gone", || names(&host.conf_dir) == [OURS, "99-bridge.conf"]);
}

#[test]
fn what_is_removed_comes_back_and_a_stranger_that_comes_first_is_told_once() {
    let host = Host::new();
    let _daemon = host.start("");
    host.eventually_has(OURS);
    fs::remove_file(host.conf_dir.join(OURS)).unwrap();
    host.eventually_has(OURS);
    host.put(OURS, "half a li");
    eventually("it is whole", || host.list().is_some());
    host.put("10-azure.conflist", r#"{"plugins": [{"type": "azure-vnet"}]}"#);
    let told = || host.node.log().matches("10-azure.conflist sorts before 10-dotfour.conflist").count();
    eventually("it is told", || told() == 1);
    // Several looks later.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(told(), 1);
    assert_eq!(names(&host.conf_dir), ["10-azure.conflist", OURS], "it is theirs to remove");
}

#[test]
fn a_directory_that_cannot_be_written_is_told_and_pods_are_served() {
    let host = Host::new();
    fs::write(&host.conf_dir, "a file").unwrap();
    let _daemon = host.start("");
    eventually("it is told", || host.node.log().contains(&format!("{}", host.conf_dir.display())));
    assert_eq!(host.node.status().pool.free, 5);
    fs::remove_file(&host.conf_dir).unwrap();
    host.eventually_has(OURS);
}

#[test]
fn a_list_that_takes_addresses_from_us_is_its_author_s_and_in_nobody_s_way() {
    let host = Host::new();
    let ptp = r#"{"cniVersion": "1.0.0", "name": "ptp", "type": "ptp", "ipam": {"type": "dotfour-ipam"}}"#;
    host.put("05-ptp.conf", ptp);
    // What it would be said behind, had it been somebody else's.
    host.put("06-azure.conflist", r#"{"plugins": [{"type": "azure-vnet"}]}"#);
    let daemon = host.start("");
    host.eventually_has(OURS);
    eventually("others' are told", || host.node.log().contains("06-azure.conflist sorts before"));
    daemon.stop();
    assert!(!host.node.log().contains("05-ptp.conf"), "{}", host.node.log());
    let mut uninstall = Command::new(DAEMON);
    uninstall.args(["uninstall", "--config"]).arg(host.config("")).arg("--plugin").arg(plugin());
    let output = host.node.netns.run(|| uninstall.output().unwrap()).unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(names(&host.conf_dir), ["05-ptp.conf", "06-azure.conflist"]);
    assert_eq!(fs::read_to_string(host.conf_dir.join("05-ptp.conf")).unwrap(), ptp);
}
