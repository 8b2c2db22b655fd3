//! A daemon that is away, hangs, speaks otherwise or refuses.

use std::path::Path;
use std::time::Duration;

use crate::support::daemon::{Daemon, Deed, listen};
use crate::support::{Execution, configuration};
use crate::{key, say};
use dotfour_protocol::{Call, Cause, Failure, Reply, SpooledDel, frame};
use rustix::net::{self, RecvFlags, SendFlags, SocketType};

#[test]
fn without_a_daemon_the_runtime_is_asked_to_try_again() {
    let place = tempfile::tempdir().unwrap();
    let absent = place.path().join("absent");
    let error = Execution::new("ADD", absent.to_str().unwrap()).error();
    assert_eq!(error["code"], 11);
    let message = error["msg"].as_str().unwrap();
    assert!(message.starts_with("daemon-unavailable: nothing listens on"), "{message}");
    assert!(message.contains(absent.to_str().unwrap()), "{message}");
    assert!(error["details"].as_str().unwrap().contains("dotfour-ipamd"), "{error}");
    assert!(spooled(place.path()).is_empty(), "what was never asked need not be taken back");
}

/// What is in the spool beside a socket.
fn spooled(place: &Path) -> Vec<SpooledDel> {
    let Ok(entries) = std::fs::read_dir(place.join("spool")) else { return vec![] };
    entries.map(|entry| frame::decode_spooled(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap()).collect()
}

#[test]
fn a_del_that_finds_no_daemon_succeeds_and_is_spooled_with_its_moment() {
    let place = tempfile::tempdir().unwrap();
    let absent = place.path().join("absent");
    let begun = std::time::Instant::now();
    let output = Execution::new("DEL", absent.to_str().unwrap()).run();
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));
    let first = spooled(place.path());
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].key, key());
    assert!(Execution::new("DEL", absent.to_str().unwrap()).run().status.success());
    let mut moments: Vec<u64> = spooled(place.path()).iter().map(|del| del.at_ns).collect();
    moments.sort();
    assert_eq!(moments.len(), 2);
    assert!(moments[0] < moments[1] && moments.contains(&first[0].at_ns));
}

#[test]
fn a_spool_of_one_s_own_is_used_and_one_that_cannot_be_written_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let absent = place.path().join("absent");
    let with_spool = |spool: &str| {
        let configuration = configuration("1.1.0", absent.to_str().unwrap());
        let rest = configuration.strip_prefix('{').unwrap();
        Execution::new("DEL", absent.to_str().unwrap()).stdin(format!(r#"{{"spoolDir":"{spool}",{rest}"#))
    };
    let own = place.path().join("own/spool");
    assert!(with_spool(own.to_str().unwrap()).run().status.success());
    assert_eq!(spooled(&place.path().join("own")).len(), 1);
    let error = with_spool("/proc/spool").error();
    assert_eq!(error["code"], 11);
    let message = error["msg"].as_str().unwrap();
    assert!(message.contains("nothing listens") && message.contains("/proc/spool"), "{message}");
    assert_eq!(with_spool("spool").error()["code"], 7);
}

#[test]
fn an_add_whose_answer_is_lost_or_not_understood_leaves_its_cancellation() {
    const HALF: &[u8] = b"{\"cniVersion\":\"1.1.0\",\"interfaces\":[{\"name\":\"azv1\"";
    // What a daemon says that knows of no formats.
    const BARE: &[u8] = br#"{"attached":{"host_ifname":"azv1"}}"#;
    for (answer, code) in [(&b""[..], 11), (HALF, 102), (BARE, 102), (b"{\"cniVersion\":\"1.1.0\"}\n", 102)] {
        let place = tempfile::tempdir().unwrap();
        let deed = move |_: &_| if answer.is_empty() { Deed::Close } else { Deed::Say(answer.to_vec()) };
        let daemon = Daemon::start(&place.path().join("s"), deed);
        assert_eq!(Execution::new("ADD", daemon.socket()).error()["code"], code);
        let (request, _) = daemon.call();
        let Call::Add(add) = request.call else { panic!("not an ADD") };
        let cancelled = spooled(place.path());
        assert_eq!(cancelled.len(), 1);
        assert_eq!((&cancelled[0].key, Some(cancelled[0].at_ns)), (&add.key, add.started_ns));
    }
}

#[test]
fn an_add_whose_runtime_is_gone_leaves_its_cancellation_and_no_other_verb_does() {
    const RESULT: &[u8] = b"{\"cniVersion\":\"1.1.0\",\"dns\":{}}\n";
    for (verb, left) in [("ADD", 1), ("VERSION", 0)] {
        let place = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(&place.path().join("s"), |_| Deed::Say(RESULT.to_vec()));
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Execution::new(verb, daemon.socket()).run_into(writer);
        assert_eq!(output.status.code(), Some(1), "{verb}");
        let cancelled = spooled(place.path());
        assert_eq!(cancelled.len(), left, "{verb}");
        for cancelled in cancelled {
            let Call::Add(add) = daemon.call().0.call else { panic!("not an ADD") };
            assert_eq!((&cancelled.key, Some(cancelled.at_ns)), (&add.key, add.started_ns));
        }
    }
}

#[test]
fn an_add_without_a_standard_output_leaves_its_cancellation() {
    const RESULT: &[u8] = b"{\"cniVersion\":\"1.1.0\",\"dns\":{}}\n";
    for name in ["dotfour", "dotfour-ipam"] {
        let place = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(&place.path().join("s"), |_| Deed::SayAndStay(RESULT.to_vec()));
        let socket = daemon.socket();
        let conf = format!(
            r#"{{"cniVersion":"1.1.0","name":"azure","socket":"{socket}","ipam":{{"type":"x","socket":"{socket}"}}}}"#
        );
        let output = Execution::new("ADD", socket).stdin(conf).run_without_stdout(&place.path().join(name));
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert_eq!(spooled(place.path()).len(), 1, "{name}");
    }
}

#[test]
fn status_waits_for_a_daemon_that_is_busy() {
    let place = tempfile::tempdir().unwrap();
    let ready = frame::encode_reply(&Reply::Ready).unwrap().into_owned();
    let daemon = Daemon::start(&place.path().join("s"), move |_| {
        // Longer than a DEL would wait.
        std::thread::sleep(dotfour_plugin::call::DEL_DEADLINE + std::time::Duration::from_millis(300));
        Deed::Say(ready.clone())
    });
    assert!(Execution::new("STATUS", daemon.socket()).run().status.success());
}

#[test]
fn a_daemon_that_goes_away_in_the_middle_is_unavailable() {
    let place = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&place.path().join("s"), |_| Deed::Close);
    let error = Execution::new("ADD", daemon.socket()).error();
    assert_eq!(error["code"], 11);
    assert!(error["msg"].as_str().unwrap().contains("had not answered"), "{error}");
}

