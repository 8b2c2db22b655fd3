//! What goes to standard output: the daemon's result with the configuration's `dns`, the versions, and the error object.

use alloc::format;
use alloc::vec::Vec;

use dotfour_protocol::frame::EMPTY_DNS;
use dotfour_protocol::{CniVersion, Failure};
use serde::Serialize;

/// A result as the daemon has printed it, with the configuration's `dns` in place of the empty one at its end. The daemon
/// never sees it: it may be longer than any message.
pub fn with_dns(mut result: Vec<u8>, dns: Option<&str>) -> Vec<u8> {
    let Some(dns) = dns.map(str::as_bytes) else { return result };
    result.truncate(result.len().saturating_sub(EMPTY_DNS.len()));
    result.reserve_exact(dns.len() + END.len());
    result.extend_from_slice(dns);
    result.extend_from_slice(END);
    result
}

/// What follows the last member.
const END: &[u8] = b"}\n";

/// The answer to VERSION (SPEC.md 1.1.0, "Version Success"), repeating the version of the input.
///
/// # Errors
/// `internal`, if it cannot be written as JSON.
pub fn versions(asked: &str) -> Result<Vec<u8>, Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Versions<'a> {
        cni_version: &'a str,
        supported_versions: [&'static str; 5],
    }
    json(&Versions { cni_version: asked, supported_versions: CniVersion::SUPPORTED.map(CniVersion::name) })
}

/// The error object (SPEC.md 1.1.0, "Error"): the cause begins `msg`, the next step is `details`.
pub fn failed(version: CniVersion, failure: &Failure) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ErrorObject<'a> {
        cni_version: &'static str,
        code: u32,
        msg: &'a str,
        details: &'a str,
    }
    let object = ErrorObject {
        cni_version: version.name(),
        code: failure.code,
        msg: &format!("{}: {}", failure.cause, failure.message),
        details: &failure.next_step,
    };
    // Strings and a number always are JSON; should that ever change, the exit status still tells.
    json(&object).unwrap_or_default()
}

/// One line of JSON.
fn json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let mut text = serde_json::to_vec(value).map_err(|e| Failure::defect(format!("cannot write the result: {e}")))?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests;
