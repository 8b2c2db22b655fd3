//! A plugin behind Dotfour that never succeeds. A kubelet tries again for ever; no try may cost an address.

use std::time::{Duration, Instant};

use dotfour_e2e::views::Views;
use dotfour_ipamd::client;
use dotfour_rig::{Place, Pod, Runtime};
use serde_json::json;

use crate::Outcome;
use crate::stage::{Stage, bandwidth, portmap};

/// Addresses of the node.
const POOL: usize = 16;
const TRIES: usize = 200;
/// Tries through the plugins that call iptables and tc, which take their time.
const TRIES_THROUGH_ALL: usize = 10;
/// As long as 16 addresses last at the speed of these tries.
const COOLDOWN: Duration = Duration::from_millis(20);
/// How long a try waits for a free address, so that what fails is what never comes back: the namespace of a sandbox that
/// is not deleted takes the kernel its time to end, with many of them at a time. Less than the 30 s after which the daemon
/// compares leases with links, or that would hide that it has missed the end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at that.
const PAUSE: Duration = Duration::from_millis(1);

/// Says no to ADD, and yes to all else.
const FAILS_ADD: &str = r#"#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion":"1.0.0","code":999,"msg":"never"}'; exit 1
"#;
/// Says no to everything: a runtime that gets this from a DEL calls nobody in front of it (containerd#12130).
const FAILS_ALL: &str = r#"#!/bin/sh
echo '{"cniVersion":"1.0.0","code":999,"msg":"never"}'; exit 1
"#;

/// DEL reaches Dotfour: the same sandbox can be tried as fast as may be.
pub(crate) fn adds(place: &Place) -> Outcome {
    let stage = Stage::set(place, POOL, COOLDOWN)?;
    stage.install("fails-add", FAILS_ADD)?;
    let failing = json!({ "type": "fails-add" });
    let network = stage.chain(std::slice::from_ref(&failing), &json!({}))?;
    let pod = Pod::create(&stage.node, "default", "never")?;
    let began = Instant::now();
    for number in 0..TRIES {
        try_once(&stage, &network, &pod).map_err(|e| format!("try {number}: {e}"))?;
        Runtime::new(&stage.node, &network).del(&pod, None)?;
    }
    println!("a later plugin fails every ADD: {TRIES} tries, each with its DEL, in {:.2?}", began.elapsed());
    stage.bury()?;
    assert_eq!(pod.links()?.len(), 1, "something is left in the pod");

    // The plugins in between have to clean up, too, and only can with what Dotfour left them.
    let mapping = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
    let limit = json!({ "ingressRate": 8_000_000, "ingressBurst": 400_000 });
    let arguments = json!({ "portMappings": mapping, "bandwidth": limit });
    let healthy = stage.chain(&[portmap(), bandwidth()], &arguments)?;
    let network = stage.chain(&[portmap(), bandwidth(), failing], &arguments)?;
    let before = stage.warm(&healthy)?;
    for number in 0..TRIES_THROUGH_ALL {
        try_once(&stage, &network, &pod).map_err(|e| format!("try {number} through all: {e}"))?;
        Runtime::new(&stage.node, &network).del(&pod, None)?;
    }
    stage.as_before(&before, &pod.container_id)
}

/// DEL does not reach Dotfour: all it ever learns is that the sandbox's namespace ends.
pub(crate) fn adds_and_dels(place: &Place) -> Outcome {
    let stage = Stage::set(place, POOL, COOLDOWN)?;
    stage.install("fails-all", FAILS_ALL)?;
    let network = stage.chain(&[json!({ "type": "fails-all" })], &json!({}))?;
    let (began, mut most) = (Instant::now(), 0);
    for number in 0..TRIES {
        let pod = Pod::create(&stage.node, "default", "never")?;
        try_once(&stage, &network, &pod).map_err(|e| format!("try {number}: {e}"))?;
        let deleted = Runtime::new(&stage.node, &network).del(&pod, None);
        assert!(deleted.is_err_and(|e| e.cni().is_some_and(|e| e.code == 999)), "DEL must stop at the failing plugin");
        drop(pod);
        if number % 10 == 0 {
            let pool = Views::take(&stage.vnet, &stage.node, [])?.daemon.pool;
            most = most.max(pool.total - pool.free);
        }
    }
    println!(
        "a later plugin fails every ADD and DEL: {TRIES} tries in {:.2?}, at most {most} of {POOL} addresses not free",
        began.elapsed()
    );
    stage.bury()
}

/// One ADD, which must fail because of the last plugin and not of the first.
fn try_once(stage: &Stage, network: &dotfour_rig::Network, pod: &Pod) -> Outcome {
    let begun = Instant::now();
    while client::status(stage.daemon.socket())?.pool.free == 0 {
        if begun.elapsed() > PATIENCE {
            return Err(format!("no address is free after {PATIENCE:?}\n{}", stage.daemon.log_tail()).into());
        }
        std::thread::sleep(PAUSE);
    }
    match Runtime::new(&stage.node, network).add(pod) {
        Err(e) if e.cni().is_some_and(|e| e.code == 999) => Ok(()),
        Err(e) => Err(e.into()),
        Ok(answer) => Err(format!("the chain succeeded: {}", answer.result).into()),
    }
}