#[test]
fn a_daemon_that_speaks_otherwise_is_a_mismatch() {
    let place = tempfile::tempdir().unwrap();
    let long = vec![b' '; frame::MAX_MESSAGE + 1];
    let detached = frame::encode_reply(&Reply::Detached).unwrap().into_owned();
    for (i, reply) in
        [b"{}".to_vec(), b"\xff\x00".to_vec(), b"nonsense".to_vec(), long, detached].into_iter().enumerate()
    {
        let daemon = Daemon::start(&place.path().join(i.to_string()), move |_| Deed::Say(reply.clone()));
        let error = Execution::new("ADD", daemon.socket()).error();
        assert_eq!(error["code"], 102, "{error}");
        assert!(error["msg"].as_str().unwrap().starts_with("protocol-mismatch: "), "{error}");
    }
}

#[test]
fn a_failure_is_printed_as_the_daemon_says_it() {
    let place = tempfile::tempdir().unwrap();
    let failure =
        Failure::new(Cause::PoolExhausted, "0 of 30 addresses are free, 2 are cooling", "raise ipAddressCount");
    let reply = Reply::Failed(failure);
    let daemon = Daemon::start(&place.path().join("s"), move |_| say(&reply));
    let error = Execution::new("ADD", daemon.socket()).stdin(configuration("0.4.0", daemon.socket())).error();
    assert_eq!(
        error,
        serde_json::json!({
            "cniVersion": "0.4.0",
            "code": 11,
            "msg": "pool-exhausted: 0 of 30 addresses are free, 2 are cooling",
            "details": "raise ipAddressCount",
        })
    );
}

#[test]
fn a_slow_daemon_is_waited_for() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("s");
    let listener = listen(&path, SocketType::SEQPACKET, 8);
    let slow = std::thread::spawn(move || {
        let connection = net::accept(&listener).unwrap();
        net::recv(&connection, &mut [0; frame::MAX_MESSAGE], RecvFlags::empty()).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        net::send(&connection, &frame::encode_reply(&Reply::Detached).unwrap(), SendFlags::NOSIGNAL).unwrap();
    });
    assert!(Execution::new("DEL", path.to_str().unwrap()).run().status.success());
    slow.join().unwrap();
}

#[test]
fn a_del_to_a_daemon_that_hangs_is_spooled_after_its_deadline() {
    let place = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&place.path().join("s"), |_| Deed::Nothing);
    let mut times = Vec::new();
    // A busy machine makes a DEL slower, and not each of three.
    while times.len() < 3 && times.iter().all(|took| *took >= Duration::from_secs(2)) {
        let before = std::time::Instant::now();
        assert!(Execution::new("DEL", daemon.socket()).run().status.success());
        times.push(before.elapsed());
        assert_eq!(spooled(place.path()).len(), times.len());
    }
    assert!(times.iter().all(|took| *took >= Duration::from_secs(1)), "{times:?}");
    assert!(times.iter().any(|took| *took < Duration::from_secs(2)), "{times:?}");
}
