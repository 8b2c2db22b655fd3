//! Kubernetes' components beside the daemon: processes with their names and command lines, in the node's network namespace.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dotfour_datapath::Netns;

use super::{Node, program};

/// A process that has a component's name and arguments, and waits. It is killed when it is dropped.
struct Component(Child);

impl Drop for Component {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs shell commands first, in a mount namespace of its own as a container has one.
fn contained(netns: &Netns, name: &str, first: &str, arguments: &[&str]) -> Component {
    let mut command = Command::new("unshare");
    let script = format!("{first}\nexec -a {name} bash -c 'read line' \"$@\"");
    command.args(["--mount", "bash", "-ec", &script, name, name]).args(arguments).stdin(Stdio::piped());
    start(netns, name, &mut command)
}

fn component(netns: &Netns, name: &str, arguments: &[&str]) -> Component {
    let mut command = Command::new("bash");
    command.arg0(name).args(["-c", "read line", name]).args(arguments).stdin(Stdio::piped());
    start(netns, name, &mut command)
}

fn start(netns: &Netns, name: &str, command: &mut Command) -> Component {
    let component = Component(netns.run(|| command.spawn().unwrap()).unwrap());
    let begun = Instant::now();
    let cmdline = format!("/proc/{}/cmdline", component.0.id());
    while !fs::read(&cmdline).unwrap().starts_with(format!("{name}\0").as_bytes()) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{name} does not start");
        std::thread::sleep(Duration::from_millis(2));
    }
    component
}

#[test]
fn a_kubelet_that_takes_more_pods_than_the_node_is_found_wherever_that_is_said() {
    let node = Node::healthy();
    let write = |name: &str, text: &str| fs::write(node.path(name), text).unwrap();
    let kubelet = |arguments: &str| {
        let arguments = arguments.replace("DIR", node.directory.path().to_str().unwrap());
        component(&node.netns, "kubelet", &arguments.split_whitespace().collect::<Vec<_>>())
    };
    write("kubelet.yaml", "kind: KubeletConfiguration\nmaxPods: 5\n");
    fs::create_dir(node.path("drop-ins")).unwrap();
    write("drop-ins/10-first.conf", "maxPods: 7");
    write("drop-ins/20-second.conf", "maxPods: 6");
    write("drop-ins/30-third.yaml", "maxPods: 5");
    for (arguments, told) in [
        ("", "takes 110 pods (Kubernetes' default), and maxPods is 5"),
        ("--config DIR/kubelet.yaml --config-dir=DIR/drop-ins", "takes 6 pods ("),
        ("--config=DIR/kubelet.yaml --max-pods 9", "takes 9 pods (its flag --max-pods)"),
    ] {
        let _kubelet = kubelet(arguments);
        node.has(1, &["kubelet-max-pods"]);
        assert!(node.says().contains(told), "{arguments}: {}", node.says());
    }
    for arguments in ["--config=DIR/kubelet.yaml", "--max-pods=5", "--max-pods=4"] {
        let _kubelet = kubelet(arguments);
        node.has(0, &[]);
        assert!(!node.says().contains("not seen"), "{arguments}: {}", node.says());
    }
    write("kubelet.yaml", "maxPods: [");
    for arguments in ["--config=DIR/kubelet.yaml", "--config=DIR/absent.yaml", "--config-dir=DIR/absent"] {
        let _kubelet = kubelet(arguments);
        node.has(0, &[]);
        let text = node.says();
        assert!(
            text.contains(&format!("not seen: the kubelet's maxPods, because {}", node.path("").display())),
            "{text}"
        );
    }
}

#[test]
fn a_kubelet_of_another_node_on_this_machine_is_not_ours() {
    let node = Node::healthy();
    let other = Netns::create().unwrap();
    let _kubelet = component(&other, "kubelet", &[]);
    let _another = component(&node.netns, "kubelet-watcher", &[]);
    node.has(0, &[]);
}

#[test]
fn a_kube_proxy_in_its_container_that_does_not_know_pods_is_found() {
    let node = Node::healthy();
    let proxy = |text: &str| {
        // As a ConfigMap is mounted, but for the absolute link: that one leads astray who follows it from outside.
        let first = format!(
            "mount -t tmpfs none /mnt; mkdir /mnt/..data; echo '{text}' >/mnt/..data/config.conf; \
             ln -s /mnt/..data/config.conf /mnt/config.conf"
        );
        contained(&node.netns, "kube-proxy", &first, &["--config=/mnt/config.conf", "--hostname-override=node"])
    };
    for (text, told) in [
        ("mode: ipvs", "has the detectLocalMode ClusterCIDR, and no clusterCIDR (/mnt/config.conf, mode ipvs)"),
        ("clusterCIDR: 10.244.0.0/16", "where pods have addresses such as 10.240.0.4"),
        ("{detectLocalMode: InterfaceNamePrefix, detectLocal: {interfaceNamePrefix: veth}}", "pods' are azv*"),
    ] {
        let _proxy = proxy(text);
        node.has(1, &["kube-proxy-local-mode"]);
        assert!(node.says().contains(told), "{text}: {}", node.says());
    }
    let shipped = include_str!("../../../manifests/host/kube-proxy-dotfour.yaml").replace('\'', "");
    for text in [&shipped, "clusterCIDR: 10.0.0.0/8"] {
        let _proxy = proxy(text);
        node.has(0, &[]);
        assert!(!node.says().contains("not seen: kube-proxy"), "{text}: {}", node.says());
    }
    let _proxy = proxy(&format!("{shipped}\niptables: {{masqueradeAll: true}}"));
    node.has(1, &["kube-proxy-masquerade-all"]);
}

