//! Bad input, broken standard files, and the largest that there may be.

use std::process::{Command, Stdio};

use crate::daemon;
use crate::support::{Execution, program};

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
        let configured: serde_json::Value = serde_json::from_str(&conf(&members)).unwrap();
        let empty = serde_json::json!({});
        assert_eq!(
            (&result["of"], &result["dns"]),
            (&"/proc/self/ns/net".into(), configured.get("dns").unwrap_or(&empty))
        );
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
