use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use dotfour_protocol::{AttachmentKey, Call, Del, Reply};

use super::*;
use daemon::{Daemon, Deed};

#[allow(dead_code, reason = "the tests of the program use more of it")]
#[path = "../../tests/support/daemon.rs"]
mod daemon;

/// Long enough for a slow machine to answer, short enough to wait for.
const SHORT: Duration = Duration::from_millis(400);

fn request() -> Request {
    let key = AttachmentKey { network: "azure".into(), container_id: "c0ffee".into(), ifname: "eth0".into() };
    Request::new(Call::Del(Del { key, started_ns: None }))
}

fn detached() -> Deed {
    Deed::Say(frame::encode_reply(&Reply::Detached).unwrap().into_owned())
}

fn refused(socket: &Path, cause: Cause) -> String {
    let failure = call(socket.to_str().unwrap(), &request(), None, SHORT).unwrap_err().failure;
    assert_eq!((failure.cause.as_str(), failure.code), (cause.name(), cause.cni_code()), "{failure}");
    assert!(failure.message.contains(socket.to_str().unwrap()), "{failure}");
    failure.message
}

/// Runs what would hang for ever if it were wrong, and fails instead.
fn in_time<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(run()));
    receiver.recv_timeout(Duration::from_secs(10)).expect("it hangs, or has failed")
}

#[test]
fn one_message_goes_out_and_one_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&place.path().join("s"), |_| detached());
    assert_eq!(call(daemon.socket(), &request(), None, SHORT), Ok(Answer::Detached));
    let (received, descriptors) = daemon.call();
    assert_eq!((received, descriptors.len()), (request(), 0));
    assert!(daemon.idle());
}

#[test]
fn the_namespace_travels_with_the_message() {
    let place = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&place.path().join("s"), |_| detached());
    let namespace = open_namespace("/proc/self/ns/net").unwrap();
    call(daemon.socket(), &request(), Some(&namespace), SHORT).unwrap();
    let (_, mut descriptors) = daemon.call();
    let received = File::from(descriptors.remove(0)).metadata().unwrap();
    let own = fs::metadata("/proc/self/ns/net").unwrap();
    assert_eq!((received.dev(), received.ino()), (own.dev(), own.ino()));
    assert!(descriptors.is_empty());
}

#[test]
fn nobody_there_is_daemon_unavailable() {
    let place = tempfile::tempdir().unwrap();
    assert!(refused(&place.path().join("absent"), Cause::DaemonUnavailable).contains("No such file"));
    let left = place.path().join("left");
    drop(daemon::listen(&left, SocketType::SEQPACKET, 1));
    assert!(refused(&left, Cause::DaemonUnavailable).contains("Connection refused"));
    fs::write(place.path().join("file"), "").unwrap();
    refused(&place.path().join("file"), Cause::DaemonUnavailable);
    refused(&place.path().join("file/s"), Cause::DaemonUnavailable);
}

#[test]
fn a_daemon_that_closes_before_it_answers_is_unavailable() {
    let place = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&place.path().join("s"), |_| Deed::Close);
    assert!(refused(Path::new(daemon.socket()), Cause::DaemonUnavailable).contains("had not answered"));
}

#[test]
fn a_daemon_that_ends_with_the_call_unread_is_unavailable() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("s");
    let listener = daemon::listen(&path, SocketType::SEQPACKET, 8);
    let ending = std::thread::spawn(move || {
        let connection = net::accept(&listener).unwrap();
        // Until the message is there; closing with it unread resets the connection.
        net::recv(&connection, &mut [0_u8; 1], RecvFlags::PEEK).unwrap();
        drop(connection);
    });
    refused(&path, Cause::DaemonUnavailable);
    ending.join().unwrap();
}

#[test]
fn a_daemon_that_never_answers_costs_the_deadline_and_no_more() {
    let place = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&place.path().join("s"), |_| Deed::Nothing);
    let before = Instant::now();
    let message = refused(Path::new(daemon.socket()), Cause::DeadlineExceeded);
    assert!(message.contains("400 ms"), "{message}");
    // The answer has three quarters of the time. The upper bound leaves room for a busy machine.
    assert!((SHORT * 3 / 4..SHORT * 4).contains(&before.elapsed()), "{:?}", before.elapsed());
}

