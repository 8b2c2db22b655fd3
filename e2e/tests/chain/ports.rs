//! portmap: a port of the node that leads to a pod.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dotfour_e2e::transfer;
use dotfour_rig::{Place, Runtime};
use serde_json::json;

use crate::Outcome;
use crate::stage::{Stage, Up, portmap};

const HOST_PORT: u16 = 8080;
const POD_PORT: u16 = 80;
/// How long a connection may take that is to be made, and how long one is tried that is not.
const SOON: Duration = Duration::from_secs(5);
const REFUSED_WITHIN: Duration = Duration::from_millis(500);

pub(crate) fn reached(place: &Place) -> Outcome {
    let stage = Stage::set(place, 8, Duration::from_secs(30))?;
    let mapping = json!([{ "hostPort": HOST_PORT, "containerPort": POD_PORT, "protocol": "tcp" }]);
    let mapped = stage.chain(&[portmap()], &json!({ "portMappings": mapping }))?;
    let unmapped = stage.chain(&[portmap()], &json!({}))?;
    let before = stage.warm(&mapped)?;

    let web = Up::add(&stage, &mapped, "web")?;
    let client = Up::add(&stage, &unmapped, "client")?;
    let node_port = SocketAddr::from((stage.node.address(), HOST_PORT));
    let ask = |from, patience| transfer::send((from, node_port), (web.pod.netns(), POD_PORT), 1_000, patience);

    let from_outside = ask(stage.other.netns(), SOON)?;
    assert_eq!(from_outside.seen, IpAddr::V4(stage.other.address()), "the pod must see who asks");
    let from_pod = ask(client.pod.netns(), SOON)?;
    assert_eq!(from_pod.seen, IpAddr::V4(client.address), "the pod must see who asks");
    // The answer comes back only if it was made to: portmap masquerades this one.
    let from_itself = ask(web.pod.netns(), SOON)?;
    assert_ne!(from_itself.seen, IpAddr::V4(web.address));

    let runtime = Runtime::new(&stage.node, &unmapped);
    runtime.del(&client.pod, Some(&client.result))?;
    // A restarted runtime knows no result any more.
    Runtime::new(&stage.node, &mapped).del(&web.pod, None)?;
    let closed = ask(stage.other.netns(), REFUSED_WITHIN);
    // The node itself says so. A rule that is left would lead to nobody, who says nothing.
    let closed = closed.err().map(|e| e.kind());
    assert_eq!(closed, Some(ErrorKind::ConnectionRefused), "the port leads somewhere after DEL");
    stage.as_before(&before, &web.pod.container_id)
}
