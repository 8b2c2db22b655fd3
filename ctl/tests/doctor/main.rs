//! `dotfourctl doctor` on a node of its own: nothing is found on a healthy one, and each planted fault by its code.

// Clippy allows these in test functions only, not in what test functions share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod kubernetes;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dotfour_datapath::Netns;
use serde_json::Value;

const CTL: &str = env!("CARGO_BIN_EXE_dotfourctl");

/// A program of `make build`'s.
fn program(name: &str) -> PathBuf {
    let program = Path::new(CTL).parent().and_then(Path::parent).unwrap().join("release").join(name);
    assert!(program.exists(), "{} is missing; `make build` makes it", program.display());
    program
}

/// A node on which all is well, until a test plants a fault. The daemon is killed when it is dropped.
struct Node {
    netns: Netns,
    directory: tempfile::TempDir,
    daemon: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Node {
    fn healthy() -> Self {
        let node = Node::with("", "");
        assert_eq!(node.finds(), (0, vec![]), "{}", node.says());
        node
    }

    /// With more subnets and more addresses than those of a healthy node.
    fn with(subnets: &str, addresses: &str) -> Self {
        let netns = Netns::create().expect("network namespaces need root; `make test` makes user namespaces first");
        let directory = tempfile::tempdir().unwrap();
        let bin_dir = directory.path().join("bin");
        fs::create_dir(&bin_dir).unwrap();
        fs::copy(program("dotfour"), bin_dir.join("dotfour")).unwrap();
        for name in ["loopback", "portmap"] {
            fs::copy(Path::new("/usr/lib/cni").join(name), bin_dir.join(name)).unwrap();
        }
        let text = format!(
            "socket: {0}/state/ipamd.sock\nstateDir: {0}/state\ncniBinDir: {0}/bin\ncniConfDir: {0}/net.d\nmaxPods: 5\n\
             nic: eth0\nsource: {{kind: static, subnet: [10.240.0.0/16{subnets}], \
             addresses: [10.240.0.5-10.240.0.9{addresses}], refresh: 50ms}}\n",
            directory.path().display()
        );
        fs::write(directory.path().join("ipamd.yaml"), text).unwrap();
        run(
            &netns,
            "ip link add eth0 type veth peer name far0 && ip address add 10.240.0.4/16 dev eth0 && ip link set eth0 up",
        );
        let mut command = Command::new(program("dotfour-ipamd"));
        command.arg("run").arg("--config").arg(directory.path().join("ipamd.yaml"));
        command.stdin(Stdio::null()).stderr(fs::File::create(directory.path().join("log")).unwrap());
        let daemon = netns.run(|| command.spawn().unwrap()).unwrap();
        let node = Node { netns, directory, daemon };
        let begun = Instant::now();
        while !node.path("net.d/10-dotfour.conflist").exists() {
            let log = fs::read_to_string(node.path("log")).unwrap();
            assert!(begun.elapsed() < Duration::from_secs(20), "the daemon does not serve:\n{log}");
            std::thread::sleep(Duration::from_millis(5));
        }
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn doctor(&self, config: &str, more: &[&str]) -> Output {
        let mut command = Command::new(CTL);
        command.arg("--config").arg(self.path(config)).arg("doctor").arg("--plugin").arg(program("dotfour")).args(more);
        self.netns.run(|| command.output().unwrap()).unwrap()
    }

    fn says(&self) -> String {
        String::from_utf8(self.doctor("ipamd.yaml", &[]).stdout).unwrap()
    }

    /// The exit status and the codes.
    fn finds(&self) -> (i32, Vec<String>) {
        self.finds_with("ipamd.yaml")
    }

    fn finds_with(&self, config: &str) -> (i32, Vec<String>) {
        let output = self.doctor(config, &["-o", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let codes = report["findings"].as_array().unwrap().iter().map(|finding| {
            assert!(["what", "why", "do"].iter().all(|key| !finding[key].as_str().unwrap().is_empty()), "{finding}");
            finding["code"].as_str().unwrap().to_owned()
        });
        (output.status.code().unwrap(), codes.collect())
    }

    /// Finds exactly this.
    fn has(&self, status: i32, codes: &[&str]) {
        let (found_status, found) = self.finds();
        assert_eq!((found_status, found.iter().map(String::as_str).collect::<Vec<_>>()), (status, codes.to_vec()));
    }

    /// Ends the daemon, which would mend what is planted.
    fn without_daemon(mut self) -> Self {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        self
    }
}

fn run(netns: &Netns, command: &str) {
    let output = netns.run(|| Command::new("sh").args(["-c", command]).output().unwrap()).unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_healthy_node_has_no_findings() {
    let node = Node::healthy();
    let text = node.says();
    let (all_but_last, last) = text.trim_end().rsplit_once('\n').unwrap_or(("", &text));
    assert_eq!(last.trim_end(), "nothing found", "{text}");
    // In a process namespace of its own the doctor says that.
    assert!(all_but_last.lines().all(|line| line.starts_with("not seen: the settings of kubelet")), "{text}");
    // rp_filter is none.
    for value in [0, 1, 2] {
        run(&node.netns, &format!("echo {value} >/proc/sys/net/ipv4/conf/all/rp_filter"));
        node.has(0, &[]);
    }
}

#[test]
fn a_dead_daemon_is_found_and_what_cannot_be_seen_is_named() {
    let node = Node::healthy().without_daemon();
    node.has(2, &["daemon-unreachable"]);
    let text = node.says();
    assert!(text.contains("not seen: the pool, because only the daemon knows it"), "{text}");
    assert!(text.ends_with("errors: 1, warnings: 0\n"), "{text}");
}

#[test]
fn a_configuration_that_the_daemon_would_refuse_is_found() {
    let node = Node::healthy();
    fs::write(node.path("bad.yaml"), "maxpods: 5\nsource: {kind: wireserver}\n").unwrap();
    let (status, codes) = node.finds_with("bad.yaml");
    // The default places have nothing on a machine that has no Dotfour.
    assert_eq!((status, codes[0].as_str()), (2, "config-unusable"));
    let (status, codes) = node.finds_with("absent.yaml");
    assert_eq!((status, codes[0].as_str()), (2, "config-unusable"));
}

#[test]
fn missing_and_different_programs_are_found() {
    let node = Node::healthy();
    fs::remove_file(node.path("bin/loopback")).unwrap();
    fs::set_permissions(node.path("bin/portmap"), PermissionsExt::from_mode(0o644)).unwrap();
    node.has(1, &["loopback-missing", "portmap-missing"]);
    fs::write(node.path("bin/dotfour"), "another").unwrap();
    node.has(1, &["plugin-differs", "loopback-missing", "portmap-missing"]);
    fs::remove_file(node.path("bin/dotfour")).unwrap();
    node.has(2, &["plugin-missing", "loopback-missing", "portmap-missing"]);
}

#[test]
fn a_plugin_that_cannot_be_compared_is_named_as_not_seen() {
    let node = Node::healthy();
    let mut command = Command::new(CTL);
    command.arg("--config").arg(node.path("ipamd.yaml")).args(["doctor", "--plugin", "/nonexistent/dotfour"]);
    let output = node.netns.run(|| command.output().unwrap()).unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("not seen: whether the plugin is this release's, because /nonexistent/dotfour"), "{text}");
}

#[test]
fn network_configurations_that_are_missing_doubled_or_hidden_are_found() {
    let node = Node::healthy().without_daemon();
    let put = |name: &str, text: &str| fs::write(node.path("net.d").join(name), text).unwrap();
    let has = |codes: &[&str]| node.has(2, &[&["daemon-unreachable"], codes].concat());
    put("99-bridge.conf", r#"{"type": "bridge"}"#);
    put("00-multus.conf", r#"{"type": "multus-shim"}"#);
    has(&[]);
    put("10-azure.conflist", r#"{"plugins": [{"type": "azure-vnet"}]}"#);
    has(&["conflist-shadowed"]);
    fs::remove_file(node.path("net.d/10-azure.conflist")).unwrap();
    put("05-broken.conflist", "{");
    has(&["conflist-shadowed"]);
    fs::remove_file(node.path("net.d/05-broken.conflist")).unwrap();
    put("20-dotfour.conf", r#"{"type": "dotfour"}"#);
    has(&["conflist-twice"]);
    fs::remove_file(node.path("net.d/20-dotfour.conf")).unwrap();
    fs::remove_file(node.path("net.d/10-dotfour.conflist")).unwrap();
    has(&["conflist-missing"]);
    fs::remove_dir_all(node.path("net.d")).unwrap();
    has(&["conflist-missing"]);
}

#[test]
fn a_node_that_does_not_forward_is_found() {
    let node = Node::healthy();
    run(&node.netns, "echo 0 >/proc/sys/net/ipv4/ip_forward");
    node.has(2, &["forwarding-off"]);
}

#[test]
fn a_firewall_that_drops_pods_packets_is_found_whichever_tool_made_it() {
    let node = Node::healthy();
    for tool in ["iptables-nft", "iptables-legacy"] {
        let rule = |words: &str| run(&node.netns, &format!("{tool} -w 5 {words}"));
        rule("-P FORWARD DROP");
        node.has(2, &["forward-drops"]);
        rule("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        node.has(2, &["forward-drops"]);
        rule("-N KUBE-FORWARD");
        rule("-A FORWARD -j KUBE-FORWARD");
        node.has(1, &["forward-may-drop"]);
        rule("-A FORWARD -i azv+ -j ACCEPT");
        node.has(0, &[]);
        rule("-D FORWARD -i azv+ -j ACCEPT");
        rule("-P FORWARD ACCEPT");
        node.has(0, &[]);
    }
    let nft = |words: &str| run(&node.netns, &format!("nft '{words}'"));
    nft("add table inet fw; add chain inet fw way { type filter hook forward priority 0; policy drop; }");
    node.has(2, &["forward-drops"]);
    nft("add rule inet fw way ct state established,related accept");
    node.has(2, &["forward-drops"]);
    nft("add rule inet fw way ip daddr 10.0.0.0/8 accept");
    node.has(1, &["forward-may-drop"]);
    nft("add rule inet fw way oifname \"azv*\" counter accept");
    node.has(0, &[]);
    nft("add table bridge fw; add chain bridge fw way { type filter hook forward priority 0; policy drop; }");
    node.has(0, &[]);
}

#[test]
fn a_pool_that_is_smaller_than_max_pods_is_found() {
    let node = Node::healthy();
    let text = fs::read_to_string(node.path("ipamd.yaml")).unwrap();
    fs::write(node.path("ipamd.yaml"), text.replace("maxPods: 5", "maxPods: 6")).unwrap();
    node.has(1, &["pool-small"]);
    assert!(node.says().contains("eth0 has 5 IPv4 pod addresses, and maxPods is 6"), "{}", node.says());
}

#[test]
fn a_family_of_which_there_are_too_few_is_found_although_there_are_enough_of_both() {
    let node = Node::with(", fd00::/64", ", fd00::5-fd00::6");
    node.has(1, &["pool-small"]);
    assert!(node.says().contains("eth0 has 2 IPv6 pod addresses, and maxPods is 5"), "{}", node.says());
}

#[test]
fn what_the_ip_masq_agent_left_is_found() {
    for program in ["iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"] {
        let node = Node::healthy();
        run(&node.netns, &format!("{program} -w 5 -t nat -N IP-MASQ-AGENT"));
        node.has(1, &["masq-agent-left"]);
    }
}

#[test]
fn a_doctor_that_is_not_understood_has_a_status_of_its_own() {
    let status = |arguments: &[&str]| Command::new(CTL).args(arguments).output().unwrap().status.code();
    assert_eq!(status(&["doctor", "--loud"]), Some(3));
    assert_eq!(status(&["dance"]), Some(2));
    assert_eq!(status(&["status", "--plugin", "/x"]), Some(2));
}

#[test]
fn what_nobody_hears_is_a_failure_and_no_crash() {
    let said = |stdout: Stdio| {
        let output = Command::new(CTL).arg("--help").stdout(stdout).stderr(Stdio::piped()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(said(closed.into()), (Some(1), String::new()));
    let (status, complaint) = said(fs::File::create("/dev/full").unwrap().into());
    assert_eq!(status, Some(1));
    assert!(complaint.contains("standard output cannot be written"), "{complaint}");
}
