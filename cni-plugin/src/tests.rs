use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::stdio::MAX_INPUT;

/// Runs the plugin as the program does: exit status and standard output.
fn execute(variables: &[(&str, &[u8])], input: &[u8]) -> (i32, Vec<u8>) {
    let mut stdin = tempfile::tempfile().unwrap();
    stdin.write_all(input).unwrap();
    rustix::fs::seek(&stdin, rustix::fs::SeekFrom::Start(0)).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let variables = variables.iter().map(|(name, value)| (name.as_bytes(), *value));
    let status = run(b"dotfour", variables, stdin.as_fd(), writer.as_fd(), 1);
    drop(writer);
    let mut printed = Vec::new();
    (&reader).read_to_end(&mut printed).unwrap();
    (status, printed)
}

fn error(variables: &[(&str, &[u8])], input: &[u8]) -> Value {
    let (status, printed) = execute(variables, input);
    let object: Value = serde_json::from_slice(&printed).expect("one JSON object");
    assert_eq!(status, 1, "{object}");
    assert_eq!(object.as_object().map(|object| object.len()), Some(4), "{object}");
    object
}

const ADD: [(&str, &[u8]); 4] = [
    ("CNI_COMMAND", b"ADD"),
    ("CNI_CONTAINERID", b"c0ffee"),
    ("CNI_IFNAME", b"eth0"),
    ("CNI_NETNS", b"/proc/self/ns/net"),
];

#[test]
fn version_needs_no_other_variable() {
    let (status, printed) = execute(&[("CNI_COMMAND", b"VERSION")], br#"{"cniVersion":"0.4.0"}"#);
    let printed: Value = serde_json::from_slice(&printed).unwrap();
    assert_eq!((status, &printed["cniVersion"]), (0, &"0.4.0".into()));
    assert_eq!(printed["supportedVersions"].as_array().map(Vec::len), Some(5));
}

#[test]
fn without_a_command_standard_input_is_not_waited_for() {
    let (never, _open) = std::io::pipe().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    assert_eq!(run(b"dotfour", core::iter::empty(), never.as_fd(), writer.as_fd(), 1), 1);
    drop(writer);
    let printed: Value = serde_json::from_reader(reader).unwrap();
    assert_eq!(printed["msg"], "invalid-environment: CNI_COMMAND is missing");
}

#[test]
fn an_error_is_of_the_version_asked_for() {
    for (version, carried) in [("0.3.0", "0.3.0"), ("1.0.0", "1.0.0"), ("0.1.0", "1.1.0")] {
        let input = format!(r#"{{"cniVersion":"{version}","name":1}}"#);
        assert_eq!(error(&ADD, input.as_bytes())["cniVersion"], carried);
    }
    let unserved = [("CNI_COMMAND", &b"CHECK"[..])];
    assert_eq!(error(&unserved, br#"{"cniVersion":"0.4.0"}"#)["cniVersion"], "0.4.0");
    assert_eq!(error(&[], b"")["cniVersion"], "1.1.0");
}

#[test]
fn the_variables_are_looked_at_before_the_configuration_and_that_before_the_namespace() {
    let code = |variables: &[(&str, &[u8])], input: &[u8]| error(variables, input)["code"].as_u64().unwrap();
    let mut wrong = ADD;
    wrong[3].1 = b"/nowhere";
    assert_eq!(code(&wrong[..3], b"{"), 4);
    assert_eq!(code(&wrong, b"{"), 6);
    let object = error(&wrong, br#"{"cniVersion":"1.1.0","name":"azure","socket":"/nowhere/else"}"#);
    assert_eq!(object["msg"], "invalid-namespace: CNI_NETNS \"/nowhere\" cannot be opened: No such file or directory");
}

#[test]
fn standard_input_is_read_to_its_end_and_not_beyond_the_limit() {
    let padding = " ".repeat(MAX_INPUT - 2);
    assert_eq!(execute(&[("CNI_COMMAND", b"VERSION")], format!("{{{padding}}}").as_bytes()).0, 0);
    let object = error(&[("CNI_COMMAND", b"VERSION")], format!("{{ {padding}}}").as_bytes());
    assert_eq!((&object["code"], object["msg"].as_str().unwrap().contains("1048576")), (&6.into(), true));
}

#[test]
fn standard_input_that_cannot_be_read_is_an_io_error() {
    let directory = File::open("/").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    assert_eq!(
        run(b"dotfour", [(&b"CNI_COMMAND"[..], &b"VERSION"[..])].into_iter(), directory.as_fd(), writer.as_fd(), 1),
        1
    );
    drop(writer);
    let printed: Value = serde_json::from_reader(reader).unwrap();
    assert_eq!(
        (&printed["code"], &printed["msg"]),
        (&5.into(), &"io: cannot read standard input: Is a directory".into())
    );
}

#[test]
fn a_result_that_nobody_reads_is_a_failure() {
    let stdin = tempfile::tempfile().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(
        run(b"dotfour", [(&b"CNI_COMMAND"[..], &b"VERSION"[..])].into_iter(), stdin.as_fd(), writer.as_fd(), 1),
        1
    );
}

proptest! {
    #[test]
    fn whatever_comes_in_one_object_or_nothing_goes_out(
        names in proptest::collection::vec(
            prop_oneof![Just("CNI_COMMAND"), Just("CNI_CONTAINERID"), Just("CNI_IFNAME"), Just("CNI_NETNS"), Just("CNI_ARGS")],
            0..6,
        ),
        values in proptest::collection::vec(
            prop_oneof![
                Just(b"ADD".to_vec()), Just(b"DEL".to_vec()), Just(b"VERSION".to_vec()), Just(b"eth0".to_vec()),
                Just(b"/proc/self/ns/net".to_vec()), any::<Vec<u8>>(),
            ],
            6,
        ),
        at in 28..65_usize, cut in 0..64_usize, insert in "[\"{}\\[\\]:,a-z0-9\\\\]{0,4}",
    ) {
        // The socket stays as it is: whatever is made of the rest reaches no daemon.
        let mut input = r#"{"socket":"/nowhere/socket","cniVersion":"0.4.0","name":"azure"}"#.to_owned();
        input.replace_range(at.min(input.len())..(at + cut).min(input.len()), &insert);
        let variables: Vec<_> = names.into_iter().zip(values.iter().map(Vec::as_slice)).collect();
        let (status, printed) = execute(&variables, input.as_bytes());
        let object = serde_json::from_slice::<Value>(&printed).unwrap();
        prop_assert!(object.is_object());
        prop_assert_eq!(status, i32::from(object.get("supportedVersions").is_none()), "{}", object);
    }
}
