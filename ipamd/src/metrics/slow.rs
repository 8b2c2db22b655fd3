//! The line in the log for an ADD that took long.

use dotfour_protocol::frame::decode_request;
use dotfour_protocol::{Call, Request};
use tracing::warn;

use super::{Outcome, Phases};

/// Says which pod's ADD was slow, and in which phases. `request` is decoded once more for that: what every ADD would have to
/// keep for this line, only a slow one needs.
pub fn tell_slow(request: &[u8], outcome: Outcome, phases: &Phases) {
    let Ok(Request { call: Call::Add(add), .. }) = decode_request(request) else { return };
    let pod = add.pod.map(|pod| pod.to_string());
    warn!(key = %add.key, pod, result = outcome.result, took = ?phases.total(), "slow ADD: {phases}");
}
