//! Daemons that come and go, and runtimes that forget.

use std::fs;
use std::time::Duration;

use dotfour_e2e::program::{self, shipped};
use dotfour_rig::{DaemonConfig, Network, Place, Runtime};

use crate::Outcome;
use crate::stage::{Stage, Up, ptp};

const COOLDOWN: Duration = Duration::from_secs(30);
/// GC spares what is younger than a minute; the daemon that is asked is so much older than it is.
const OLDER: u32 = 61;

pub(crate) fn killed(place: &Place) -> Outcome {
    let mut stage = Stage::set(place, 4, COOLDOWN)?;
    let config = DaemonConfig { cooldown: COOLDOWN, ..program::daemon()? };
    let network = ptp(&stage.node)?;
    let (web, db) = (Up::add(&stage.node, &network, "web")?, Up::add(&stage.node, &network, "db")?);

    stage.daemon.kill();
    stage.daemon = stage.node.start_daemon(&config)?;
    stage.agrees(&[&web, &db])?;
    web.reaches(db.address)?;
    let runtime = Runtime::new(&stage.node, &network);
    runtime.enter(|calls| calls.check(&web.pod, &web.result))??;
    // Nobody else gets what is in use.
    let third = Up::add(&stage.node, &network, "third")?;
    assert!(third.address != web.address && third.address != db.address);

    stage.daemon.kill();
    runtime.del(&web.pod, Some(&web.result))?;
    let spool = stage.node.state_dir().join("spool");
    assert_eq!(fs::read_dir(&spool)?.count(), 1, "the DEL is not in the spool");
    let add = runtime.add(&web.pod);
    assert!(add.is_err_and(|e| e.cni().is_some_and(|e| e.code == 11)), "without a daemon there is no address");
    stage.daemon = stage.node.start_daemon(&config)?;
    assert_eq!(fs::read_dir(&spool)?.count(), 0, "the DEL is not applied");
    stage.agrees(&[&db, &third])?;
    runtime.del(&db.pod, None)?;
    runtime.del(&third.pod, None)?;
    stage.is_empty()
}

/// Debian's ptp is from before GC; a later one calls `dotfour-ipam` as it does for DEL, with the runtime's list.
pub(crate) fn collected(place: &Place) -> Outcome {
    let mut stage = Stage::set(place, 4, COOLDOWN)?;
    let network = ptp(&stage.node)?;
    let (valid, stale) = (Up::add(&stage.node, &network, "valid")?, Up::add(&stage.node, &network, "stale")?);
    let mut ipam = Network { cni_version: "1.1.0".to_owned(), ..network.clone() };
    for plugin in &mut ipam.plugins {
        plugin.binary = shipped("dotfour-ipam")?;
    }
    let gc = |stage: &Stage| {
        let listed = [(valid.pod.container_id.as_str(), "eth0")];
        Runtime::new(&stage.node, &ipam).enter(|calls| calls.gc(&listed))
    };
    gc(&stage)??;
    stage.agrees(&[&valid, &stale])?;

    stage.daemon.kill();
    stage.daemon = stage.node.start_daemon(&program::older_daemon(&stage.node, OLDER)?)?;
    gc(&stage)??;
    assert_eq!(stage.status()?.pool.assigned, 1, "{}", stage.daemon.log_tail());
    Runtime::new(&stage.node, &network).del(&stale.pod, None)?;
    stage.agrees(&[&valid])
}