#[test]
fn a_full_backlog_is_waited_for_and_not_for_ever() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("s");
    let _listener = daemon::listen(&path, SocketType::SEQPACKET, 0);
    let address = SocketAddrUnix::new(&path).unwrap();
    let mut waiting = Vec::new();
    loop {
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
        match net::connect(&socket, &address) {
            Ok(()) => waiting.push(socket),
            Err(Errno::AGAIN) => break,
            Err(other) => panic!("{other}"),
        }
    }
    let before = Instant::now();
    in_time(move || refused(&path, Cause::DeadlineExceeded));
    assert!((SHORT / 8..SHORT * 4).contains(&before.elapsed()), "{:?}", before.elapsed());
}

#[test]
fn what_is_no_reply_is_a_mismatch() {
    let place = tempfile::tempdir().unwrap();
    for (i, garbage) in [&b"{"[..], b"\xff", b"[]", b"{\"attached\":1}", b"\"Detached\""].into_iter().enumerate() {
        let daemon = Daemon::start(&place.path().join(i.to_string()), move |_| Deed::Say(garbage.to_vec()));
        refused(Path::new(daemon.socket()), Cause::ProtocolMismatch);
    }
}

#[test]
fn a_reply_is_read_up_to_the_limit_and_refused_above() {
    let place = tempfile::tempdir().unwrap();
    let padded = |length: usize| format!("{{\"failed\":{}}}{}", FAILED, " ".repeat(length)).into_bytes();
    const FAILED: &str = r#"{"code":11,"cause":"c","message":"m","next_step":"n"}"#;
    let overhead = padded(0).len();
    for (name, length) in [("limit", frame::MAX_MESSAGE), ("above", frame::MAX_MESSAGE + 1)] {
        let reply = padded(length - overhead);
        let daemon = Daemon::start(&place.path().join(name), move |_| Deed::Say(reply.clone()));
        if length == frame::MAX_MESSAGE {
            assert!(matches!(call(daemon.socket(), &request(), None, SHORT), Ok(Answer::Failed(_))));
        } else {
            assert!(refused(Path::new(daemon.socket()), Cause::ProtocolMismatch).contains("65537 bytes"));
        }
    }
}

#[test]
fn a_socket_of_another_type_is_a_mismatch() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("s");
    let _listener = daemon::listen(&path, SocketType::STREAM, 1);
    refused(&path, Cause::ProtocolMismatch);
}

#[test]
fn a_request_above_the_limit_is_not_sent() {
    let mut long = request();
    if let Call::Del(del) = &mut long.call {
        del.key.container_id = "x".repeat(frame::MAX_MESSAGE);
    }
    assert_eq!(call("/nowhere", &long, None, SHORT).unwrap_err().failure.cause, "protocol-mismatch");
}

#[test]
fn every_errno_leads_to_the_cause_an_operator_expects() {
    let cause = |step, errno| Stopped::At(step, errno).into_failure("/s", SHORT).cause;
    for (step, errno, expected) in [
        (Step::Connect, Errno::ACCESS, Cause::PermissionDenied),
        (Step::Connect, Errno::PERM, Cause::PermissionDenied),
        (Step::Send, Errno::PIPE, Cause::DaemonUnavailable),
        (Step::Send, Errno::AGAIN, Cause::DeadlineExceeded),
        (Step::Receive, Errno::CONNRESET, Cause::DaemonUnavailable),
        (Step::Socket, Errno::MFILE, Cause::Io),
        (Step::Send, Errno::NOENT, Cause::Io),
    ] {
        assert_eq!(cause(step, errno), expected.name(), "{errno:?}");
    }
    let unknown = Stopped::At(Step::Send, Errno::NOBUFS).into_failure("/s", SHORT);
    assert!(unknown.message.starts_with("cannot send to the daemon at \"/s\": error number 105"), "{unknown}");
}

#[test]
fn a_namespace_that_cannot_be_opened_is_named() {
    let place = tempfile::tempdir().unwrap();
    let absent = place.path().join("absent");
    let failure = open_namespace(absent.to_str().unwrap()).unwrap_err();
    assert_eq!((failure.code, failure.cause.as_str()), (4, "invalid-namespace"));
    assert_eq!(failure.message, format!("CNI_NETNS {absent:?} cannot be opened: No such file or directory"));
    assert_eq!(open_namespace("a\0b").unwrap_err().code, 4);
}

#[test]
fn a_path_that_would_block_when_opened_does_not() {
    let place = tempfile::tempdir().unwrap();
    let fifo = place.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    // What it is, the daemon will say.
    in_time(move || assert!(open_namespace(fifo.to_str().unwrap()).is_ok()));
}
