//! The messages between plugin and daemon.

use std::borrow::Cow;

use dotfour_plugin::answer::Answer;
use dotfour_protocol::frame::{
    MAX_MESSAGE, decode_reply, decode_request, decode_spooled, encode_reply, encode_request, encode_spooled,
};
use dotfour_protocol::{Cause, Failure, Reply};

/// An address may be a few bytes longer as this crate writes it than as somebody else did, so a message at the very
/// limit may be refused by its next sender. That is no broken promise.
const LONGEST: usize = MAX_MESSAGE / 2;

/// What the daemon reads: a request, or a DEL from the spool. What is taken is the same after it was written and read
/// again; what is refused is refused by a sentence about the protocol.
pub fn request_frame(data: &[u8]) -> bool {
    if data.len() > LONGEST {
        return false;
    }
    let request = decode_request(data);
    match &request {
        Ok(request) => {
            assert_eq!(encode_request(request).and_then(|bytes| decode_request(&bytes)).as_ref(), Ok(request))
        }
        Err(failure) => refused(failure),
    }
    let spooled = decode_spooled(data);
    match &spooled {
        Ok(del) => assert_eq!(encode_spooled(del).and_then(|bytes| decode_spooled(&bytes)).as_ref(), Ok(del)),
        Err(failure) => refused(failure),
    }
    request.is_ok() || spooled.is_ok()
}

/// What the plugin and `dotfourctl` read. Beside what holds for a request: the plugin, which reads replies by code of its
/// own, reads everything the daemon can write to it, and never means anything else by the same bytes.
pub fn reply_frame(data: &[u8]) -> bool {
    if data.len() > LONGEST {
        return false;
    }
    let by_plugin = Answer::read(data.to_vec());
    match decode_reply(data) {
        Ok(reply) => {
            let written = encode_reply(&reply).map(Cow::into_owned);
            assert_eq!(
                written.as_ref().map_err(Failure::clone).and_then(|bytes| decode_reply(bytes)).as_ref(),
                Ok(&reply)
            );
            same(&reply, &written.map_err(|failure| failure.message).and_then(Answer::read));
            if by_plugin.is_ok() {
                same(&reply, &by_plugin);
            }
            true
        }
        Err(failure) => {
            refused(&failure);
            by_plugin.is_ok()
        }
    }
}

/// Whether the plugin read what the daemon meant. The replies to calls that no plugin makes are none to it.
fn same(reply: &Reply, answer: &Result<Answer, String>) {
    match reply {
        Reply::Printed(result) => assert_eq!(answer, &Ok(Answer::Printed(result.clone().into_bytes()))),
        Reply::Detached => assert_eq!(answer, &Ok(Answer::Detached)),
        Reply::Checked => assert_eq!(answer, &Ok(Answer::Checked)),
        Reply::Collected => assert_eq!(answer, &Ok(Answer::Collected)),
        Reply::Ready => assert_eq!(answer, &Ok(Answer::Ready)),
        Reply::Failed(failure) => assert_eq!(answer, &Ok(Answer::Failed(failure.clone()))),
        Reply::Attached(_) | Reply::Assigned(_) | Reply::Status(_) => assert!(answer.is_err(), "{answer:?}"),
    }
}

fn refused(failure: &Failure) {
    assert_eq!((failure.cause.as_str(), failure.code), ("protocol-mismatch", Cause::ProtocolMismatch.cni_code()));
    assert!(!failure.message.is_empty() && !failure.next_step.is_empty());
}
