//! Bytes in, bytes out; no sockets.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;

use serde::{Deserialize, Serialize};

use crate::{Call, Cause, Failure, Reply, Request, SpooledDel, VERSION, usual};

/// The longest reply, and the longest message but for a GC, in bytes: far above what an attachment needs.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The longest request, in bytes. A GC lists all of a node's attachments, a hundred bytes each; a default unix socket
/// carries 212,960.
pub const MAX_REQUEST: usize = 192 * 1024;

/// How a [`Reply::Printed`] begins, and no other reply.
const RESULT_BEGINS: &[u8] = br#"{"cniVersion":"#;

/// How a [`Reply::Printed`] ends. A plugin with a `dns` of its own writes it over [`EMPTY_DNS`].
const RESULT_ENDS: &[u8] = b"\"dns\":{}}\n";

/// The end of a [`Reply::Printed`] behind the name of its last member.
pub const EMPTY_DNS: &[u8] = b"{}}\n";

/// Whether a reply is a [`Reply::Printed`]: by both its ends, so that half a result is none.
pub fn is_result(reply: &[u8]) -> bool {
    reply.starts_with(RESULT_BEGINS) && reply.ends_with(RESULT_ENDS)
}

/// A request as bytes. Errs only if it exceeds [`MAX_MESSAGE`], or [`MAX_REQUEST`] for a GC.
pub fn encode_request(request: &Request) -> Result<Vec<u8>, Failure> {
    let limit = if matches!(request.call, Call::Gc(_)) { MAX_REQUEST } else { MAX_MESSAGE };
    let bytes = match usual::write(request) {
        Some(bytes) => bytes,
        None => json(request)?,
    };
    within(bytes, limit)
}

/// A reply as bytes. Errs only if it exceeds [`MAX_MESSAGE`].
pub fn encode_reply(reply: &Reply) -> Result<Cow<'_, [u8]>, Failure> {
    let bytes = match reply {
        Reply::Printed(result) => Cow::Borrowed(result.as_bytes()),
        reply => Cow::Owned(json(reply)?),
    };
    within(bytes, MAX_MESSAGE)
}

/// Reads a request. A message from another generation is refused by name and not as garbage.
pub fn decode_request(bytes: &[u8]) -> Result<Request, Failure> {
    if let Some(request) = usual::read(bytes) {
        return Ok(request);
    }
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
    let unknown = |e: &dyn Display| mismatch(format!("the daemon's reply is not one this plugin knows: {e}"));
    if is_result(bytes) {
        return String::from_utf8(bytes.to_vec()).map(Reply::Printed).map_err(|e| unknown(&e));
    }
    serde_json::from_slice(bytes).map_err(|e| unknown(&e))
}

/// A DEL for the spool as bytes.
pub fn encode_spooled(del: &SpooledDel) -> Result<Vec<u8>, Failure> {
    within(json(del)?, MAX_MESSAGE)
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

fn json(message: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(message).map_err(|e| Failure::defect(format!("cannot encode a message: {e}")))
}

fn within<B: AsRef<[u8]>>(message: B, limit: usize) -> Result<B, Failure> {
    let bytes = message.as_ref();
    if bytes.len() > limit {
        return Err(Failure::new(
            Cause::ProtocolMismatch,
            format!("a message of {} bytes is over the limit of {limit}", bytes.len()),
            "shorten the names in the network configuration and CNI_ARGS",
        ));
    }
    Ok(message)
}

fn mismatch(message: String) -> Failure {
    Failure::new(
        Cause::ProtocolMismatch,
        message,
        "install the plugin and the daemon from the same release, or releases next to each other",
    )
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use super::*;
    use crate::{Add, AttachmentKey, Check, CniVersion, PodName, ResultFormat};

    fn add() -> Request {
        Request::new(Call::Add(Add {
            key: AttachmentKey { network: "azure".into(), container_id: "c0ffee".into(), ifname: "eth0".into() },
            pod: Some(PodName { namespace: "default".into(), name: "web-0".into() }),
            started_ns: Some(12_345),
            asked: Vec::new(),
            print: None,
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
    fn an_add_says_in_which_format_it_wants_its_result_or_nothing() {
        let mut request = add();
        assert!(!alloc::str::from_utf8(&encode_request(&request).unwrap()).unwrap().contains("print"));
        for (version, sandbox) in [(CniVersion::V0_4_0, Some("/run/netns/\"".into())), (CniVersion::V1_1_0, None)] {
            if let Call::Add(add) = &mut request.call {
                add.print = Some(ResultFormat { version, sandbox });
            }
            assert_eq!(decode_request(&encode_request(&request).unwrap()).unwrap(), request);
        }
    }

    #[test]
    fn a_result_is_sent_as_it_is_and_known_by_both_its_ends() {
        let text = "{\"cniVersion\":\"1.1.0\",\"ips\":[],\"dns\":{}}\n";
        let reply = Reply::Printed(text.into());
        let bytes = encode_reply(&reply).unwrap();
        assert_eq!(&*bytes, text.as_bytes());
        assert!(bytes.ends_with(EMPTY_DNS));
        assert_eq!(decode_reply(&bytes).unwrap(), reply);
        for wrong in [&text[1..], text.trim_end(), "{\"cniVersion\":\"1.1.0\"}\n", r#"{"printed":"{}"}"#] {
            assert_eq!(decode_reply(wrong.as_bytes()).unwrap_err().cause, "protocol-mismatch", "{wrong}");
        }
        assert!(decode_reply(b"{\"cniVersion\":\"\xff\",\"dns\":{}}\n").is_err());
        assert!(encode_reply(&Reply::Printed(vec!["x"; MAX_MESSAGE + 1].concat())).is_err());
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
