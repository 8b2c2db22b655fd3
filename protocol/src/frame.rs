//! Bytes in, bytes out; no sockets.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use crate::{Call, Cause, Failure, Reply, Request, SpooledDel, VERSION};

/// The longest reply, and the longest message but for a GC, in bytes: far above what an attachment needs.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The longest request, in bytes. A GC lists all of a node's attachments, a hundred bytes each; a default unix socket
/// carries 212,960.
pub const MAX_REQUEST: usize = 192 * 1024;

/// A request as bytes. Errs only if it exceeds [`MAX_MESSAGE`], or [`MAX_REQUEST`] for a GC.
pub fn encode_request(request: &Request) -> Result<Vec<u8>, Failure> {
    let limit = if matches!(request.call, Call::Gc(_)) { MAX_REQUEST } else { MAX_MESSAGE };
    bounded(serde_json::to_vec(request), limit)
}

/// A reply as bytes. Errs only if it exceeds [`MAX_MESSAGE`].
pub fn encode_reply(reply: &Reply) -> Result<Vec<u8>, Failure> {
    bounded(serde_json::to_vec(reply), MAX_MESSAGE)
}

/// Reads a request. A message from another generation is refused by name and not as garbage.
pub fn decode_request(bytes: &[u8]) -> Result<Request, Failure> {
    match serde_json::from_slice::<Request>(bytes) {
        Ok(request) if request.version == VERSION => Ok(request),
        _ => refuse(bytes),
    }
}

/// Says what is wrong with a request: its version comes first.
fn refuse(bytes: &[u8]) -> Result<Request, Failure> {
    #[derive(Deserialize)]
    struct Envelope {
        version: u16,
    }
    let Envelope { version } =
        serde_json::from_slice(bytes).map_err(|e| mismatch(format!("the request is not a Dotfour message: {e}")))?;
    if version != VERSION {
        return Err(mismatch(format!("the request has protocol version {version}, this daemon speaks {VERSION}")));
    }
    serde_json::from_slice(bytes).map_err(|e| mismatch(format!("the request is not a call this daemon knows: {e}")))
}

/// Reads a reply.
pub fn decode_reply(bytes: &[u8]) -> Result<Reply, Failure> {
    serde_json::from_slice(bytes).map_err(|e| mismatch(format!("the daemon's reply is not one this plugin knows: {e}")))
}

/// A DEL for the spool as bytes.
pub fn encode_spooled(del: &SpooledDel) -> Result<Vec<u8>, Failure> {
    bounded(serde_json::to_vec(del), MAX_MESSAGE)
}

/// Reads a DEL from the spool.
pub fn decode_spooled(bytes: &[u8]) -> Result<SpooledDel, Failure> {
    let del: SpooledDel =
        serde_json::from_slice(bytes).map_err(|e| mismatch(format!("the file is not a spooled DEL: {e}")))?;
    if del.version != VERSION {
        return Err(mismatch(format!("the spooled DEL has version {}, this daemon reads {VERSION}", del.version)));
    }
    Ok(del)
}

fn bounded(encoded: serde_json::Result<Vec<u8>>, limit: usize) -> Result<Vec<u8>, Failure> {
    let bytes =
        encoded.map_err(|e| Failure::new(Cause::Internal, format!("cannot encode a message: {e}"), REPORT_DEFECT))?;
    if bytes.len() > limit {
        return Err(Failure::new(
            Cause::ProtocolMismatch,
            format!("a message of {} bytes is over the limit of {limit}", bytes.len()),
            "shorten the names in the network configuration and CNI_ARGS",
        ));
    }
    Ok(bytes)
}

fn mismatch(message: String) -> Failure {
    Failure::new(
        Cause::ProtocolMismatch,
        message,
        "install the plugin and the daemon from the same release, or releases next to each other",
    )
}

const REPORT_DEFECT: &str = "this is a defect in Dotfour: please report it with the daemon's log";

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use super::*;
    use crate::{Add, AttachmentKey, Check, PodName};

    fn add() -> Request {
        Request::new(Call::Add(Add {
            key: AttachmentKey { network: "azure".into(), container_id: "c0ffee".into(), ifname: "eth0".into() },
            pod: Some(PodName { namespace: "default".into(), name: "web-0".into() }),
            started_ns: Some(12_345),
            asked: Vec::new(),
        }))
    }

    #[test]
    fn a_request_survives_the_wire() {
        let bytes = encode_request(&add()).unwrap();
        assert_eq!(decode_request(&bytes).unwrap(), add());
    }

    #[test]
    fn what_came_later_is_left_out_where_it_says_nothing_and_may_be_absent() {
        let key = AttachmentKey { network: "n".into(), container_id: "c".into(), ifname: "eth0".into() };
        for delegated in [false, true] {
            let request = Request::new(Call::Check(Check { key: key.clone(), addresses: Vec::new(), delegated }));
            let bytes = encode_request(&request).unwrap();
            assert_eq!(alloc::str::from_utf8(&bytes).unwrap().contains("delegated"), delegated);
            assert_eq!(decode_request(&bytes).unwrap(), request);
        }
    }

    #[test]
    fn members_of_a_later_version_are_ignored() {
        let text = r#"{"version":1,"since":"2.0","call":{"del":{"key":{"network":"n","container_id":"c",
            "ifname":"eth0","zone":1},"force":true}}}"#;
        assert!(matches!(decode_request(text.as_bytes()).unwrap().call, Call::Del(_)));
    }

    #[test]
    fn another_protocol_version_is_refused_by_number() {
        let failure = decode_request(br#"{"version":7,"call":{"teleport":{}}}"#).unwrap_err();
        assert_eq!(failure.cause, Cause::ProtocolMismatch.name());
        assert!(failure.message.contains('7'), "{failure}");
    }

    #[test]
    fn garbage_is_refused_without_a_panic() {
        for bytes in [&b""[..], b"{", b"null", b"[]", b"\xff\xfe", br#"{"version":"1"}"#, br#"{"version":1}"#] {
            assert_eq!(decode_request(bytes).unwrap_err().cause, "protocol-mismatch");
            assert!(decode_reply(bytes).is_err());
        }
    }

    #[test]
    fn an_oversized_message_is_refused_by_its_sender() {
        let mut request = add();
        if let Call::Add(add) = &mut request.call {
            add.key.network = vec!["x"; MAX_MESSAGE].concat();
        }
        let failure = encode_request(&request).unwrap_err();
        assert!(failure.message.contains(&MAX_MESSAGE.to_string()), "{failure}");
    }
}
