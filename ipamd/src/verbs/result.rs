//! The result of an ADD, as the plugin prints it: that of each version of the specification. Pure.
//!
//! That is SPEC.md 1.1.0, "Add Success", and the same of older versions: 1.0.0 dropped the addresses' `version`, 1.1.0 brought
//! the interfaces' `mtu`; `dns` has been there always, empty or not. An IPAM plugin's has no interfaces ("Delegated Plugins
//! (IPAM)").

use dotfour_protocol::frame::EMPTY_DNS;
use dotfour_protocol::plain::Writer;
use dotfour_protocol::{Assigned, Attachment, CniVersion, Failure, PodAddress, Reply, ResultFormat, Route};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The pod's interface is the second one: the node's comes first, as it does in the results of other plugins.
const POD_INTERFACE: u64 = 1;

/// More bytes than a result has with addresses of both families, so that its memory is asked for once.
const USUAL_LENGTH: usize = 1024;

/// The answer to an ADD for the pod's interface `ifname`: printed, if the caller gave a format.
pub fn attached(format: Option<&ResultFormat>, ifname: &str, attachment: &Attachment) -> Reply {
    let Some(ResultFormat { version, sandbox }) = format else { return Reply::Attached(attachment.clone()) };
    let Attachment { host_ifname, host_mac, pod_mac, mtu, addresses, routes } = attachment;
    let mtu = (*version >= CniVersion::V1_1_0).then_some(*mtu);
    let mut out = begin(*version);
    write_interface(&mut out, r#","interfaces":[{"name":"#, host_ifname, host_mac, mtu);
    write_interface(&mut out, r#"},{"name":"#, ifname, pod_mac, mtu);
    if let Some(sandbox) = sandbox {
        out.escaped(r#","sandbox":"#, sandbox);
    }
    out.raw("}]");
    write_addresses(&mut out, *version, Some(POD_INTERFACE), addresses);
    write_routes(&mut out, routes);
    end(out)
}

/// The answer to an ADD for a delegating plugin: everything that is not on the pod's link goes via the gateway.
pub fn assigned(format: Option<&ResultFormat>, assigned: Assigned) -> Reply {
    let Some(ResultFormat { version, .. }) = format else { return Reply::Assigned(assigned) };
    let default_route = |pod: &PodAddress| Route {
        dst: match pod.address {
            IpNet::V4(_) => Ipv4Net::default().into(),
            IpNet::V6(_) => Ipv6Net::default().into(),
        },
        gw: Some(pod.gateway),
    };
    let routes: Vec<Route> = assigned.addresses.iter().map(default_route).collect();
    let mut out = begin(*version);
    write_addresses(&mut out, *version, None, &assigned.addresses);
    write_routes(&mut out, &routes);
    end(out)
}

/// The version comes first, because a printed reply is known by it.
fn begin(version: CniVersion) -> Writer {
    let mut out = Writer::default();
    out.reserve(USUAL_LENGTH);
    out.escaped(r#"{"cniVersion":"#, version.name());
    out
}

/// What an interface has in every version, up to where more may come.
fn write_interface(out: &mut Writer, before: &str, name: &str, mac: &str, mtu: Option<u32>) {
    out.escaped(before, name);
    out.escaped(r#","mac":"#, mac);
    if let Some(mtu) = mtu {
        out.raw(r#","mtu":"#);
        out.number(mtu.into());
    }
}

/// The addresses of an interface, or of none. `interface` is the index among the interfaces.
fn write_addresses(out: &mut Writer, version: CniVersion, interface: Option<u64>, addresses: &[PodAddress]) {
    out.raw(r#","ips":["#);
    for (place, PodAddress { address, gateway }) in addresses.iter().enumerate() {
        out.raw(if place == 0 { "{" } else { "},{" });
        if version < CniVersion::V1_0_0 {
            out.raw(if address.addr().is_ipv4() { r#""version":"4","# } else { r#""version":"6","# });
        }
        if let Some(interface) = interface {
            out.raw(r#""interface":"#);
            out.number(interface);
            out.raw(",");
        }
        out.raw(r#""address":""#);
        out.net(*address);
        out.raw(r#"","gateway":""#);
        out.address(*gateway);
        out.raw("\"");
    }
    out.raw(if addresses.is_empty() { "]" } else { "}]" });
}

fn write_routes(out: &mut Writer, routes: &[Route]) {
    out.raw(r#","routes":["#);
    for (place, Route { dst, gw }) in routes.iter().enumerate() {
        out.raw(if place == 0 { r#"{"dst":""# } else { r#",{"dst":""# });
        out.net(*dst);
        if let Some(gw) = gw {
            out.raw(r#"","gw":""#);
            out.address(*gw);
        }
        out.raw(r#""}"#);
    }
    out.raw("]");
}

/// `dns` is last and empty, because the plugin writes in what the configuration has. One line.
fn end(mut out: Writer) -> Reply {
    out.raw(r#","dns":"#);
    let mut text = out.into_bytes();
    text.extend_from_slice(EMPTY_DNS);
    match String::from_utf8(text) {
        Ok(text) => Reply::Printed(text),
        // It is put together of nothing but texts; should that ever change, the ADD fails and is undone.
        Err(e) => Reply::Failed(Failure::defect(format!("cannot write the result: {e}"))),
    }
}

#[cfg(test)]
mod tests;
