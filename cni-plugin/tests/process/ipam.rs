//! The program under its other name, called by a plugin that delegates.

use dotfour_protocol::{Call, CniVersion, Reply, ResultFormat, ValidAttachment};
use serde_json::{Value, json};

use crate::support::Execution;
use crate::support::daemon::Daemon;
use crate::{daemon, key, say};

const IPAM: &str = "/opt/cni/bin/dotfour-ipam";

/// What ptp passes on, which is all that it got, with these members besides.
fn delegated(command: &str, socket: &str, more: &Value) -> Execution {
    let mut conf = json!({
        "cniVersion": "1.1.0", "name": "azure", "type": "ptp", "socket": 7, "mtu": 1400,
        "dns": { "nameservers": ["168.63.129.16"] },
        "ipam": { "type": "dotfour-ipam", "socket": socket },
    });
    conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    // The namespace is nobody's business here.
    Execution::new(command, socket).named(IPAM).stdin(conf.to_string()).with("CNI_NETNS", "/nowhere")
}

#[test]
fn add_asks_for_addresses_alone_and_names_no_sandbox() {
    let place = tempfile::tempdir().unwrap();
    let daemon = daemon(place.path());
    let more = json!({ "runtimeConfig": { "ips": ["10.240.4.4/16"] } });
    let result = delegated("ADD", daemon.socket(), &more).result();
    let (request, descriptors) = daemon.call();
    let Call::Assign(add) = request.call else { panic!("{request:?}") };
    assert_eq!((add.key, add.pod.map(|pod| pod.name)), (key(), Some("web-0".to_owned())));
    assert_eq!(add.asked, ["10.240.4.4".parse::<std::net::IpAddr>().unwrap()]);
    assert!(add.started_ns.is_some() && descriptors.is_empty());
    assert_eq!(
        result,
        json!({
            "cniVersion": "1.1.0",
            "of": "nobody's",
            "dns": { "nameservers": ["168.63.129.16"] },
        })
    );
    assert_eq!(add.print, Some(ResultFormat { version: CniVersion::V1_1_0, sandbox: None }));
    let old = delegated("ADD", daemon.socket(), &json!({ "cniVersion": "0.4.0" })).result();
    assert_eq!(old["cniVersion"], "0.4.0");
}

#[test]
fn the_other_verbs_ask_as_they_do_for_dotfour_and_need_no_namespace() {
    let place = tempfile::tempdir().unwrap();
    let daemon = daemon(place.path());
    let silent = |command: &str, more: &Value| {
        let output = delegated(command, daemon.socket(), more).run();
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        let (request, descriptors) = daemon.call();
        assert!(descriptors.is_empty());
        request.call
    };
    assert!(matches!(silent("DEL", &json!({})), Call::Del(del) if del.key == key()));
    let previous = json!({ "prevResult": { "ips": [{ "address": "10.240.4.4/16", "interface": 1 }] } });
    let Call::Check(check) = silent("CHECK", &previous) else { panic!("no CHECK") };
    assert!(check.delegated);
    assert_eq!(check.addresses, ["10.240.4.4".parse::<std::net::IpAddr>().unwrap()]);
    let list = json!({ "cni.dev/valid-attachments": [{ "containerID": "a", "ifname": "eth0" }] });
    let Call::Gc(gc) = silent("GC", &list) else { panic!("no GC") };
    assert_eq!(gc.valid, [ValidAttachment { container_id: "a".into(), ifname: "eth0".into() }]);
    assert!(matches!(silent("STATUS", &json!({})), Call::Ready));
    assert!(delegated("VERSION", daemon.socket(), &json!({})).result().get("supportedVersions").is_some());
}

#[test]
fn without_a_daemon_a_del_is_spooled_where_ipam_says_and_an_add_may_be_tried_again() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("nobody");
    let spool = place.path().join("spooled");
    let ipam = json!({ "ipam": { "type": "dotfour-ipam", "socket": socket, "spoolDir": spool } });
    assert_eq!(delegated("ADD", "/nowhere", &ipam).error()["code"], 11);
    assert!(!spool.exists());
    assert!(delegated("DEL", "/nowhere", &ipam).run().status.success());
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 1);
}

#[test]
fn a_configuration_that_does_not_delegate_and_an_answer_to_another_call_are_errors() {
    let place = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&place.path().join("s"), |_| say(&Reply::Checked));
    let error = delegated("ADD", daemon.socket(), &json!({ "ipam": null })).error();
    assert_eq!(error["code"], 7);
    assert!(error["msg"].as_str().unwrap().contains("there is no ipam"), "{error}");
    assert_eq!(delegated("ADD", daemon.socket(), &json!({})).error()["code"], 102);
}
