//! What each verb asks of the daemon, and what it prints.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::support::daemon::{Daemon, Deed};
use crate::support::{Execution, configuration};
use crate::{daemon, inode, key};
use dotfour_protocol::{Call, CniVersion, PodName, ResultFormat, ValidAttachment};

#[test]
fn add_passes_the_namespace_to_the_daemon_and_prints_the_result() {
    let place = tempfile::tempdir().unwrap();
    let daemon = daemon(place.path());
    let output = Execution::new("ADD", daemon.socket()).run();
    assert!(output.status.success(), "{output:?}");

    let (request, mut descriptors) = daemon.call();
    let Call::Add(add) = request.call else { panic!("{request:?}") };
    assert_eq!(add.key, key());
    assert_eq!(add.pod, Some(PodName { namespace: "default".into(), name: "web-0".into() }));
    let own = fs::metadata("/proc/self/ns/net").unwrap();
    assert_eq!(inode(descriptors.remove(0)), (own.dev(), own.ino()));
    assert!(descriptors.is_empty());

    let format = ResultFormat { version: CniVersion::V1_1_0, sandbox: Some("/proc/self/ns/net".into()) };
    assert_eq!(add.print, Some(format));
    let dns = r#"{"nameservers":["168.63.129.16"]}"#;
    let result = format!("{{\"cniVersion\":\"1.1.0\", \"of\":\"/proc/self/ns/net\",\"dns\":{dns}}}\n");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), result);
}

#[test]
fn add_prints_what_the_daemon_says_byte_for_byte_where_no_dns_is_configured() {
    let place = tempfile::tempdir().unwrap();
    let said = "{\"cniVersion\":\"later\", \"what\\u00e9ver\":[ ],\"dns\":{}}\n";
    let daemon = Daemon::start(&place.path().join("s"), |_| Deed::Say(said.into()));
    for dns in ["", r#","dns":null"#, r#","dns":{}"#] {
        let conf = format!(r#"{{"cniVersion":"1.1.0","name":"azure","socket":"{}"{dns}}}"#, daemon.socket());
        let output = Execution::new("ADD", daemon.socket()).stdin(conf).run();
        assert_eq!((output.status.code(), output.stdout), (Some(0), said.into()));
    }
}

#[test]
fn add_prints_the_result_of_the_version_asked_for() {
    let place = tempfile::tempdir().unwrap();
    let daemon = daemon(place.path());
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let result = Execution::new("ADD", daemon.socket()).stdin(configuration(version, daemon.socket())).result();
        assert_eq!(result["cniVersion"], version);
    }
}

#[test]
fn del_sends_the_key_alone_and_prints_nothing() {
    let place = tempfile::tempdir().unwrap();
    let daemon = daemon(place.path());
    let with = Execution::new("DEL", daemon.socket());
    for execution in [with.clone(), with.clone().without("CNI_NETNS"), with.with("CNI_NETNS", "/run/netns/gone")] {
        let output = execution.run();
        assert!(output.status.success());
        assert_eq!(output.stdout, b"");
        let (request, descriptors) = daemon.call();
        assert!(matches!(request.call, Call::Del(del) if del.key == key()));
        assert!(descriptors.is_empty());
    }
}

#[test]
fn check_sends_the_namespace_and_the_addresses_of_the_result_and_prints_nothing() {
    let place = tempfile::tempdir().unwrap();
    let daemon = daemon(place.path());
    let with = |previous: &str| {
        let conf = configuration("1.0.0", daemon.socket()).replacen('{', &format!("{{{previous}"), 1);
        Execution::new("CHECK", daemon.socket()).stdin(conf)
    };
    let output = with(r#""prevResult":{"ips":[{"address":"10.240.4.4/32","gateway":"169.254.1.1"}]},"#).run();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"");
    let (request, descriptors) = daemon.call();
    let Call::Check(check) = request.call else { panic!("{request:?}") };
    assert_eq!((check.key, check.addresses), (key(), vec!["10.240.4.4".parse().unwrap()]));
    assert_eq!(descriptors.len(), 1);
    for missing in ["", r#""prevResult":null,"#, r#""prevResult":7,"#, r#""prevResult":{"ips":[{"address":"x"}]},"#] {
        assert_eq!(with(missing).error()["code"], 7, "{missing}");
    }
}

#[test]
fn gc_sends_the_whole_list_or_nothing() {
    let place = tempfile::tempdir().unwrap();
    let daemon = daemon(place.path());
    let with = |list: &str| {
        let conf = configuration("1.1.0", daemon.socket()).replacen('{', &format!("{{{list}"), 1);
        let mut execution = Execution::new("GC", daemon.socket()).stdin(conf);
        // The specification wants nothing else for GC.
        execution.variables.retain(|name, _| name == "CNI_COMMAND" || name == "CNI_PATH");
        execution
    };
    let output = with(r#""cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}],"#).run();
    assert!(output.status.success(), "{output:?}");
    let (request, _) = daemon.call();
    let Call::Gc(gc) = request.call else { panic!("{request:?}") };
    assert_eq!(gc.network, "azure");
    assert_eq!(gc.valid, [ValidAttachment { container_id: "a".into(), ifname: "eth0".into() }]);
    // CRI-O's list for a network without pods is null, as libcni writes it.
    for none in ["[]", "null"] {
        assert!(with(&format!(r#""cni.dev/valid-attachments":{none},"#)).run().status.success());
        assert!(matches!(daemon.call().0.call, Call::Gc(gc) if gc.valid.is_empty()), "{none}");
    }
    for bad in [
        "",
        r#""cni.dev/valid-attachments":{},"#,
        r#""cni.dev/valid-attachments":[{"containerID":"a"}],"#,
        r#""cni.dev/valid-attachments":["a"],"#,
    ] {
        assert_eq!(with(bad).error()["code"], 7, "{bad}");
    }
    // A node's thousand attachments fit; more than a message holds is an error, and nothing is asked.
    let list = |count: usize| {
        let entry = format!(r#"{{"containerID":"{}","ifname":"eth0"}}"#, "f".repeat(64));
        format!(r#""cni.dev/valid-attachments":[{}],"#, vec![entry; count].join(","))
    };
    assert!(with(&list(1_000)).run().status.success());
    assert!(matches!(daemon.call().0.call, Call::Gc(gc) if gc.valid.len() == 1_000));
    assert_eq!(with(&list(4_000)).error()["code"], 102);
}

#[test]
fn status_is_silent_if_an_add_could_be_served_and_says_50_if_not() {
    let place = tempfile::tempdir().unwrap();
    let daemon = daemon(place.path());
    let mut execution = Execution::new("STATUS", daemon.socket());
    execution.variables.retain(|name, _| name == "CNI_COMMAND");
    let output = execution.run();
    assert!(output.status.success() && output.stdout.is_empty());
    let error = Execution::new("STATUS", place.path().join("nobody").to_str().unwrap()).error();
    assert_eq!(error["code"], 50);
    assert!(error["msg"].as_str().unwrap().starts_with("not-ready: daemon-unavailable: "), "{error}");
}

#[test]
fn version_lists_what_is_served_without_a_daemon() {
    let result = Execution::new("VERSION", "/nowhere").result();
    assert_eq!(
        result,
        serde_json::json!({
            "cniVersion": "1.1.0",
            "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        })
    );
    let mut bare = Execution::new("VERSION", "/nowhere").stdin("");
    bare.variables.retain(|name, _| name == "CNI_COMMAND");
    assert_eq!(bare.result(), result);
}
