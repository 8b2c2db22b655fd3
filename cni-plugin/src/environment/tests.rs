use proptest::prelude::*;

use super::*;

/// What containerd passes.
const GOOD: [(&str, &str); 5] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "4f6e2d1c0b9a"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_NETNS", "/run/netns/cni-1"),
    ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=7"),
];

/// The good variables, with some of them other.
fn with<'a>(changes: &[(&'a str, &'a [u8])]) -> Environment<'a> {
    let changed = changes.iter().map(|(name, value)| (name.as_bytes(), *value));
    // The first of a name counts, so what is changed comes first.
    Environment::collect(changed.chain(GOOD.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))))
}

fn fault(environment: Environment<'_>) -> String {
    let failure = environment.for_add().expect_err("ADD must refuse this");
    assert_eq!((failure.code, failure.cause.as_str()), (4, "invalid-environment"), "{failure}");
    failure.message
}

#[test]
fn what_a_runtime_passes_is_taken() {
    let variables = with(&[]).for_add().unwrap();
    assert_eq!(variables.container_id, "4f6e2d1c0b9a");
    assert_eq!(variables.ifname, "eth0");
    assert_eq!(variables.netns, "/run/netns/cni-1");
    assert_eq!(variables.pod, Some(PodName { namespace: "default".into(), name: "web-0".into() }));
}

#[test]
fn of_a_variable_that_comes_twice_the_first_counts() {
    let twice =
        [("CNI_IFNAME", "net1"), ("CNI_IFNAME", "net2")].map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let environment = Environment::collect(twice.into_iter());
    assert_eq!(environment.ifname, Some(&b"net1"[..]));
}

#[test]
fn the_verbs_are_told_apart_and_every_other_is_named() {
    for (name, command) in [
        ("ADD", Command::Add),
        ("DEL", Command::Del),
        ("CHECK", Command::Check),
        ("GC", Command::Gc),
        ("STATUS", Command::Status),
        ("VERSION", Command::Version),
    ] {
        assert_eq!(with(&[("CNI_COMMAND", name.as_bytes())]).command(), Ok(command));
    }
    for name in ["UPDATE", "add", "ADD ", "\u{1b}[2J"] {
        let failure = with(&[("CNI_COMMAND", name.as_bytes())]).command().unwrap_err();
        assert_eq!(failure.code, 4);
        assert!(failure.message.contains("CNI_COMMAND") && failure.message.contains(name), "{failure}");
    }
    assert_eq!(with(&[("CNI_COMMAND", b"")]).command().unwrap_err().message, "CNI_COMMAND is missing");
    assert_eq!(Environment::default().command().unwrap_err().message, "CNI_COMMAND is missing");
    assert!(with(&[("CNI_COMMAND", b"\xff")]).command().unwrap_err().message.contains("CNI_COMMAND"));
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    assert_eq!(
        fault(Environment::default()),
        "CNI_CONTAINERID is missing; CNI_IFNAME is missing; CNI_NETNS is missing"
    );
    let message = fault(with(&[
        ("CNI_CONTAINERID", b"-x"),
        ("CNI_IFNAME", b"a/b"),
        ("CNI_NETNS", b""),
        ("CNI_ARGS", b"K8S_POD_NAME"),
    ]));
    for name in ["CNI_CONTAINERID \"-x\"", "CNI_IFNAME \"a/b\"", "CNI_NETNS is missing", "CNI_ARGS has"] {
        assert!(message.contains(name), "{message}");
    }
    assert_eq!(message.matches("; ").count(), 3, "{message}");
}

#[test]
fn a_container_id_is_what_the_specification_allows() {
    for good in ["a", "0", "A-b_c.d", "4f6e2d1c0b9a"] {
        assert!(with(&[("CNI_CONTAINERID", good.as_bytes())]).for_add().is_ok(), "{good}");
    }
    for bad in ["", "-a", "_a", ".a", "a b", "a/b", "a\n", "é", "a:b", "a\u{0}b"] {
        assert!(fault(with(&[("CNI_CONTAINERID", bad.as_bytes())])).starts_with("CNI_CONTAINERID"), "{bad}");
    }
    assert_eq!(fault(with(&[("CNI_CONTAINERID", b"\xff")])), "CNI_CONTAINERID is not UTF-8");
}

