//! One question to the container runtime: does it see the network? It reads its directory when it is told that something
//! changed there, and now and then it is not told.
//!
//! The question is CRI's `Status`, a gRPC call without arguments whose answer has two booleans that matter. HTTP/2 is
//! hyper's, which the daemon has anyway; the six lines of protobuf on either side are not worth a gRPC framework, which
//! would bring some fifty crates.

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, TE};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;

/// How long the runtime may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// CRI v1, which containerd has had since 1.6 and CRI-O since 1.20.
const CALL: &str = "http://localhost/runtime.v1.RuntimeService/Status";

/// The condition that says whether pods get a network.
const CONDITION: &str = "NetworkReady";

/// What the runtime says of its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// It has a network configuration.
    Ready,
    /// It has none; its own words.
    NotReady(String),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Nobody listens.
    #[error("the container runtime cannot be reached on {path}")]
    Unreachable {
        /// The socket.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not speak HTTP/2, or stopped in the middle.
    #[error("the container runtime did not answer")]
    Failed(#[from] hyper::Error),
    /// It took too long.
    #[error("the container runtime did not answer within {PATIENCE:?}")]
    Slow,
    /// The answer is none to the question.
    #[error("the container runtime's answer cannot be understood: {0}")]
    Odd(String),
}

/// Asks the runtime that listens on a unix socket. Waits 2 s at most.
pub async fn network(socket: &Path) -> Result<Network, RuntimeError> {
    tokio::time::timeout(PATIENCE, ask(socket)).await.map_err(|_| RuntimeError::Slow)?
}

async fn ask(socket: &Path) -> Result<Network, RuntimeError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| RuntimeError::Unreachable { path: socket.display().to_string(), source })?;
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(CALL)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        // Not compressed, no bytes: a message whose fields all have their defaults.
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .map_err(|e| RuntimeError::Odd(e.to_string()))?;
    let response = client.send_request(request).await;
    let answer = match response {
        Ok(response) => {
            let status = response.headers().get("grpc-message").map(|said| format!("{said:?}"));
            let body = response.into_body().collect().await?.to_bytes();
            read(&body).ok_or_else(|| RuntimeError::Odd(status.unwrap_or_else(|| format!("{} bytes", body.len()))))
        }
        Err(e) => Err(e.into()),
    };
    connection.abort();
    answer
}

/// Reads a `StatusResponse` in its gRPC frame: `status` (1) has `conditions` (1), each with `type` (1), `status` (2),
/// `reason` (3) and `message` (4).
fn read(frame: &[u8]) -> Option<Network> {
    let (header, message) = frame.split_at_checked(5)?;
    let (0, length) = (*header.first()?, u32::from_be_bytes(header.get(1..)?.try_into().ok()?)) else { return None };
    let message = message.get(..usize::try_from(length).ok()?)?;
    let status = fields(message)?.into_iter().find_map(|(number, field)| (number == 1).then_some(field.bytes()?))?;
    for (number, field) in fields(status)? {
        let Some(condition) = field.bytes().filter(|_| number == 1).and_then(fields) else { continue };
        let text = |wanted| {
            let found = condition.iter().find(|(number, _)| *number == wanted).and_then(|(_, field)| field.bytes());
            String::from_utf8_lossy(found.unwrap_or_default()).into_owned()
        };
        if text(1) == CONDITION {
            let ready = condition.iter().any(|(number, field)| *number == 2 && *field == Field::Number(1));
            return Some(if ready { Network::Ready } else { Network::NotReady(format!("{}: {}", text(3), text(4))) });
        }
    }
    None
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

impl<'m> Field<'m> {
    fn bytes(self) -> Option<&'m [u8]> {
        match self {
            Field::Bytes(bytes) => Some(bytes),
            Field::Number(_) => None,
        }
    }
}

/// The fields of a protobuf message with their numbers. `None` if it is cut or has fields of fixed length, which CRI has not.
fn fields(mut message: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let value = varint(&mut message)?;
        let field = match key & 7 {
            0 => Field::Number(value),
            2 => {
                let (bytes, rest) = message.split_at_checked(usize::try_from(value).ok()?)?;
                message = rest;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        fields.push((key >> 3, field));
    }
    Some(fields)
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for place in 0..10 {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f).checked_shl(7 * place)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        // Lengths below 128 are one byte, and those of these tests below 16384 two.
        let length = bytes.len();
        let length = if length < 128 {
            vec![u8::try_from(length).unwrap()]
        } else {
            vec![u8::try_from(length & 0x7f).unwrap() | 0x80, u8::try_from(length >> 7).unwrap()]
        };
        [vec![number << 3 | 2], length, bytes.to_vec()].concat()
    }

    fn condition(kind: &str, ready: bool, message: &str) -> Vec<u8> {
        let ready = if ready { vec![2 << 3, 1] } else { vec![] };
        field(1, &[field(1, kind.as_bytes()), ready, field(3, b"Reason"), field(4, message.as_bytes())].concat())
    }

    fn frame(conditions: &[Vec<u8>]) -> Vec<u8> {
        // With the map `info` behind it, as the verbose answer has.
        let message = [field(1, &conditions.concat()), field(2, b"\x0a\x01k\x12\x01v")].concat();
        [vec![0], u32::try_from(message.len()).unwrap().to_be_bytes().to_vec(), message].concat()
    }

    #[test]
    fn the_network_s_condition_is_found_among_others() {
        let runtime = condition("RuntimeReady", true, "");
        assert_eq!(read(&frame(&[runtime.clone(), condition("NetworkReady", true, "")])), Some(Network::Ready));
        let long = "cni plugin not initialized ".repeat(8);
        let said = Network::NotReady(format!("Reason: {long}"));
        assert_eq!(read(&frame(&[runtime.clone(), condition("NetworkReady", false, &long)])), Some(said));
        assert_eq!(read(&frame(&[runtime])), None);
    }

    #[test]
    fn no_answer_that_is_cut_or_changed_is_a_panic() {
        let whole = frame(&[condition("RuntimeReady", true, ""), condition("NetworkReady", true, "yes")]);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None, "cut at {length}");
        }
        for place in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[place] = value;
                let _ = read(&changed);
            }
        }
    }

    #[test]
    fn a_runtime_that_is_not_there_is_named() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let e = runtime.block_on(network(Path::new("/nonexistent/containerd.sock"))).unwrap_err();
        assert!(e.to_string().contains("/nonexistent/containerd.sock"), "{e}");
    }
}
