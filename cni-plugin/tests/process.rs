//! The program as a process: the real binary, a real socket and the real protocol; only the daemon behind it is a
//! stand-in that answers what a test wants.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dotfour_protocol::{
    Attachment, AttachmentKey, Call, Cause, Failure, PodAddress, PodName, Reply, Route, SpooledDel, ValidAttachment,
    frame,
};
use rustix::net::{self, RecvFlags, SendFlags, SocketType};
use support::daemon::{Daemon, Deed, listen};
use support::{Execution, configuration, program};

fn attached() -> Reply {
    Reply::Attached(Attachment {
        host_ifname: "azv0123456789a".into(),
        host_mac: "aa:aa:aa:aa:aa:aa".into(),
        pod_mac: "0a:58:0a:f0:04:04".into(),
        mtu: 1500,
        addresses: vec![PodAddress {
            address: "10.240.4.4/32".parse().unwrap(),
            gateway: "169.254.1.1".parse().unwrap(),
        }],
        routes: vec![
            Route { dst: "169.254.1.1/32".parse().unwrap(), gw: None },
            Route { dst: "0.0.0.0/0".parse().unwrap(), gw: Some("169.254.1.1".parse().unwrap()) },
        ],
    })
}

fn say(reply: &Reply) -> Deed {
    Deed::Say(frame::encode_reply(reply).unwrap())
}

/// A daemon that does what it is asked.
fn daemon(place: &Path) -> Daemon {
    Daemon::start(&place.join("s"), |request| match &request.call {
        Call::Add(_) => say(&attached()),
        Call::Del(_) => say(&Reply::Detached),
        Call::Check(_) => say(&Reply::Checked),
        Call::Gc(_) => say(&Reply::Collected),
        Call::Ready => say(&Reply::Ready),
        Call::Status(_) => Deed::Close,
    })
}

fn key() -> AttachmentKey {
    AttachmentKey { network: "azure".into(), container_id: "4f6e2d1c0b9a".into(), ifname: "eth0".into() }
}

fn inode(namespace: OwnedFd) -> (u64, u64) {
    let metadata = fs::File::from(namespace).metadata().unwrap();
    (metadata.dev(), metadata.ino())
}

#[test]
fn add_passes_the_namespace_to_the_daemon_and_prints_the_result() {
    let place = tempfile::tempdir().unwrap();
    let daemon = daemon(place.path());
    let result = Execution::new("ADD", daemon.socket()).result();

    let (request, mut descriptors) = daemon.call();
    let Call::Add(add) = request.call else { panic!("{request:?}") };
    assert_eq!(add.key, key());
    assert_eq!(add.pod, Some(PodName { namespace: "default".into(), name: "web-0".into() }));
    let own = fs::metadata("/proc/self/ns/net").unwrap();
    assert_eq!(inode(descriptors.remove(0)), (own.dev(), own.ino()));
    assert!(descriptors.is_empty());

    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(result["interfaces"][1]["sandbox"], "/proc/self/ns/net");
    assert_eq!(result["ips"][0]["address"], "10.240.4.4/32");
    assert_eq!(result["dns"]["nameservers"][0], "168.63.129.16");
}

