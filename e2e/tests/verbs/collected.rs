//! GC, with a daemon that is a minute older than it is.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dotfour_e2e::program;
use dotfour_rig::{Place, Pod, Runtime};
use serde_json::{Value, json};

use crate::Outcome;
use crate::call::Call;
use crate::stage::Stage;

/// The daemon spares what is younger than a minute.
const OLDER: u32 = 61;
/// How long the janitor may take.
const BURIAL: Duration = Duration::from_secs(30);

pub(crate) fn by_age(place: &Place) -> Outcome {
    let stage = Stage::set(place, 8, &program::daemon()?)?;
    let network = stage.network()?;
    let mut elsewhere = network.clone();
    elsewhere.name = "other".to_owned();
    let pods = ["valid", "stale", "other-network"].map(|name| Pod::create(&stage.node, "default", name));
    let [valid, stale, other] = pods;
    let (valid, stale, other) = (valid?, stale?, other?);
    let runtime = Runtime::new(&stage.node, &network);
    let added = |runtime: &Runtime<'_>, pod: &Pod| -> Result<Ipv4Addr, program::Failure> {
        Ok(runtime.add(pod)?.ipv4().ok_or("no address")?)
    };
    let addresses =
        [added(&runtime, &valid)?, added(&runtime, &stale)?, added(&Runtime::new(&stage.node, &elsewhere), &other)?];
    let all = [(&valid, addresses[0]), (&stale, addresses[1]), (&other, addresses[2])];
    let gc = |list: &[(&str, &str)]| runtime.enter(|calls| calls.gc(list));

    gc(&[])??;
    stage.agrees(&all)?;

    let Stage { daemon, node, other: other_node, vnet } = stage;
    daemon.kill();
    let daemon = node.start_daemon(&program::older_daemon(&node, OLDER)?)?;
    let stage = Stage { daemon, node, other: other_node, vnet };
    let runtime = Runtime::new(&stage.node, &network);
    let gc = |list: &[(&str, &str)]| runtime.enter(|calls| calls.gc(list));

    // A list that is none frees nothing.
    for list in [None, Some(json!({})), Some(json!([{ "containerID": valid.container_id }]))] {
        let call = Call::new("GC", "1.1.0", &stage.node);
        let call = list.iter().fold(call, |call, list| call.conf("cni.dev/valid-attachments", list.clone()));
        assert_eq!(call.run()?.cell(), "1 7 invalid-network-config", "{list:?}");
    }
    stage.agrees(&all)?;

    // Another interface of a container that is listed is not listed.
    gc(&[(&valid.container_id, "eth0"), (&stale.container_id, "net1")])??;
    stage.agrees(&[all[0], all[2]])?;
    stage.reaches(addresses[0])?;
    // GC is DEL: a pod that still lives loses its interface.
    let began = Instant::now();
    while stale.links()?.len() > 1 {
        assert!(began.elapsed() < BURIAL, "the pod that GC ended has its interface still");
        sleep(Duration::from_millis(20));
    }
    // An empty list, as libcni writes one that was never filled.
    let call = Call::new("GC", "1.1.0", &stage.node).conf("cni.dev/valid-attachments", Value::Null);
    assert_eq!(call.run()?.cell(), "0 nothing", "null is a list of none");
    stage.agrees(&[all[2]])
}
