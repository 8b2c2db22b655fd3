//! What goes to standard output: the result of each version of the specification, and the error object.

use alloc::format;
use alloc::vec::Vec;
use core::net::IpAddr;

use dotfour_protocol::{Assigned, Attachment, Cause, Failure, PodAddress};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::version::CniVersion;

/// The result of ADD (SPEC.md 1.1.0, "Add Success", and the same of older versions). 1.0.0 dropped the addresses'
/// `version`, 1.1.0 brought the interfaces' `mtu`; `dns` has been there always, empty or not. An IPAM plugin's has no
/// interfaces ("Delegated Plugins (IPAM)").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AddResult<'a> {
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    interfaces: Option<[Interface<'a>; 2]>,
    ips: Vec<Address>,
    routes: Vec<Route>,
    dns: Dns<'a>,
}

#[derive(Serialize)]
struct Interface<'a> {
    name: &'a str,
    mac: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
}

#[derive(Serialize)]
struct Address {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    /// Index into the interfaces, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<usize>,
    address: IpNet,
    gateway: IpAddr,
}

#[derive(Serialize)]
struct Route {
    dst: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    gw: Option<IpAddr>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Dns<'a> {
    Configured(&'a RawValue),
    Empty {},
}

/// The pod's interface is the second one: the node's comes first, as it does in the results of other plugins.
const POD_INTERFACE: usize = 1;

/// The result of an ADD for the pod's interface `ifname` in the namespace `sandbox`.
///
/// # Errors
/// `internal`, if the result cannot be written as JSON.
pub fn attached(
    version: CniVersion,
    attachment: &Attachment,
    ifname: &str,
    sandbox: &str,
    dns: Option<&RawValue>,
) -> Result<Vec<u8>, Failure> {
    let mtu = (version >= CniVersion::V1_1_0).then_some(attachment.mtu);
    json(&AddResult {
        cni_version: version.name(),
        interfaces: Some([
            Interface { name: &attachment.host_ifname, mac: &attachment.host_mac, mtu, sandbox: None },
            Interface { name: ifname, mac: &attachment.pod_mac, mtu, sandbox: Some(sandbox) },
        ]),
        ips: ips(version, &attachment.addresses, Some(POD_INTERFACE)),
        routes: attachment.routes.iter().map(|route| Route { dst: route.dst, gw: route.gw }).collect(),
        dns: dns.map_or(Dns::Empty {}, Dns::Configured),
    })
}

/// The result of an ADD for a delegating plugin: everything that is not on the pod's link goes via the gateway.
///
/// # Errors
/// As [`attached`].
pub fn assigned(version: CniVersion, assigned: &Assigned, dns: Option<&RawValue>) -> Result<Vec<u8>, Failure> {
    let default_route = |pod: &PodAddress| Route {
        dst: match pod.address {
            IpNet::V4(_) => Ipv4Net::default().into(),
            IpNet::V6(_) => Ipv6Net::default().into(),
        },
        gw: Some(pod.gateway),
    };
    json(&AddResult {
        cni_version: version.name(),
        interfaces: None,
        ips: ips(version, &assigned.addresses, None),
        routes: assigned.addresses.iter().map(default_route).collect(),
        dns: dns.map_or(Dns::Empty {}, Dns::Configured),
    })
}

fn ips(version: CniVersion, addresses: &[PodAddress], interface: Option<usize>) -> Vec<Address> {
    let of = |pod: &PodAddress| Address {
        version: (version < CniVersion::V1_0_0).then_some(match pod.address {
            IpNet::V4(_) => "4",
            IpNet::V6(_) => "6",
        }),
        interface,
        address: pod.address,
        gateway: pod.gateway,
    };
    addresses.iter().map(of).collect()
}

/// The answer to VERSION (SPEC.md 1.1.0, "Version Success"), repeating the version of the input.
///
/// # Errors
/// As [`attached`].
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
    let mut text = serde_json::to_vec(value).map_err(|e| {
        Failure::new(
            Cause::Internal,
            format!("cannot write the result: {e}"),
            "this is a defect in Dotfour: please report it",
        )
    })?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests;
