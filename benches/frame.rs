//! What do the messages between plugin and daemon cost?
//!
//! Cases (time per operation):
//! - `request/encode`, `request/decode`: an ADD with a 64-digit container id and a pod name.
//! - `reply/encode`, `reply/decode`: the answer to it, one address and two routes.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use dotfour_protocol::frame::{decode_reply, decode_request, encode_reply, encode_request};
use dotfour_protocol::{Add, Attachment, AttachmentKey, Call, PodAddress, PodName, Reply, Request, Route};

fn frame(c: &mut Criterion) {
    let key = AttachmentKey { network: "azure".into(), container_id: "c".repeat(64), ifname: "eth0".into() };
    let pod = Some(PodName { namespace: "default".into(), name: "web-6d4cf56db6-x7k2p".into() });
    let request = Request::new(Call::Add(Add { key, pod, started_ns: Some(1_234_567_890_123), asked: Vec::new() }));
    let reply = Reply::Attached(Attachment {
        host_ifname: "azv0d7763386da".into(),
        host_mac: "aa:aa:aa:aa:aa:aa".into(),
        pod_mac: "0a:d4:0a:f0:00:05".into(),
        mtu: 1500,
        addresses: vec![PodAddress {
            address: "10.240.0.5/32".parse().unwrap(),
            gateway: "169.254.1.1".parse().unwrap(),
        }],
        routes: vec![
            Route { dst: "169.254.1.1/32".parse().unwrap(), gw: None },
            Route { dst: "0.0.0.0/0".parse().unwrap(), gw: Some("169.254.1.1".parse().unwrap()) },
        ],
    });
    let request_bytes = encode_request(&request).unwrap();
    let reply_bytes = encode_reply(&reply).unwrap();
    c.bench_function("request/encode", |b| b.iter(|| encode_request(black_box(&request))));
    c.bench_function("request/decode", |b| b.iter(|| decode_request(black_box(&request_bytes))));
    c.bench_function("reply/encode", |b| b.iter(|| encode_reply(black_box(&reply))));
    c.bench_function("reply/decode", |b| b.iter(|| decode_reply(black_box(&reply_bytes))));
}

criterion_group!(benches, frame);
criterion_main!(benches);
