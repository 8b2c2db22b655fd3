//! What there is to know about an instance, as JSON. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::azure::Subnet;
use crate::azure::nics::Nic;

/// The tree under `/metadata/instance`. Every leaf is a string, as in Azure; of `compute` there is only what is the same
/// for all instances here.
pub fn write(nic: &Nic, subnet: Subnet) -> Value {
    let list = |ipv6: bool| -> Vec<Value> {
        let of_family = nic.addresses.iter().filter(|address| address.is_ipv6() == ipv6);
        let entry = |address: &IpAddr| match address {
            IpAddr::V4(v4) => json!({"privateIpAddress": v4.to_string(), "publicIpAddress": ""}),
            IpAddr::V6(v6) => json!({"privateIpAddress": v6.to_string()}),
        };
        of_family.map(entry).collect()
    };
    let ranges: Vec<Value> = subnet
        .ranges()
        .filter(|range| matches!(range, IpNet::V4(_)))
        .map(|range| json!({"address": range.network().to_string(), "prefix": range.prefix_len().to_string()}))
        .collect();
    json!({
        "compute": {"azEnvironment": "AzurePublicCloud"},
        "network": {"interface": [{
            "ipv4": {"ipAddress": list(false), "subnet": ranges},
            "ipv6": {"ipAddress": list(true)},
            "macAddress": nic.mac.to_string().replace(':', "").to_uppercase(),
        }]},
    })
}
