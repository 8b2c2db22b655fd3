//! bandwidth: shaping on the pod's host link, and on an ifb device for the other direction.

use std::net::SocketAddr;
use std::time::Duration;

use dotfour_datapath::Netns;
use dotfour_e2e::{Dump, transfer};
use dotfour_rig::{Place, Runtime};
use serde_json::json;

use crate::Outcome;
use crate::stage::{Stage, Up, bandwidth};

/// In bits per second.
const RATE: u64 = 8_000_000;
/// In bits.
const BURST: u64 = 400_000;
/// In bytes: takes a second but for the burst.
const BYTES: usize = 1_000_000;
const PORT: u16 = 5001;
const SOON: Duration = Duration::from_secs(5);
/// What the rate allows, and what is left of it for headers.
const EXPECTED: std::ops::Range<Duration> = Duration::from_millis(850)..Duration::from_millis(2_500);
/// The same without a limit.
const FAST: Duration = Duration::from_millis(400);

pub(crate) fn limited(place: &Place) -> Outcome {
    let stage = Stage::set(place, 8, Duration::from_secs(30))?;
    let limit = json!({ "ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE, "egressBurst": BURST });
    let limited = stage.chain(&[bandwidth()], &json!({ "bandwidth": limit }))?;
    let free = stage.chain(&[bandwidth()], &json!({}))?;
    let before = stage.warm(&limited)?;

    let pod = Up::add(&stage, &limited, "limited")?;
    let control = Up::add(&stage, &free, "free")?;
    let with_pods = Dump::of(stage.node.netns())?;
    assert_eq!(with_pods.lines_with("qdisc tbf 1:").count(), 2, "one shaper for each direction:\n{with_pods}");
    let other = stage.other.netns();
    let time = |from: &Netns, to: &Netns, address| {
        transfer::send((from, SocketAddr::from((address, PORT))), (to, PORT), BYTES, SOON).map(|sent| sent.took)
    };
    let (into, out_of) =
        (time(other, pod.pod.netns(), pod.address)?, time(pod.pod.netns(), other, stage.other.address())?);
    let unlimited = time(other, control.pod.netns(), control.address)?.max(time(
        control.pod.netns(),
        other,
        stage.other.address(),
    )?);
    println!(
        "rate: {BYTES} bytes at {RATE} bit/s take {into:.2?} into the pod, {out_of:.2?} out of it; {unlimited:.2?} without"
    );
    assert!(EXPECTED.contains(&into), "into the pod it takes {into:?}, not {EXPECTED:?}");
    assert!(EXPECTED.contains(&out_of), "out of the pod it takes {out_of:?}, not {EXPECTED:?}");
    assert!(unlimited < FAST, "without a limit it takes {unlimited:?}: this machine cannot tell");

    Runtime::new(&stage.node, &free).del(&control.pod, None)?;
    Runtime::new(&stage.node, &limited).del(&pod.pod, None)?;
    stage.as_before(&before, &pod.pod.container_id)
}
