//! Pods that talk.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dotfour_e2e::program;
use dotfour_rig::{DaemonConfig, Network, Node, NodeConfig, Place, Runtime, Vnet, VnetConfig};
use serde_json::{Value, json};

use crate::Outcome;
use crate::stage::{Stage, Up, network, ptp};

const COOLDOWN: Duration = Duration::from_secs(30);

pub(crate) fn by_ptp(place: &Place) -> Outcome {
    let stage = Stage::set(place, 6, COOLDOWN)?;
    talk_and_end(&stage, &ptp(&stage.node)?, &ptp(&stage.other)?)
}

/// A bridge has the gateway's address and a route to all of its subnet, so it wants a block of its own, whose gateway is
/// nobody else's.
pub(crate) fn by_bridge(place: &Place) -> Outcome {
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.clone() })?;
    let block = |number: u8| -> Result<(Node, dotfour_rig::Daemon), program::Failure> {
        let node = vnet.add_node(&NodeConfig::new(format!("node-{number}"), 0))?;
        let base = 64 * number;
        let addresses: Vec<Ipv4Addr> = (base + 4..base + 10).map(|last| Ipv4Addr::new(10, 240, 9, last)).collect();
        vnet.attach(&node, &addresses)?;
        let source = format!(
            "kind: static\nsubnet: 10.240.9.{base}/26\naddresses: [10.240.9.{}-10.240.9.{}]\n",
            base + 4,
            base + 9
        );
        let daemon = node.start_daemon(&DaemonConfig { source, cooldown: COOLDOWN, ..program::daemon()? })?;
        Ok((node, daemon))
    };
    let ((node, daemon), (other, _other_daemon)) = (block(1)?, block(2)?);
    let stage = Stage { daemon, node, other, _other_daemon, vnet };
    let bridge = |node: &Node| network(node, "bridge", &json!({ "bridge": "cni0", "isGateway": true }));
    talk_and_end(&stage, &bridge(&stage.node)?, &bridge(&stage.other)?)
}

/// Two pods on the first node and one on the other.
fn talk_and_end(stage: &Stage, network: &Network, elsewhere: &Network) -> Outcome {
    let (web, db) = (Up::add(&stage.node, network, "web")?, Up::add(&stage.node, network, "db")?);
    let far = Up::add(&stage.other, elsewhere, "far")?;
    for (from, to) in [(&web, &db), (&db, &web), (&web, &far), (&far, &db)] {
        from.reaches(to.address).map_err(|e| format!("{e}\n{}", from.result))?;
    }
    far.reaches(stage.node.address())?;
    web.reaches(stage.other.address())?;
    stage.agrees(&[&web, &db])?;

    // As `dotfourctl` shows it.
    let status = stage.status()?;
    assert_eq!((status.pool.assigned, status.attachments.len()), (2, 2));
    assert!(status.attachments.iter().all(|lease| lease.delegated && lease.host_ifname.is_empty()), "{status:?}");
    assert!(status.attachments.iter().all(|lease| lease.pod.is_some()), "{status:?}");

    let runtime = Runtime::new(&stage.node, network);
    runtime.enter(|calls| calls.check(&web.pod, &web.result))??;
    runtime.del(&web.pod, Some(&web.result))?;
    // Behind the other plugin's DEL, its CHECK fails because of the lease already.
    assert!(runtime.enter(|calls| calls.check(&web.pod, &web.result))?.is_err());
    stage.agrees(&[&db])?;
    runtime.del(&web.pod, None)?;
    runtime.del(&db.pod, None)?;
    stage.is_empty()
}

pub(crate) fn dual_stack(place: &Place) -> Outcome {
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16,fd00:10:240::/64".parse()?, place: place.clone() })?;
    let node = vnet.add_node(&NodeConfig::dual_stack("node-1", 4))?;
    let other = vnet.add_node(&NodeConfig::dual_stack("node-2", 0))?;
    let _daemon = node.start_daemon(&program::daemon()?)?;
    let web = Up::add(&node, &ptp(&node)?, "web")?;
    let ips = web.result.get("ips").and_then(Value::as_array).ok_or("no ips")?;
    let gateways: Vec<_> = ips.iter().filter_map(|ip| ip.get("gateway").and_then(Value::as_str)).collect();
    assert_eq!(gateways, ["10.240.0.1", "fe80::1234:5678:9abc"], "{}", web.result);
    let lengths = ips.iter().filter_map(|ip| ip.get("address")?.as_str()?.split('/').next_back());
    assert_eq!(lengths.collect::<Vec<_>>(), ["16", "64"], "{}", web.result);
    web.reaches(other.address())?;
    web.reaches(IpAddr::V6(other.ipv6().ok_or("the other node has no IPv6 address")?))?;
    Ok(())
}
