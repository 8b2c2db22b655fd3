//! The table of verbs, cases and versions. It is printed, and compared with what is written here.

use std::time::Duration;

use dotfour_datapath::link::{LinkChange, LinkId, VethEnd, VethPair};
use dotfour_datapath::netns::open_socket_in;
use dotfour_datapath::{Batch, Netns};
use dotfour_e2e::program::{self, Failure};
use dotfour_rig::{NodeConfig, Place, Pod};
use rustix::fd::AsFd as _;
use serde_json::{Value, json};

use crate::Outcome;
use crate::call::{Call, Said, VERSIONS};
use crate::stage::Stage;

/// Verb, case, and what is to come of it.
type Row = (&'static str, &'static str, &'static str);

/// The rows seen, each with what came of it in each version.
#[derive(Default)]
struct Table(Vec<(Row, Vec<String>)>);

pub(crate) fn filled(place: &Place) -> Outcome {
    let mut config = program::daemon()?;
    config.cooldown = Duration::from_millis(50);
    let stage = Stage::set(place, 8, &config)?;
    let mut table = Table::default();
    for version in VERSIONS {
        with_daemon(&stage, version, &mut table)?;
        stage.is_empty()?;
        on_a_full_node(&stage, version, &mut table)?;
    }
    // The last of it: the daemon is gone for good, and a DEL stays in the spool.
    let Stage { daemon, node, other: _other, vnet } = stage;
    assert!(daemon.stop(Duration::from_secs(5))?.success());
    let pod = Pod::create(&node, "default", "late")?;
    let list = json!([]);
    for version in VERSIONS {
        let call = |verb: &str| Call::new(verb, version, &node);
        table.see(("ADD", "no daemon", "1 11 daemon-unavailable"), &call("ADD").of(&pod))?;
        table.see(("DEL", "no daemon", "0 nothing"), &call("DEL").of(&pod))?;
        let check = call("CHECK").of(&pod).conf("prevResult", json!({ "ips": [] }));
        table.see(("CHECK", "no daemon", "1 11 daemon-unavailable"), &check)?;
        let gc = call("GC").conf("cni.dev/valid-attachments", list.clone());
        table.see(("GC", "no daemon", "1 11 daemon-unavailable"), &gc)?;
        table.see(("STATUS", "no daemon", "1 50 not-ready"), &call("STATUS"))?;
        table.see(("VERSION", "no daemon", "0 versions"), &call("VERSION"))?;
    }
    drop(vnet);
    table.judge()
}

fn with_daemon(stage: &Stage, version: &str, table: &mut Table) -> Outcome {
    let node = &stage.node;
    let call = |verb: &str| Call::new(verb, version, node);
    let pod = Pod::create(node, "default", "web")?;
    let (add, del) = (call("ADD").of(&pod), call("DEL").of(&pod));
    table.see(("VERSION", "daemon there", "0 versions"), &call("VERSION"))?;
    table.see(("STATUS", "daemon there", "0 nothing"), &call("STATUS"))?;

    // None that the node has: a pod might happen to get it.
    let made_up = json!({ "cniVersion": version, "ips": [{ "address": "10.240.99.9/32" }] });
    let check = |result: &Value| call("CHECK").of(&pod).conf("prevResult", result.clone());
    table.see(("CHECK", "container unknown", "1 3 unknown-container"), &check(&made_up))?;
    table.see(("DEL", "container unknown", "0 nothing"), &call("DEL").of(&pod).set("CNI_CONTAINERID", "unknown"))?;

    let first = table.see(("ADD", "first", "0 result"), &add)?.json();
    let second = table.see(("ADD", "second, the same answer", "0 result"), &add)?.json();
    assert_eq!(first, second, "{version}: a second ADD answers otherwise");
    let stranger = Pod::create(node, "default", "stranger")?;
    let elsewhere = add.clone().set("CNI_NETNS", &stranger.netns_path().display().to_string());
    table.see(("ADD", "second, in another namespace", "1 100 attachment-conflict"), &elsewhere)?;
    let after = Call::of(call("ADD"), &stranger).conf("prevResult", made_up.clone());
    let behind = table.see(("ADD", "behind a plugin with a result", "0 result"), &after)?.json();
    assert_eq!(behind["interfaces"].as_array().map(Vec::len), Some(2));
    assert!(Call::of(call("DEL"), &stranger).run()?.cell() == "0 nothing");

    table.see(("CHECK", "nothing changed", "0 nothing"), &check(&first))?;
    table.see(("CHECK", "no prevResult", "1 7 invalid-network-config"), &call("CHECK").of(&pod))?;
    table.see(("CHECK", "another address in prevResult", "1 106 attachment-differs"), &check(&made_up))?;
    let valid = json!([{ "containerID": pod.container_id, "ifname": "eth0" }]);
    let gc = call("GC");
    table.see(("GC", "all listed", "0 nothing"), &gc.clone().conf("cni.dev/valid-attachments", valid))?;
    table.see(
        ("GC", "none listed, all too young", "0 nothing"),
        &gc.clone().conf("cni.dev/valid-attachments", json!([])),
    )?;
    table.see(("GC", "no list", "1 7 invalid-network-config"), &gc)?;
    table.see(("CHECK", "after these GCs", "0 nothing"), &check(&first))?;
    set_down(&pod)?;
    table.see(("CHECK", "the pod's link is down", "1 106 attachment-differs"), &check(&first))?;

    table.see(("DEL", "first", "0 nothing"), &del.clone().conf("prevResult", first.clone()))?;
    table.see(("DEL", "second", "0 nothing"), &del.clone().conf("prevResult", first.clone()))?;
    table.see(("CHECK", "after DEL", "1 3 unknown-container"), &check(&first))?;
    table.see(("DEL", "another interface name", "0 nothing"), &del.clone().set("CNI_IFNAME", "net1"))?;
    table.see(("ADD", "at once after DEL", "0 result"), &add)?;
    table.see(("DEL", "no CNI_NETNS and no prevResult", "0 nothing"), &del.clone().without("CNI_NETNS"))?;
    table.see(
        ("ADD", "the namespace is a file", "1 4 invalid-namespace"),
        &add.clone().set("CNI_NETNS", "/proc/version"),
    )?;
    table.see(("ADD", "the namespace is gone", "1 4 invalid-namespace"), &add.set("CNI_NETNS", "/run/netns/gone"))?;
    let taken = Pod::create(node, "default", "taken")?;
    plant(&taken)?;
    table.see(("ADD", "somebody else's interface is there", "1 4 interface-taken"), &call("ADD").of(&taken))?;
    Ok(())
}

/// What a pool without a free address answers, on a node of its own.
fn on_a_full_node(stage: &Stage, version: &str, table: &mut Table) -> Outcome {
    let node = stage.vnet.add_node(&NodeConfig::new(format!("full-{version}"), 1))?;
    let _daemon = node.start_daemon(&program::daemon()?)?;
    let (first, second) = (Pod::create(&node, "default", "first")?, Pod::create(&node, "default", "second")?);
    let call = |verb: &str| Call::new(verb, version, &node);
    assert_eq!(call("ADD").of(&first).run()?.cell(), "0 result");
    table.see(("ADD", "no address is free", "1 11 pool-exhausted"), &call("ADD").of(&second))?;
    table.see(("STATUS", "no address is free", "0 nothing"), &call("STATUS"))?;
    Ok(stage.vnet.remove_node(&node)?)
}

impl Table {
    /// Makes a call and writes down what came of it. Every version makes the same calls in the same order.
    fn see(&mut self, row: Row, call: &Call) -> Result<Said, Failure> {
        let said = call.run()?;
        let place = self.0.iter().position(|(known, _)| *known == row);
        let place = place.unwrap_or_else(|| {
            self.0.push((row, Vec::new()));
            self.0.len() - 1
        });
        if let Some((_, cells)) = self.0.get_mut(place) {
            cells.push(said.cell());
        }
        Ok(said)
    }

    /// Prints it, and fails unless every cell is as expected.
    fn judge(&self) -> Outcome {
        println!("| verb | case | {} |", VERSIONS.join(" | "));
        println!("|---|---|{}", "---|".repeat(VERSIONS.len()));
        let mut wrong = Vec::new();
        for ((verb, case, expected), cells) in &self.0 {
            println!("| {verb} | {case} | {} |", cells.join(" | "));
            if cells.len() != VERSIONS.len() || cells.iter().any(|cell| cell != expected) {
                wrong.push(format!("{verb}, {case}: expected {expected:?}, and came {cells:?}"));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n  ").into()) }
    }
}

fn set_down(pod: &Pod) -> Outcome {
    let down = LinkChange { up: Some(false), ..LinkChange::default() };
    inside(pod, |batch| batch.change_link("set the pod's link down", LinkId::Name("eth0"), &down))
}

/// An interface of another plugin's.
fn plant(pod: &Pod) -> Outcome {
    let pair = VethPair {
        near: VethEnd { name: "eth0", mac: None, index: None },
        far: VethEnd { name: "peer", mac: None, index: None },
        far_netns: None,
        mtu: 1500,
    };
    inside(pod, |batch| batch.create_veth("make an interface", &pair))
}

fn inside(pod: &Pod, change: impl FnOnce(&mut Batch)) -> Outcome {
    let mut batch = Batch::new();
    change(&mut batch);
    Ok(open_socket_in(pod.netns().as_fd(), &Netns::current()?)?.run(batch)?)
}
