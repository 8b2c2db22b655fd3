//! What came onto the node goes again, all of it, and nothing of others'.

use std::os::fd::AsFd;
use std::time::Duration;

use dotfour_datapath::Netns;
use dotfour_ipamd::install::directory::Held;
use dotfour_protocol::{Add, Call, Reply};
use rustix::process::Signal;

use super::*;
use crate::support::{Daemon, Node, eventually, key};

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

struct Host {
    node: Node,
    config: PathBuf,
}

impl Host {
    fn new() -> Self {
        let node = Node::new();
        let directory = node.directory.path();
        let config = node.config(&format!(
            "cniBinDir: {0}/bin\ncniConfDir: {0}/net.d\n\
             source: {{kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5-10.240.0.9], refresh: 50ms}}\n",
            directory.display()
        ));
        Host { node, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.node.directory.path().join(name)
    }

    fn installed(self) -> (Self, Daemon) {
        assert!(install(&self.path("bin"), &plugin()).output().unwrap().status.success());
        write_program(&self.path("bin/loopback"), b"");
        let daemon = self.node.start(&self.config);
        eventually("the list is there", || self.path("net.d/10-dotfour.conflist").exists());
        (self, daemon)
    }

    fn uninstall(&self, more: &[&str]) -> Output {
        let mut command = Command::new(DAEMON);
        command.arg("uninstall").arg("--config").arg(&self.config).arg("--plugin").arg(plugin()).args(more);
        self.node.netns.run(|| command.output().unwrap()).unwrap()
    }

    fn refused(&self, named: &str) {
        let output = self.uninstall(&[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(named), "{}", said(&output));
        assert!(self.path("net.d/10-dotfour.conflist").exists() && self.path("bin/dotfour").exists());
    }

    fn tables(&self) -> String {
        let output = self.node.netns.run(|| Command::new("nft").args(["list", "tables"]).output().unwrap()).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn forwarding(&self) -> String {
        self.node.netns.run(|| fs::read_to_string(FORWARD).unwrap()).unwrap().trim().to_owned()
    }
}

#[test]
fn after_uninstall_nothing_of_dotfour_is_left_and_a_second_one_says_so() {
    let host = Host::new();
    assert_eq!(host.forwarding(), "0");
    let (host, daemon) = host.installed();
    assert_eq!(host.forwarding(), "1");
    let pod = Netns::create().unwrap();
    host.node.add(&key("c1"), "web-1", pod.as_fd()).unwrap();
    host.refused("stop it first");
    // As after a crash: the socket and the rest stay.
    daemon.signal(Signal::KILL);
    drop(daemon);
    host.refused("1 pods are wired still");
    drop(pod);
    eventually("the pod is gone", || host.node.pod_links().is_empty());
    for name in ["state/spool/1f4a-c1-eth0", "state/spool/.1f4a-c2-eth0", "bin/.dotfour-unfinished-3-4"] {
        fs::write(host.path(name), "{}").unwrap();
    }
    for name in ["ip-masq.json", "ip-masq.json.new"] {
        fs::write(host.path("state").join(name), "{}").unwrap();
    }
    fs::write(host.path("net.d/99-bridge.conf"), r#"{"type": "bridge"}"#).unwrap();
    let output = host.uninstall(&[]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(names(&host.path("net.d")), ["99-bridge.conf"], "{text}");
    assert_eq!(names(&host.path("bin")), ["loopback"], "{text}");
    assert!(!host.path("state").exists(), "{:?}: {text}", names(&host.path("state")));
    assert_eq!(host.tables(), "");
    assert_eq!(host.forwarding(), "0");
    let order: Vec<_> = ["10-dotfour.conflist", "bin/dotfour", "table inet dotfour", "ip_forward is 0", "ipamd.sock"]
        .map(|word| text.find(word).unwrap_or_else(|| panic!("{word} is not told:\n{text}")))
        .into();
    assert!(order.is_sorted(), "the promise goes first:\n{text}");
    let again = host.uninstall(&[]);
    assert!(again.status.success());
    assert_eq!(said(&again), "nothing of Dotfour was left\n");
}

#[test]
fn what_others_put_there_or_changed_stays() {
    let (host, daemon) = Host::new().installed();
    daemon.stop();
    let nft = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        assert!(host.node.netns.run(|| Command::new("nft").args(&words).status().unwrap()).unwrap().success());
    };
    nft("add table inet theirs");
    for name in ["state/theirs", "state/spool/notes-of-mine"] {
        fs::write(host.path(name), "").unwrap();
    }
    host.node.netns.run(|| fs::write(FORWARD, "0").unwrap()).unwrap();
    let output = host.uninstall(&[]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(names(&host.path("state")), ["spool", "theirs"]);
    assert_eq!(names(&host.path("state/spool")), ["notes-of-mine"]);
    assert_eq!(host.tables(), "table inet theirs\n");
    assert_eq!(host.forwarding(), "0");
}

#[test]
fn a_late_call_of_an_older_release_removes_nothing() {
    let (host, daemon) = Host::new().installed();
    daemon.stop();
    let newer = host.path("newer");
    write_program(&newer, &[&fs::read(plugin()).unwrap()[..], b"newer"].concat());
    assert!(install(&host.path("bin"), &newer).output().unwrap().status.success());
    host.refused("is not this release's");
    let output = host.uninstall(&["--force"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(names(&host.path("bin")), ["loopback"]);
}

#[test]
fn with_force_pods_keep_their_wiring() {
    let (host, daemon) = Host::new().installed();
    let pod = Netns::create().unwrap();
    host.node.add(&key("c1"), "web-1", pod.as_fd()).unwrap();
    daemon.stop();
    host.refused("1 pods are wired still");
    // Repeating it does no harm.
    for _ in 0..2 {
        let output = host.uninstall(&["--force"]);
        let text = said(&output);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("kept the table inet dotfour, kernel settings and their record for 1 pods"), "{text}");
        assert_eq!(host.node.pod_links().len(), 1);
        assert_eq!(host.node.pod_routes().len(), 1);
        assert_eq!(host.forwarding(), "1", "{text}");
        assert_eq!(host.tables(), "table inet dotfour\n", "{text}");
        assert_eq!(names(&host.path("bin")), ["loopback"], "{text}");
        assert_eq!(names(&host.path("net.d")), [""; 0], "{text}");
    }
    drop(pod);
    eventually("the pod is gone", || host.node.pod_links().is_empty());
    let output = host.uninstall(&[]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(host.forwarding(), "0");
    assert_eq!(host.tables(), "");
    assert!(!host.path("state").exists(), "{:?}", names(&host.path("state")));
}

/// A host without its daemon, where another plugin has wired the pod c1.
fn with_another_plugin_s_pod() -> Host {
    let (host, daemon) = Host::new().installed();
    let add = Add { key: key("c1"), pod: None, started_ns: None, asked: Vec::new(), print: None };
    assert!(matches!(host.node.call(Call::Assign(add), None), Reply::Assigned(_)));
    daemon.stop();
    host
}

#[test]
fn with_force_pods_of_another_plugin_keep_their_network_and_are_not_forgotten() {
    let host = with_another_plugin_s_pod();
    for _ in 0..2 {
        let output = host.uninstall(&["--force"]);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(host.forwarding(), "1", "{}", said(&output));
        assert_eq!(host.tables(), "table inet dotfour\n", "{}", said(&output));
    }
    let output = host.uninstall(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("1 pods are wired still"), "{}", said(&output));
}

#[test]
fn a_directory_that_another_installer_holds_stops_all_before_anything_is_removed() {
    let (host, daemon) = Host::new().installed();
    daemon.stop();
    for name in ["bin", "net.d"] {
        let held = Held::new(&host.path(name), Duration::from_secs(5)).unwrap();
        host.refused("another installer has been at work");
        drop(held);
    }
    assert!(host.uninstall(&[]).status.success());
}

#[test]
fn links_of_ended_pods_that_the_kernel_does_not_delete_are_not_called_removed() {
    let (host, daemon) = Host::new().installed();
    let pod = Netns::create().unwrap();
    host.node.add(&key("c1"), "web-1", pod.as_fd()).unwrap();
    daemon.stop();
    let condemn = format!("ip link set {} group 1145307136", host.node.pod_links()[0].name);
    let run = |command: &mut Command| host.node.netns.run(|| command.output().unwrap()).unwrap();
    assert!(run(Command::new("sh").args(["-c", &condemn])).status.success(), "{condemn}");
    let mut unable = Command::new("setpriv");
    unable.args(["--bounding-set=-net_admin", DAEMON, "uninstall", "--config"]).arg(&host.config);
    let output = run(unable.arg("--plugin").arg(plugin()));
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("links of ended pods stay: the kernel has not deleted those of 1 groups"), "{text}");
    assert!(!text.contains("removed the links"), "{text}");
    assert!(text.contains("kernel settings stay as settings.json says"), "{text}");
    let output = host.uninstall(&[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("removed the links of ended pods, in 1 groups"), "{}", said(&output));
    assert_eq!(host.forwarding(), "0", "the record outlived the failure");
    assert!(!host.path("state").exists(), "{:?}", names(&host.path("state")));
}

#[test]
fn what_cannot_be_removed_is_named_and_the_rest_goes() {
    let (host, daemon) = Host::new().installed();
    daemon.stop();
    let script = format!(
        "mount --bind {bin} {bin} && mount -o remount,bind,ro {bin} && exec {DAEMON} uninstall --config {config} --plugin {plugin}",
        bin = host.path("bin").display(),
        config = host.config.display(),
        plugin = plugin().display(),
    );
    let output = host
        .node
        .netns
        .run(|| Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap())
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("bin/dotfour stays: Read-only file system"), "{text}");
    assert!(names(&host.path("net.d")).is_empty() && !host.path("state").exists(), "{text}");
}

#[test]
fn pods_that_another_plugin_has_wired_keep_the_program_that_their_del_needs() {
    let host = with_another_plugin_s_pod();
    host.refused("1 pods are wired still");
    let daemon = host.node.start(&host.config);
    host.node.del(&key("c1"));
    daemon.stop();
    let output = host.uninstall(&[]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(names(&host.path("bin")), ["loopback"]);
}
