//! Several interfaces in one container, as a meta plugin asks for them.

use std::net::Ipv4Addr;

use dotfour_e2e::program;
use dotfour_rig::{Place, Pod, Runtime};

use crate::Outcome;
use crate::stage::Stage;

const NAMES: [&str; 3] = ["eth0", "net1", "net2"];

pub(crate) fn interfaces(place: &Place) -> Outcome {
    let stage = Stage::set(place, 8, &program::daemon()?)?;
    let network = stage.network()?;
    let runtime = Runtime::new(&stage.node, &network);
    let mut pod = Pod::create(&stage.node, "default", "web")?;
    let mut given: Vec<Ipv4Addr> = Vec::new();
    let mut results = Vec::new();
    for name in NAMES {
        pod.ifname = name.to_owned();
        let answer = runtime.add(&pod).map_err(|e| format!("{name}: {e}"))?;
        let address = answer.ipv4().ok_or("no address")?;
        assert!(!given.contains(&address), "{address} was given twice");
        given.push(address);
        results.push(answer.result);
    }
    let names = |pod: &Pod| pod.links().map(|links| links.into_iter().map(|link| link.name).collect::<Vec<_>>());
    assert_eq!(names(&pod)?.len(), 1 + NAMES.len());
    for address in &given {
        stage.reaches(*address)?;
    }
    for (name, result) in NAMES.iter().zip(&results) {
        pod.ifname = (*name).to_owned();
        runtime.enter(|calls| calls.check(&pod, result))?.map_err(|e| format!("{name}: {e}"))?;
    }
    // From the last to the first: what remains goes on working.
    for (number, (name, result)) in NAMES.iter().zip(&results).enumerate().rev() {
        pod.ifname = (*name).to_owned();
        runtime.del(&pod, Some(result))?;
        let known: Vec<_> = stage.status()?.attachments.into_iter().map(|lease| lease.key.ifname).collect();
        assert_eq!(known, NAMES[..number]);
        for address in &given[..number] {
            stage.reaches(*address)?;
        }
    }
    stage.is_empty()
}
