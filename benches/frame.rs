//! What do the messages between plugin and daemon cost?
//!
//! Cases (time per operation):
//! - `request/encode`, `request/decode`: an ADD with a 64-digit container id and a pod name.
//! - `result/write`, `result/read`: the result that answers it, one address and two routes, as the daemon writes it and as the
//!   plugin knows it for one.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use dotfour_ipamd::verbs::result;
use dotfour_plugin::answer::Answer;
use dotfour_protocol::frame::{decode_request, encode_reply, encode_request};
use dotfour_protocol::{
    Add, Attachment, AttachmentKey, Call, CniVersion, PodAddress, PodName, Request, ResultFormat, Route,
};

fn frame(c: &mut Criterion) {
    let key = AttachmentKey { network: "azure".into(), container_id: "c".repeat(64), ifname: "eth0".into() };
    let pod = Some(PodName { namespace: "default".into(), name: "web-6d4cf56db6-x7k2p".into() });
    let format = ResultFormat { version: CniVersion::V1_1_0, sandbox: Some("/run/netns/cni-0123456789".into()) };
    let (started_ns, print) = (Some(1_234_567_890_123), Some(format.clone()));
    let request = Request::new(Call::Add(Add { key, pod, started_ns, asked: Vec::new(), print }));
    let attachment = Attachment {
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
    };
    let request_bytes = encode_request(&request).unwrap();
    let write = |attachment| encode_reply(&result::attached(Some(&format), "eth0", attachment)).unwrap().into_owned();
    let result_bytes = write(&attachment);
    c.bench_function("request/encode", |b| b.iter(|| encode_request(black_box(&request))));
    c.bench_function("request/decode", |b| b.iter(|| decode_request(black_box(&request_bytes))));
    c.bench_function("result/write", |b| b.iter(|| write(black_box(&attachment))));
    c.bench_function("result/read", |b| b.iter(|| Answer::read(black_box(&result_bytes).clone())));
}

criterion_group!(benches, frame);
criterion_main!(benches);
