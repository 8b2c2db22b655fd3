//! The runtime's calls, with the reference plugins of Debian's containernetworking-plugins.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dotfour_rig::probe::{Mirror, Pinger, seen_as};
use dotfour_rig::runtime::{CallError, Verb};
use dotfour_rig::{Network, Node, NodeConfig, Place, Pod, Runtime, Vnet, VnetConfig};
use serde_json::{Value, json};

tests![
    a_pod_of_the_reference_plugins_talks_and_is_gone_after_del,
    a_list_hands_each_result_on,
    plugins_get_what_libcni_gives_them_and_del_runs_backwards,
    many_callers_share_the_work_and_answers_keep_their_order,
    a_plugin_that_is_not_waited_for_can_be_killed,
    a_plugin_whose_caller_died_goes_on_and_cannot_answer,
    a_failing_plugin_is_reported_with_its_own_words,
    a_program_that_is_not_there_is_named,
    a_namespace_path_is_good_without_a_mount,
];

const PLUGINS: &str = "/usr/lib/cni";
const SOON: Duration = Duration::from_secs(5);

fn node(place: Place) -> (Vnet, Node) {
    assert!(Path::new(PLUGINS).join("ptp").exists(), "these tests need Debian's containernetworking-plugins");
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse().unwrap(), place }).unwrap();
    let node = vnet.add_node(&NodeConfig::new("node-1", 0)).unwrap();
    (vnet, node)
}

fn ptp(node: &Node) -> Network {
    Network::ptp(Path::new(PLUGINS), "10.22.0.0/16".parse().unwrap(), &node.state_dir().join("host-local"))
}

/// Names of the links of a node that a plugin may have made.
fn pod_links(node: &Node) -> Vec<String> {
    let links = node.links().unwrap().into_iter().map(|link| link.name);
    links.filter(|name| name != "lo" && name != "eth0").collect()
}

fn a_pod_of_the_reference_plugins_talks_and_is_gone_after_del(place: Place) {
    let (_vnet, node) = node(place);
    let network = ptp(&node);
    let runtime = Runtime::new(&node, &network);
    let pods = [Pod::create(&node, "default", "a").unwrap(), Pod::create(&node, "default", "b").unwrap()];
    let answers: Vec<_> = pods.iter().map(|pod| runtime.add(pod).unwrap()).collect();
    let addresses: Vec<Ipv4Addr> = answers.iter().map(|answer| answer.ipv4().unwrap()).collect();
    assert_ne!(addresses[0], addresses[1]);
    assert!(answers.iter().all(|answer| answer.took > Duration::from_micros(500)), "{answers:?}");

    let round_trip = Pinger::open(pods[0].netns()).unwrap().ping(addresses[1], SOON).unwrap();
    assert!(round_trip.is_some());
    let mirror = Mirror::start(pods[1].netns()).unwrap();
    let responder = SocketAddr::from((addresses[1], mirror.port()));
    assert_eq!(seen_as(pods[0].netns(), responder, SOON).unwrap(), Some(addresses[0].into()));

    assert_eq!(pod_links(&node).len(), 2);
    for (pod, answer) in pods.iter().zip(&answers) {
        runtime.del(pod, Some(&answer.result)).unwrap();
        // A second DEL is as good as the first.
        runtime.del(pod, Some(&answer.result)).unwrap();
        assert_eq!(pod.links().unwrap().len(), 1);
    }
    assert_eq!(pod_links(&node).len(), 0);
}

fn a_list_hands_each_result_on(place: Place) {
    let (_vnet, node) = node(place);
    let mut network = ptp(&node);
    // tuning needs a prevResult with the pod's interface, and passes it on.
    let list = json!({
        "cniVersion": "1.0.0", "name": "list",
        "plugins": [network.plugins[0].conf, { "type": "tuning", "mac": "c2:b0:57:49:47:f1" }],
    });
    network = Network::from_list(&list.to_string(), network.cni_path).unwrap();
    let runtime = Runtime::new(&node, &network);
    let pod = Pod::create(&node, "default", "a").unwrap();
    let answer = runtime.add(&pod).unwrap();
    assert!(answer.ipv4().is_some(), "{}", answer.result);
    let mac_of = |pod: &Pod| pod.links().unwrap().iter().find(|link| link.name == "eth0").and_then(|link| link.mac);
    assert_eq!(mac_of(&pod).unwrap().to_string(), "c2:b0:57:49:47:f1");
    runtime.enter(|calls| calls.check(&pod, &answer.result)).unwrap().unwrap();
    runtime.del(&pod, Some(&answer.result)).unwrap();
    assert_eq!(pod.links().unwrap().len(), 1);
}