#[test]
fn add_prints_the_result_of_the_version_asked_for() {
    let place = tempfile::tempdir().unwrap();
    let daemon = daemon(place.path());
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let result = Execution::new("ADD", daemon.socket()).stdin(configuration(version, daemon.socket())).result();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["ips"][0].get("version").is_some(), version < "1.0.0", "{result}");
        assert_eq!(result["interfaces"][0].get("mtu").is_some(), version == "1.1.0", "{result}");
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
    assert!(with(r#""cni.dev/valid-attachments":[],"#).run().status.success());
    assert!(matches!(daemon.call().0.call, Call::Gc(gc) if gc.valid.is_empty()));
    for bad in [
        "",
        r#""cni.dev/valid-attachments":null,"#,
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

#[test]
fn bad_input_is_one_error_object_with_its_code_and_nothing_is_asked_of_the_daemon() {
    let place = tempfile::tempdir().unwrap();
    let daemon = daemon(place.path());
    let add = || Execution::new("ADD", daemon.socket());
    let conf = |text: &str| add().stdin(text);
    for (execution, code, says) in [
        (add().without("CNI_COMMAND"), 4, "CNI_COMMAND is missing"),
        (add().with("CNI_COMMAND", "UPDATE"), 4, "CNI_COMMAND \"UPDATE\""),
        (add().with("CNI_COMMAND", ""), 4, "CNI_COMMAND is missing"),
        (add().without("CNI_CONTAINERID"), 4, "CNI_CONTAINERID is missing"),
        (add().with("CNI_CONTAINERID", "../x"), 4, "CNI_CONTAINERID \"../x\" must"),
        (add().without("CNI_IFNAME"), 4, "CNI_IFNAME is missing"),
        (add().with("CNI_IFNAME", "a234567890123456"), 4, "CNI_IFNAME \"a234567890123456\" must"),
        (add().without("CNI_NETNS"), 4, "CNI_NETNS is missing"),
        (add().with("CNI_NETNS", "/run/netns/gone"), 4, "CNI_NETNS \"/run/netns/gone\" cannot be opened: No such file"),
        (add().with("CNI_ARGS", "K8S_POD_NAME"), 4, "CNI_ARGS has \"K8S_POD_NAME\""),
        (Execution::new("DEL", daemon.socket()).without("CNI_IFNAME"), 4, "CNI_IFNAME is missing"),
        (conf(""), 6, "standard input"),
        (conf("{\"cniVersion\""), 6, "standard input"),
        (conf("[]"), 6, "standard input"),
        (conf(r#"{"cniVersion":"1.1.0","name":[]}"#), 6, "name must be a string"),
        (conf(r#"{"cniVersion":"1.1.0","name":"azure","dns":[]}"#), 6, "dns must be an object"),
        (conf(r#"{"cniVersion":"1.1.0"}"#), 7, "name \"\" must"),
        (conf(r#"{"cniVersion":"1.1.0","name":"azure","socket":"run/s"}"#), 7, "socket \"run/s\" must"),
        (conf(r#"{"cniVersion":"0.2.0","name":"azure"}"#), 1, "cniVersion \"0.2.0\""),
        (conf(r#"{"name":"azure"}"#), 1, "no cniVersion"),
    ] {
        let error = execution.error();
        assert_eq!(error["code"], code, "{error}");
        assert!(error["msg"].as_str().unwrap().contains(says), "{error}");
    }
    assert!(daemon.idle());
}

#[test]
fn all_that_is_wrong_with_the_environment_is_in_one_message() {
    let mut bare = Execution::new("ADD", "/nowhere");
    bare.variables.retain(|name, _| name == "CNI_COMMAND");
    let error = bare.error();
    for name in ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"] {
        assert!(error["msg"].as_str().unwrap().contains(&format!("{name} is missing")), "{error}");
    }
}

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
fn an_add_whose_answer_is_lost_leaves_its_cancellation() {
    let place = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&place.path().join("s"), |_| Deed::Close);
    Execution::new("ADD", daemon.socket()).error();
    let (request, _) = daemon.call();
    let Call::Add(add) = request.call else { panic!("not an ADD") };
    let cancelled = spooled(place.path());
    assert_eq!(cancelled.len(), 1);
    assert_eq!((&cancelled[0].key, Some(cancelled[0].at_ns)), (&add.key, add.started_ns));
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
    let detached = frame::encode_reply(&Reply::Detached).unwrap();
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
        std::thread::sleep(Duration::from_millis(700));
        net::send(&connection, &frame::encode_reply(&Reply::Detached).unwrap(), SendFlags::NOSIGNAL).unwrap();
    });
    assert!(Execution::new("DEL", path.to_str().unwrap()).run().status.success());
    slow.join().unwrap();
}

#[test]
fn a_del_to_a_daemon_that_hangs_is_spooled_after_its_deadline() {
    let place = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&place.path().join("s"), |_| Deed::Nothing);
    let before = std::time::Instant::now();
    assert!(Execution::new("DEL", daemon.socket()).run().status.success());
    assert!((1.0..2.0).contains(&before.elapsed().as_secs_f64()), "{:?}", before.elapsed());
    assert_eq!(spooled(place.path()).len(), 1);
}

#[test]
fn a_result_that_nobody_can_read_is_exit_status_1_and_no_signal() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(program())
        .env_clear()
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::null())
        .stdout(writer)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1), "{status}");
}

#[test]
fn closed_standard_files_are_errors_and_nothing_worse() {
    let shell = |redirection: &str| {
        let script = format!("CNI_COMMAND=VERSION exec \"$0\" {redirection}");
        Command::new("/bin/sh").args(["-c", &script]).arg(program()).stdin(Stdio::null()).output().unwrap()
    };
    let output = shell("<&-");
    assert_eq!(output.status.code(), Some(1));
    let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["msg"], "io: cannot read standard input: Bad file descriptor");
    let output = shell(">&-");
    assert_eq!((output.status.code(), output.stdout, output.stderr), (Some(1), Vec::new(), Vec::new()));
}

#[test]
fn the_largest_inputs_fit_the_arena() {
    const MIB: usize = 1024 * 1024;
    let place = tempfile::tempdir().unwrap();
    let daemon = daemon(place.path());
    let fill = |unit: &str| unit.repeat((MIB - 300) / unit.len());
    let conf =
        |members: &str| format!(r#"{{"cniVersion":"1.1.0","name":"azure","socket":"{}",{members}}}"#, daemon.socket());
    for members in [
        format!(r#""dns":{{"nameservers":[{}""]}}"#, fill(r#""","#)),
        format!(r#""dns":{{"search":[{}""]}}"#, fill(r#""\n","#)),
        format!(r#""dns":{{"domain":"{}"}}"#, fill(r"\u00e9")),
        format!(r#""prevResult":{{"x":"{}"}}"#, fill(r"\n")),
        format!(r#"{}"last":1"#, fill(r#""\n":1,"#)),
    ] {
        let result = Execution::new("ADD", daemon.socket()).stdin(conf(&members)).result();
        assert_eq!(result["ips"][0]["address"], "10.240.4.4/32");
    }
    for (members, code) in [
        (format!(r#""name":"{}""#, fill(r"\n")), 7),
        (format!(r#""socket":"{}""#, fill(r"\u0001")), 7),
        (format!(r#""type":"{}","name":7"#, fill(r"\n")), 6),
        (fill(r#""\n":1,"#), 6),
        (format!(r#""x":"{}""#, fill(r"\n\n\n\n").repeat(2)), 6),
    ] {
        assert_eq!(Execution::new("ADD", daemon.socket()).stdin(conf(&members)).error()["code"], code);
    }
    let long = "x".repeat(100_000);
    for (name, code) in [("CNI_CONTAINERID", 102), ("CNI_NETNS", 4), ("CNI_IFNAME", 4), ("CNI_COMMAND", 4)] {
        assert_eq!(Execution::new("ADD", daemon.socket()).with(name, &long).error()["code"], code, "{name}");
    }
}

/// Numbers that look random and are the same in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % limit
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, from: usize) {
        const PIECES: [&[u8]; 10] =
            [b"", b"\"", b"{", b"}", b"[\"", b"\\u", b"\xff", b"null", b"-1e999", b",\"name\":"];
        for _ in 0..=self.below(3) {
            let start = from + self.below(bytes.len() - from + 1);
            let end = (start + self.below(6)).min(bytes.len());
            bytes.splice(start..end, PIECES[self.below(PIECES.len())].iter().copied());
        }
    }
}

#[test]
fn whatever_is_mutilated_there_is_one_object_or_nothing_and_no_signal() {
    let place = tempfile::tempdir().unwrap();
    let daemon = daemon(place.path());
    // The socket comes first and stays, so that whatever else is made of the call reaches this daemon or none.
    let start = format!(r#"{{"socket":"{}""#, daemon.socket());
    let rest = r#","cniVersion":"0.4.0","name":"azure","dns":{"search":["x"]}}"#;
    let mut random = Random(20_251_121);
    let mut succeeded = 0;
    for round in 0..600 {
        let mut execution = Execution::new(["ADD", "DEL", "VERSION"][round % 3], daemon.socket());
        execution.stdin = [start.as_bytes(), rest.as_bytes()].concat();
        if random.below(2) == 0 {
            random.mutate(&mut execution.stdin, start.len());
        } else {
            let names = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"];
            let name = names[random.below(names.len())];
            random.mutate(execution.variables.get_mut(name).unwrap(), 0);
        }
        let output = execution.run();
        let printed = String::from_utf8(output.stdout).unwrap();
        let object = serde_json::from_str::<serde_json::Value>(&printed);
        match output.status.code() {
            Some(0) if printed.is_empty() => assert!(round % 3 == 1, "only DEL says nothing"),
            Some(0) => assert!(object.is_ok_and(|object| object.get("cniVersion").is_some()), "{printed}"),
            _ => {
                assert!(object.is_ok_and(|object| object["code"].as_u64().is_some_and(|code| code < 999)), "{printed}")
            }
        }
        succeeded += usize::from(output.status.success());
    }
    assert!((50..550).contains(&succeeded), "{succeeded} of 600 succeeded: this tests little");
}

#[test]
fn the_program_is_small_and_needs_nothing_to_be_loaded() {
    let elf = fs::read(program()).unwrap();
    assert!(elf.len() <= 128 * 1024, "{} bytes", elf.len());
    let number = |at: usize, size: usize| elf[at..at + size].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
    let index = |n: u64| usize::try_from(n).unwrap();
    // Elf64_Ehdr: e_type at 16, e_phoff at 32, e_phentsize at 54, e_phnum at 56. Elf64_Phdr: p_type, p_flags.
    assert_eq!((&elf[..4], elf[4]), (&b"\x7fELF"[..], 2));
    assert_eq!(number(16, 2), 2, "ET_EXEC: at a fixed place, with nothing to relocate");
    let headers: Vec<(u64, u64)> = (0..index(number(56, 2)))
        .map(|i| index(number(32, 8)) + i * index(number(54, 2)))
        .map(|at| (number(at, 4), number(at + 4, 4)))
        .collect();
    const LOAD: u64 = 1;
    const DYNAMIC: u64 = 2;
    const INTERP: u64 = 3;
    assert!(headers.iter().all(|(kind, _)| *kind != DYNAMIC && *kind != INTERP), "{headers:?}");
    assert_eq!(headers.iter().filter(|(kind, _)| *kind == LOAD).count(), 2, "{headers:?}");
    // PF_X is 1, PF_W is 2.
    assert!(headers.iter().all(|(_, flags)| flags & 3 != 3), "writable and executable: {headers:?}");
}