#[test]
fn an_interface_name_is_what_the_kernel_takes_as_it_is() {
    for good in ["eth0", "a", "...", "net-1", "123456789012345"] {
        assert!(with(&[("CNI_IFNAME", good.as_bytes())]).for_add().is_ok(), "{good}");
    }
    // "eth%d" asks the kernel for a name of its own choice; U+00A0 has the byte 0xa0, which the kernel's isspace knows.
    for bad in ["", ".", "..", "1234567890123456", "a b", "a/b", "a:b", "a\tb", "a\u{b}b", "eth%d", "a\u{a0}"] {
        assert!(fault(with(&[("CNI_IFNAME", bad.as_bytes())])).starts_with("CNI_IFNAME"), "{bad}");
    }
}

#[test]
fn a_pod_has_a_name_only_with_its_namespace() {
    let pod = |args: &'static str| with(&[("CNI_ARGS", args.as_bytes())]).for_add().map(|variables| variables.pod);
    for none in ["", ";", "IgnoreUnknown=1", "A=;B=c=d", "K8S_POD_NAMESPACE=;K8S_POD_NAME="] {
        assert_eq!(pod(none), Ok(None), "{none}");
    }
    let name = PodName { namespace: "kube-system".into(), name: "dns=1".into() };
    assert_eq!(pod("K8S_POD_NAME=dns=1;K8S_POD_NAMESPACE=kube-system;"), Ok(Some(name)));
    // The first is podman's.
    for half in ["IgnoreUnknown=1;K8S_POD_NAME=a", "K8S_POD_NAMESPACE=a", "K8S_POD_NAMESPACE=;K8S_POD_NAME=a"] {
        assert_eq!(pod(half), Ok(None), "{half}");
    }
    for malformed in ["nothing", "=x", "A=b;c", "A=b;=;C=d"] {
        let message = pod(malformed).unwrap_err().message;
        assert!(message.starts_with("CNI_ARGS has \"") && message.contains("KEY=value"), "{message}");
    }
    assert_eq!(fault(with(&[("CNI_ARGS", b"A=\xff")])), "CNI_ARGS is not UTF-8");
}

#[test]
fn del_asks_for_the_key_alone() {
    let gone = with(&[("CNI_NETNS", b""), ("CNI_ARGS", b"\xff")]);
    assert_eq!(gone.for_del(), Ok(DelVariables { container_id: "4f6e2d1c0b9a", ifname: "eth0" }));
    let failure = Environment::default().for_del().unwrap_err();
    assert_eq!(failure.message, "CNI_CONTAINERID is missing; CNI_IFNAME is missing");
}

#[test]
fn a_value_that_would_fill_the_event_is_cut() {
    let long = vec![b'!'; 100_000];
    assert!(fault(with(&[("CNI_CONTAINERID", &long)])).len() < 400);
}

proptest! {
    #[test]
    fn whatever_the_environment_is_it_is_taken_by_the_rules_or_refused_by_name(
        id in ".{0,4}", ifname in "[a-z/:% .]{0,17}", netns in any::<Vec<u8>>(), args in "[A-Z=;_]{0,20}",
    ) {
        let environment = with(&[
            ("CNI_CONTAINERID", id.as_bytes()), ("CNI_IFNAME", ifname.as_bytes()), ("CNI_NETNS", &netns),
            ("CNI_ARGS", args.as_bytes()),
        ]);
        match environment.for_add() {
            Ok(variables) => {
                prop_assert!(!variables.container_id.is_empty() && variables.container_id.is_ascii());
                prop_assert!((1..=15).contains(&variables.ifname.len()) && !variables.ifname.contains(['/', ':', '%', ' ']));
                prop_assert_eq!(variables.netns.as_bytes(), &netns[..]);
            }
            Err(failure) => prop_assert!(failure.message.starts_with("CNI_"), "{}", failure),
        }
    }
}

#[test]
fn the_addresses_of_cni_args_are_taken_and_what_is_none_is_named() {
    let asked = |args: &'static str| with(&[("CNI_ARGS", args.as_bytes())]).for_add();
    let mut both = Asked::default();
    both.push("10.240.0.9").unwrap();
    both.push("fd00::9").unwrap();
    assert_eq!(asked("IP=10.240.0.9,fd00::9/64").unwrap().asked, both);
    assert_eq!(asked("IP=;X=1").unwrap().asked, Asked::default());
    let says = r#"CNI_ARGS has "web", which is not an IP address"#;
    assert_eq!(fault(with(&[("CNI_ARGS", b"IP=web")])), says);
}