fn plugins_get_what_libcni_gives_them_and_del_runs_backwards(place: Place) {
    let (_vnet, node) = node(place);
    let log = node.state_dir().join("calls");
    // A plugin that writes down what it gets, one JSON object a call, and answers an ADD with its own name.
    let script = format!(
        r#"#!/bin/sh
        input=$(cat); name=${{0##*/}}
        env | sed -n 's/^CNI_\(.*\)/\1/p' | sort | tr '\n' ' ' >> {log}; echo "$name $input" >> {log}
        [ $CNI_COMMAND = ADD ] && echo "{{\"from\":\"$name\"}}" || true"#,
        log = log.display()
    );
    for name in ["first", "second"] {
        install(&node, name, &script);
    }
    let list = r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"first","a":1},{"type":"second"}]}"#;
    let network = Network::from_list(list, vec![node.state_dir().to_owned()]).unwrap();
    let runtime = Runtime::new(&node, &network);
    let pod = Pod::create(&node, "default", "web-0").unwrap();
    let answer = runtime.add(&pod).unwrap();
    assert_eq!(answer.result, json!({ "from": "second" }));
    runtime.enter(|calls| calls.check(&pod, &answer.result)).unwrap().unwrap();
    runtime.del(&pod, Some(&answer.result)).unwrap();
    runtime.enter(|calls| calls.version()).unwrap().unwrap();

    let Pod { container_id, uid, .. } = &pod;
    let environment = |command: &str| {
        format!(
            "ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;\
             K8S_POD_INFRA_CONTAINER_ID={container_id};K8S_POD_UID={uid} COMMAND={command} CONTAINERID={container_id} \
             IFNAME=eth0 NETNS={} PATH={}",
            pod.netns_path().display(),
            node.state_dir().display()
        )
    };
    let second = json!({ "from": "second" });
    let expected = [
        (environment("ADD"), "first", json!({ "type": "first", "a": 1 })),
        (environment("ADD"), "second", json!({ "type": "second", "prevResult": { "from": "first" } })),
        (environment("CHECK"), "first", json!({ "type": "first", "a": 1, "prevResult": second })),
        (environment("CHECK"), "second", json!({ "type": "second", "prevResult": second })),
        (environment("DEL"), "second", json!({ "type": "second", "prevResult": second })),
        (environment("DEL"), "first", json!({ "type": "first", "a": 1, "prevResult": second })),
    ];
    let calls = std::fs::read_to_string(log).unwrap();
    let mut calls = calls.lines();
    for (environment, name, mut input) in expected {
        input["name"] = "n".into();
        input["cniVersion"] = "1.0.0".into();
        let call = calls.next().unwrap();
        let (seen, json) = call.split_once('{').unwrap();
        assert_eq!(seen, format!("{environment} {name} "));
        assert_eq!(serde_json::from_str::<Value>(&format!("{{{json}")).unwrap(), input);
    }
    let version = calls.next().unwrap();
    assert!(version.ends_with(r#"first {"cniVersion":"1.0.0"}"#), "{version}");
    assert_eq!(calls.next(), None);
}

fn many_callers_share_the_work_and_answers_keep_their_order(place: Place) {
    let (_vnet, node) = node(place);
    let network = ptp(&node);
    let runtime = Runtime::new(&node, &network);
    let pods: Vec<Pod> = (0..12).map(|i| Pod::create(&node, "default", &format!("pod-{i}")).unwrap()).collect();
    let answers = runtime.in_parallel(4, &pods, |calls, pod| calls.add(pod).unwrap()).unwrap();
    for (pod, answer) in pods.iter().zip(&answers) {
        let sandbox = answer.result["interfaces"].as_array().unwrap().iter().find_map(|i| i["sandbox"].as_str());
        assert_eq!(sandbox, pod.netns_path().to_str());
    }
    let deleted = runtime.in_parallel(4, &pods, |calls, pod| calls.del(pod, None).is_ok()).unwrap();
    assert_eq!(deleted, [true; 12]);
    assert_eq!(pod_links(&node).len(), 0);
}

fn a_plugin_that_is_not_waited_for_can_be_killed(place: Place) {
    let (_vnet, node) = node(place);
    let gate = node.state_dir().join("gate");
    // Ends when the gate is there; until then it can only be killed.
    install(
        &node,
        "waits",
        &format!("#!/bin/sh\nwhile ! [ -e {gate} ]; do sleep 0.01; done; echo '{{\"ips\":[]}}'", gate = gate.display()),
    );
    let network = Network::single("n", "1.0.0", &json!({ "type": "waits" }), vec![node.state_dir().to_owned()]);
    let pod = Pod::create(&node, "default", "a").unwrap();
    let start = || Runtime::new(&node, &network).enter(|calls| calls.start(Verb::Add, &pod, None)).unwrap().unwrap();
    let killed = start().kill().unwrap_err();
    assert!(killed.killed(), "{killed}");
    let running = start();
    std::fs::write(&gate, "").unwrap();
    let answer = running.finish().unwrap();
    assert_eq!(answer.result, json!({ "ips": [] }));
    // Its pipes are closed when it has ended, and killing it then changes nothing.
    let late = start();
    let begun = Instant::now();
    while state(late.pid().unwrap()) != 'Z' {
        assert!(begun.elapsed() < SOON, "it does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(late.kill().unwrap().result, answer.result);
}

/// A process's state (proc_pid_stat(5)): a letter behind the program's name, which is in parentheses and may hold anything.
fn state(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

fn a_plugin_whose_caller_died_goes_on_and_cannot_answer(place: Place) {
    let (_vnet, node) = node(place);
    let work = node.state_dir().join("work");
    let script = format!("#!/bin/sh\nsleep 0.1; echo done >{work}; echo '{{}}' || exit 3", work = work.display());
    install(&node, "slow", &script);
    let network = Network::single("n", "1.0.0", &json!({ "type": "slow" }), vec![node.state_dir().to_owned()]);
    let pod = Pod::create(&node, "default", "a").unwrap();
    let running = Runtime::new(&node, &network).enter(|calls| calls.start(Verb::Add, &pod, None)).unwrap().unwrap();
    let status = running.abandon().unwrap();
    assert!(!status.success(), "{status}");
    assert_eq!(std::fs::read_to_string(work).unwrap(), "done\n");
}

/// Writes a script by another process: a file that this one has open while a parallel test starts a program is "busy".
fn install(node: &Node, name: &str, script: &str) {
    let path = node.state_dir().join(name);
    let install = Command::new("install").args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped()).spawn();
    let mut install = install.unwrap();
    install.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(install.wait().unwrap().success());
}

fn a_failing_plugin_is_reported_with_its_own_words(place: Place) {
    let (_vnet, node) = node(place);
    let mut network = ptp(&node);
    network.plugins[0].conf["ipam"]["ranges"] = json!([[{ "subnet": "not a subnet" }]]);
    let pod = Pod::create(&node, "default", "a").unwrap();
    let refused = Runtime::new(&node, &network).add(&pod).unwrap_err();
    let error = refused.cni().unwrap_or_else(|| panic!("no error object: {refused}"));
    assert!(error.msg.contains("not a subnet"), "{error:?}");
    assert_eq!(pod_links(&node).len(), 0);
}

fn a_program_that_is_not_there_is_named(place: Place) {
    let (_vnet, node) = node(place);
    let network = Network::dotfour(Path::new("/nowhere"), Path::new("/nowhere/ipamd.sock"));
    let pod = Pod::create(&node, "default", "a").unwrap();
    let refused = Runtime::new(&node, &network).add(&pod).unwrap_err();
    assert!(matches!(refused, CallError::Run { .. }));
    assert!(refused.to_string().contains("/nowhere/dotfour"), "{refused}");
}

fn a_namespace_path_is_good_without_a_mount(place: Place) {
    let (_vnet, node) = node(Place::unnamed(place.state_dir()));
    let network = ptp(&node);
    let runtime = Runtime::new(&node, &network);
    let pod = Pod::create(&node, "default", "a").unwrap();
    assert!(pod.netns_path().starts_with("/proc"));
    let answer = runtime.add(&pod).unwrap();
    assert!(pod.links().unwrap().iter().any(|link| link.name == "eth0"));
    runtime.del(&pod, Some(&answer.result)).unwrap();
}
