//! All three behind Dotfour, as a node's list has them.

use std::net::SocketAddr;
use std::time::Duration;

use dotfour_datapath::link::{LinkChange, LinkId};
use dotfour_datapath::netns::open_socket_in;
use dotfour_datapath::{Batch, Netns};
use dotfour_e2e::program::Failure;
use dotfour_e2e::transfer;
use dotfour_rig::probe::Pinger;
use dotfour_rig::runtime::CallError;
use dotfour_rig::{Network, Place, Runtime};
use rustix::fd::AsFd as _;
use serde_json::{Value, json};

use crate::Outcome;
use crate::stage::{Stage, Up, bandwidth, portmap, sysctl, tuning};

const SOON: Duration = Duration::from_secs(5);

pub(crate) fn checked(place: &Place) -> Outcome {
    let stage = Stage::set(place, 8, Duration::from_secs(30))?;
    let mapping = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
    let (rate, burst) = (80_000_000, 8_000_000);
    let limit = json!({ "ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst });
    let arguments = json!({ "portMappings": mapping, "bandwidth": limit });
    // portmap 1.1.1 (Debian 12) looks for IPv6 rules of every pod where there is an ip6tables, and its CHECK fails behind
    // any plugin that gives a pod no IPv6 address. On a node without ip6tables it does not look.
    stage.install(
        "portmap",
        r#"#!/bin/sh
cd "${0%/*}" && mkdir -p ipv4-only && ln -sf "$(command -v iptables)" ipv4-only/ || exit 1
PATH=$PWD/ipv4-only exec /usr/lib/cni/portmap
"#,
    )?;
    let network = stage.chain(&[portmap(), bandwidth(), tuning()], &arguments)?;
    let before = stage.warm(&network)?;

    let web = Up::add(&stage, &network, "web")?;
    assert_eq!(sysctl(web.pod.netns(), "net/core/somaxconn")?, "500");
    // What the last plugin returned is what Dotfour said, and what bandwidth put in beside it.
    let interfaces = web.result.get("interfaces").and_then(Value::as_array).ok_or("no interfaces")?;
    let sandboxed = |interface: &&Value| interface.get("sandbox").is_some_and(|sandbox| sandbox != "");
    let own: Vec<_> = interfaces.iter().filter(sandboxed).map(|interface| &interface["name"]).collect();
    assert_eq!(own, ["eth0"], "{}", web.result);
    assert_eq!(interfaces.len(), 3, "the node's end, the pod's end and bandwidth's ifb: {}", web.result);

    let node_port = SocketAddr::from((stage.node.address(), 8080));
    transfer::send((stage.other.netns(), node_port), (web.pod.netns(), 80), 1_000, SOON)?;
    check(&stage, &network, &web)?.map_err(|e| format!("CHECK of the whole chain: {e}"))?;

    // A fault in Dotfour's part is found through the whole chain, too, and with Dotfour's words.
    set_pod_link(&web, false)?;
    fails(check(&stage, &network, &web)?, 106)?;
    Runtime::new(&stage.node, &network).del(&web.pod, Some(&web.result))?;
    fails(check(&stage, &network, &web)?, 3)?;
    // A second DEL, with the result and without.
    Runtime::new(&stage.node, &network).del(&web.pod, Some(&web.result))?;
    Runtime::new(&stage.node, &network).del(&web.pod, None)?;
    stage.as_before(&before, &web.pod.container_id)
}

/// What a later plugin changes on purpose is no fault (SPEC.md 1.1.0, "CHECK", plugin considerations), unless it cuts the
/// pod off: the node knows the pod's MAC address and never asks for it.
pub(crate) fn tuned(place: &Place) -> Outcome {
    let stage = Stage::set(place, 8, Duration::from_secs(30))?;
    let (mut wrong, mac) = (Vec::new(), "c2:b0:57:49:47:f1");
    for (change, harmless) in
        [(json!({ "mtu": 1400 }), true), (json!({ "promisc": true }), true), (json!({ "mac": mac }), false)]
    {
        let mut tuning = tuning();
        tuning.as_object_mut().ok_or("no object")?.extend(change.as_object().cloned().unwrap_or_default());
        let network = stage.chain(&[tuning], &json!({}))?;
        let web = Up::add(&stage, &network, "web")?;
        match (check(&stage, &network, &web)?, harmless) {
            (Err(e), true) => wrong.push(format!("behind it {change}: {e}")),
            (Ok(()), false) => wrong.push(format!("behind it {change}: CHECK finds nothing")),
            _ => {}
        }
        let wait = if harmless { SOON } else { Duration::from_millis(200) };
        let answers = Pinger::open(stage.other.netns())?.ping(web.address, wait)?.is_some();
        if answers != harmless {
            wrong.push(format!("behind it {change}: does the pod answer? {answers}"));
        }
        Runtime::new(&stage.node, &network).del(&web.pod, Some(&web.result))?;
    }
    stage.bury()?;
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n  ").into()) }
}

/// CHECK of every plugin; the outer error is the test's, the inner one the plugin's.
fn check(stage: &Stage, network: &Network, up: &Up) -> Result<Result<(), CallError>, Failure> {
    Ok(Runtime::new(&stage.node, network).enter(|calls| calls.check(&up.pod, &up.result).map(drop))?)
}

/// Fails unless a plugin has, with this code.
fn fails(outcome: Result<(), CallError>, code: u32) -> Outcome {
    match outcome {
        Err(e) if e.cni().is_some_and(|e| e.code == code) => Ok(()),
        other => Err(format!("a failure with code {code} was expected: {other:?}").into()),
    }
}

fn set_pod_link(up: &Up, is_up: bool) -> Outcome {
    let mut batch = Batch::new();
    let change = LinkChange { up: Some(is_up), ..LinkChange::default() };
    batch.change_link("change the pod's link", LinkId::Name("eth0"), &change);
    Ok(open_socket_in(up.pod.netns().as_fd(), &Netns::current()?)?.run(batch)?)
}
