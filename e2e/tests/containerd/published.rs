//! The daemon's own network configuration under a real containerd: it takes the list with all that is in it, finds it under
//! its new name, and tells the daemon so.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dotfour_e2e::program::{self, Ground, shipped};
use dotfour_e2e::{Containerd, Setup};
use dotfour_rig::{NodeConfig, Vnet, VnetConfig};
use serde_json::{Value, json};

use crate::{CNI_VERSION, Outcome, PODS, TMPDIR, output, reference, remove, run, stop};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn published(ground: &Ground) -> Outcome {
    let place = ground.sandbox.place().within("published")?;
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place })?;
    let node = vnet.add_node(&NodeConfig::new("node-1", 2 * PODS))?;
    let bin_dir = node.state_dir().join("bin");
    let plugin = shipped("dotfour")?;
    output(Command::new(shipped("dotfour-ipamd")?).arg("install").arg("--cni-bin-dir").arg(&bin_dir))?;
    assert_eq!(fs::read(bin_dir.join("dotfour"))?, fs::read(&plugin)?);
    std::os::unix::fs::symlink(reference("portmap"), bin_dir.join("portmap"))?;
    // By another name, as an administrator may have put it there before.
    let setup = Setup {
        netns: node.netns(),
        plugins: &[&plugin, &reference("portmap"), &reference("loopback")],
        conflist: &json!({ "cniVersion": CNI_VERSION, "name": "azure", "plugins": [{ "type": "dotfour" }] })
            .to_string(),
        name: "published",
        log: &Path::new(TMPDIR).join("containerd-published.log"),
    };
    let containerd = Containerd::start(ground, setup)?;
    let mut cri = containerd.cri()?;
    let list = containerd.conf_dir().join("10-dotfour.conflist");
    let mut config = program::daemon()?;
    config.source += "refresh: 100ms\n";
    config.more = format!(
        "cniBinDir: {}\ncniConfDir: {}\nruntime: unix://{}",
        bin_dir.display(),
        containerd.conf_dir().display(),
        containerd.socket().display()
    );
    let daemon = node.start_daemon(&config)?;
    let eventually = |what: &str, log: &dyn Fn() -> String, condition: &mut dyn FnMut() -> bool| {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}\n{}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let log = || daemon.log_tail();
    eventually("the runtime is asked", &log, &mut || daemon.log().contains("the container runtime sees the network"));
    let names: Vec<_> = fs::read_dir(containerd.conf_dir())?.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["10-dotfour.conflist"], "the one by another name has made room");
    let written: Value = serde_json::from_slice(&fs::read(&list)?)?;
    let offers = written.pointer("/cniVersions").and_then(Value::as_array).is_some_and(|versions| versions.len() > 1);
    assert!(offers && written.pointer("/plugins/1/type") == Some(&"portmap".into()), "{written}");
    stop(daemon)?;

    // What no runtime can read: it says so, until the daemon is back.
    fs::write(&list, "{")?;
    eventually("containerd has read it", &String::new, &mut || cri.unready().is_ok_and(|reasons| !reasons.is_empty()));
    let daemon = node.start_daemon(&config)?;
    let log = || daemon.log_tail();
    eventually("containerd has read ours", &log, &mut || cri.unready().is_ok_and(|reasons| reasons.is_empty()));
    eventually("the daemon knows", &log, &mut || daemon.log().contains("the container runtime sees the network"));

    let pods = run(&containerd, &mut cri)?;
    remove(&containerd, &mut cri, &pods)?;
    stop(daemon)
}
