//! A plugin that gets its addresses, and then cannot wire the pod. A kubelet tries again for ever.

use std::time::{Duration, Instant};

use dotfour_rig::{Place, Pod, Runtime};
use serde_json::json;

use crate::Outcome;
use crate::stage::{Stage, network, ptp};

/// Addresses of the node.
const POOL: usize = 16;
const TRIES: usize = 200;
/// As long as 16 addresses last at the speed of these tries, so that what fails is what never comes back.
const COOLDOWN: Duration = Duration::from_millis(20);

/// ptp wants an MTU that no link may have, which it finds out when it has its addresses. Like any plugin it gives them
/// back then; one try in two is that of a plugin that was killed before it could, so that only the runtime's DEL does.
pub(crate) fn behind_ipam(place: &Place) -> Outcome {
    let stage = Stage::set(place, POOL, COOLDOWN)?;
    let broken = network(&stage.node, "ptp", &json!({ "mtu": 1_000_000_000 }))?;
    let mut alone = ptp(&stage.node)?;
    for plugin in &mut alone.plugins {
        plugin.binary = dotfour_e2e::program::shipped("dotfour-ipam")?;
    }
    let pod = Pod::create(&stage.node, "default", "never")?;
    let began = Instant::now();
    for number in 0..TRIES {
        let network = if number % 2 == 0 { &broken } else { &alone };
        let runtime = Runtime::new(&stage.node, network);
        match (runtime.add(&pod), number % 2) {
            (Err(e), 0) if !e.to_string().contains("pool-exhausted") => {}
            (Ok(_), 1) => assert_eq!(stage.status()?.pool.assigned, 1),
            (other, _) => return Err(format!("try {number}: {other:?}\n{}", stage.daemon.log_tail()).into()),
        }
        runtime.del(&pod, None)?;
    }
    println!("ptp fails every ADD: {TRIES} tries, each with its DEL, in {:.2?}", began.elapsed());
    assert!(stage.daemon.log().matches("assigned").count() >= TRIES, "the addresses were never asked for");
    stage.is_empty()
}
