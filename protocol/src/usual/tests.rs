//! What is written and read here is what the library writes and reads.

use alloc::format;

use proptest::option;
use proptest::prelude::*;

use super::*;

/// Names as they come, and now and then one that must be escaped.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::string::string_regex("[a-zA-Z0-9/._äß€-]{0,40}").unwrap(),
        1 => any::<String>(),
    ]
}

fn add() -> impl Strategy<Value = Add> {
    let key = (text(), text(), text());
    let pod = option::of((text(), text()));
    let asked = prop_oneof![8 => Just(Vec::new()), 1 => prop::collection::vec(any::<[u8; 4]>(), 1..3)];
    let print = option::of((prop::sample::select(&CniVersion::SUPPORTED), option::of(text())));
    let started_ns = prop_oneof![Just(None), Just(Some(0)), Just(Some(u64::MAX)), any::<Option<u64>>()];
    (key, pod, started_ns, asked, print).prop_map(|(key, pod, started_ns, asked, print)| Add {
        key: AttachmentKey { network: key.0, container_id: key.1, ifname: key.2 },
        pod: pod.map(|(namespace, name)| PodName { namespace, name }),
        started_ns,
        asked: asked.into_iter().map(Into::into).collect(),
        print: print.map(|(version, sandbox)| ResultFormat { version, sandbox }),
    })
}

fn request() -> impl Strategy<Value = Request> {
    let call = prop_oneof![
        add().prop_map(Call::Add),
        add().prop_map(Call::Assign),
        add().prop_map(|Add { key, started_ns, .. }| Call::Del(Del { key, started_ns })),
    ];
    (call, prop_oneof![9 => Just(VERSION), 1 => any::<u16>()]).prop_map(|(call, version)| Request { version, call })
}

fn texts(request: &Request) -> Vec<&str> {
    match &request.call {
        Call::Add(add) | Call::Assign(add) => {
            let mut texts = Vec::from([&*add.key.network, &add.key.container_id, &add.key.ifname]);
            texts.extend(add.pod.iter().flat_map(|pod| [&*pod.namespace, &pod.name]));
            texts.extend(add.print.iter().filter_map(|print| print.sandbox.as_deref()));
            texts
        }
        Call::Del(del) => Vec::from([&*del.key.network, &del.key.container_id, &del.key.ifname]),
        _ => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_written_is_what_the_library_writes(request in request()) {
        let plain = texts(&request).iter().all(|text| !text.contains(['"', '\\']) && !text.contains(|c: char| c < ' '));
        let usual = match &request.call {
            Call::Add(add) | Call::Assign(add) => add.asked.is_empty(),
            _ => true,
        };
        let written = write(&request);
        prop_assert_eq!(written.is_some(), plain && usual);
        if let Some(written) = written {
            prop_assert_eq!(written, serde_json::to_vec(&request).unwrap());
        }
    }

    #[test]
    fn what_the_library_writes_is_read_or_left_to_it(request in request()) {
        let message = serde_json::to_vec(&request).unwrap();
        match read(&message) {
            Some(read) => prop_assert_eq!(read, request),
            None => prop_assert!(write(&request).is_none() || request.version != VERSION),
        }
    }

    #[test]
    fn a_message_that_was_changed_is_read_as_the_library_reads_it_or_left_to_it(
        request in request(),
        place: prop::sample::Index,
        byte: u8,
        cut: bool,
    ) {
        let mut message = serde_json::to_vec(&request).unwrap();
        let place = place.index(message.len());
        if cut {
            message.truncate(place);
        } else {
            message[place] = byte;
        }
        if let Some(read) = read(&message) {
            prop_assert_eq!(read, serde_json::from_slice::<Request>(&message).unwrap());
        }
    }
}

#[test]
fn the_calls_of_a_pod_are_usual() {
    let key = AttachmentKey { network: "azure".into(), container_id: "c0ffee".into(), ifname: "eth0".into() };
    let add = Add {
        key: key.clone(),
        pod: Some(PodName { namespace: "default".into(), name: "web-0".into() }),
        started_ns: Some(12_345),
        asked: Vec::new(),
        print: Some(ResultFormat { version: CniVersion::V1_1_0, sandbox: Some("/run/netns/x".into()) }),
    };
    for call in [Call::Add(add.clone()), Call::Assign(add), Call::Del(Del { key, started_ns: Some(7) })] {
        let request = Request::new(call);
        assert_eq!(read(&write(&request).unwrap()), Some(request));
    }
}

#[test]
fn what_only_looks_alike_is_left_to_the_library() {
    let usual = r#"{"version":1,"call":{"del":{"key":{"network":"n","container_id":"c","ifname":"eth0"}}}}"#;
    assert!(read(usual.as_bytes()).is_some());
    let others = [
        usual.replace(':', ": "),
        usual.replace("\"n\"", r#""\u006e""#),
        usual.replace(r#"}}}}"#, r#"},"force":true}}}"#),
        usual.replace(":1,", ":01,"),
        usual.replace(":1,", ":2,"),
        usual.replace("del", "gc"),
        usual.replace("\"c\"", "\"c\u{1}\""),
        format!("{usual} "),
        format!(" {usual}"),
    ];
    for other in others {
        assert_eq!(read(other.as_bytes()), None, "{other}");
    }
    assert_eq!(read(b"{\"version\":1,\"call\":{\"del\":{\"key\":{\"network\":\"\xff\""), None);
}