#[test]
fn a_kube_proxy_without_a_file_is_known_by_its_flags() {
    let node = Node::healthy();
    let right = ["--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix", "azv"];
    for (arguments, codes) in [
        (&right[..], &[][..]),
        (&right[..1], &["kube-proxy-local-mode"]),
        (&[right[0], right[1], right[2], "--masquerade-all"], &["kube-proxy-masquerade-all"]),
    ] {
        let _proxy = component(&node.netns, "kube-proxy", arguments);
        node.has(i32::from(!codes.is_empty()), codes);
    }
    let node = node.without_daemon();
    let _proxy = component(&node.netns, "kube-proxy", &["--cluster-cidr=10.244.0.0/16"]);
    node.has(2, &["daemon-unreachable"]);
    let text = node.says();
    assert!(text.contains("not seen: whether kube-proxy knows pods, because clusterCIDR is 10.244.0.0/16"), "{text}");
}

#[test]
fn a_controller_manager_that_writes_routes_is_found() {
    let node = Node::healthy();
    let line = ["--allocate-node-cidrs=true", "--cloud-provider=azure", "--configure-cloud-routes=false"];
    for name in ["cloud-controller-manager", "/usr/local/bin/kube-controller-manager"] {
        let _manager = component(&node.netns, name, &line[..2]);
        node.has(1, &["cloud-routes"]);
        drop(_manager);
        let _manager = component(&node.netns, name, &line);
        node.has(0, &[]);
    }
}

#[test]
fn a_pod_whose_namespace_nobody_told_is_found_where_namespaces_are_exempt() {
    let node = Node::healthy();
    let pods: Vec<Netns> = [(); 2].map(|()| Netns::create().unwrap()).into();
    let add = |pod: &Netns, id: &str, arguments: &str| {
        let netconf = format!(
            r#"{{"cniVersion": "1.0.0", "name": "azure", "type": "dotfour", "socket": "{}"}}"#,
            node.path("state/ipamd.sock").display()
        );
        fs::write(node.path("netconf"), netconf).unwrap();
        let mut command = Command::new(program("dotfour"));
        command.env_clear().env("CNI_COMMAND", "ADD").env("CNI_CONTAINERID", id).env("CNI_IFNAME", "eth0");
        command.env("CNI_NETNS", format!("/proc/{}/fd/{}", std::process::id(), pod.as_fd().as_raw_fd()));
        command.env("CNI_PATH", node.path("bin")).env("CNI_ARGS", arguments);
        command.stdin(fs::File::open(node.path("netconf")).unwrap());
        let output = node.netns.run(|| command.output().unwrap()).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    };
    let name = "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=agent;K8S_POD_INFRA_CONTAINER_ID=named";
    add(&pods[0], "named", name);
    let text = fs::read_to_string(node.path("ipamd.yaml")).unwrap();
    let exempt = format!("{text}metadata: {{access: block, exemptNamespaces: [kube-system]}}\n");
    fs::write(node.path("ipamd.yaml"), &exempt).unwrap();
    node.has(0, &[]);
    add(&pods[1], "nameless", "K8S_POD_NAME=lonely");
    node.has(1, &["metadata-exempt-unknown"]);
    assert!(node.says().contains("1 pods' namespaces are not known, such as that of nameless"), "{}", node.says());
    fs::write(node.path("ipamd.yaml"), text).unwrap();
    node.has(0, &[]);
}

#[test]
fn a_doctor_in_a_container_says_that_it_sees_no_kubelet() {
    let node = Node::healthy();
    let _kubelet = component(&node.netns, "kubelet", &[]);
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", super::CTL, "--config"]).arg(node.path("ipamd.yaml"));
    command.args(["doctor", "--plugin"]).arg(program("dotfour"));
    let output = node.netns.run(|| command.output().unwrap()).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("not seen: the settings of kubelet, kube-proxy and controller managers, because"),
        "{text}"
    );
    assert_eq!(output.status.code(), Some(0));
}
