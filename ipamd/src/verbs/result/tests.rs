use dotfour_protocol::frame;
use serde_json::{Value, json};

use super::*;

fn attachment() -> Attachment {
    Attachment {
        host_ifname: "azv0123456789a".into(),
        host_mac: "aa:aa:aa:aa:aa:aa".into(),
        pod_mac: "0a:58:0a:f0:04:04".into(),
        mtu: 1500,
        addresses: vec![
            PodAddress { address: "10.240.4.4/32".parse().unwrap(), gateway: "169.254.1.1".parse().unwrap() },
            PodAddress { address: "fd00::4/128".parse().unwrap(), gateway: "fe80::1234:5678:9abc".parse().unwrap() },
        ],
        routes: vec![
            Route { dst: "169.254.1.1/32".parse().unwrap(), gw: None },
            Route { dst: "0.0.0.0/0".parse().unwrap(), gw: Some("169.254.1.1".parse().unwrap()) },
        ],
    }
}

fn ipam() -> Assigned {
    let pod = |address: &str, gateway: &str| PodAddress {
        address: address.parse().unwrap(),
        gateway: gateway.parse().unwrap(),
    };
    Assigned { addresses: vec![pod("10.240.4.4/16", "10.240.0.1"), pod("fd00::5/64", "fe80::1234:5678:9abc")] }
}

/// The result, which a plugin must know for one.
fn result(reply: Reply) -> Value {
    let Reply::Printed(text) = reply else { panic!("{reply:?}") };
    assert!(frame::is_result(text.as_bytes()), "{text}");
    assert_eq!(text.matches('\n').count(), 1, "one line");
    serde_json::from_str(&text).unwrap()
}

fn of_add(version: CniVersion) -> Value {
    let format = ResultFormat { version, sandbox: Some("/run/netns/\"cni-1\"".into()) };
    result(attached(Some(&format), "eth0", &attachment()))
}

fn of_ipam(version: CniVersion) -> Value {
    result(assigned(Some(&ResultFormat { version, sandbox: None }), ipam()))
}

#[test]
fn the_result_of_1_1_0_is_exactly_this() {
    assert_eq!(
        of_add(CniVersion::V1_1_0),
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": "azv0123456789a", "mac": "aa:aa:aa:aa:aa:aa", "mtu": 1500},
                {"name": "eth0", "mac": "0a:58:0a:f0:04:04", "mtu": 1500, "sandbox": "/run/netns/\"cni-1\""},
            ],
            "ips": [
                {"interface": 1, "address": "10.240.4.4/32", "gateway": "169.254.1.1"},
                {"interface": 1, "address": "fd00::4/128", "gateway": "fe80::1234:5678:9abc"},
            ],
            "routes": [{"dst": "169.254.1.1/32"}, {"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
            "dns": {},
        })
    );
}

#[test]
fn the_result_of_1_0_0_has_no_mtu() {
    let mut expected = of_add(CniVersion::V1_1_0);
    expected["cniVersion"] = "1.0.0".into();
    for interface in expected["interfaces"].as_array_mut().unwrap() {
        interface.as_object_mut().unwrap().remove("mtu");
    }
    assert_eq!(of_add(CniVersion::V1_0_0), expected);
}

#[test]
fn the_results_before_1_0_0_name_the_addresses_family() {
    for version in [CniVersion::V0_3_0, CniVersion::V0_3_1, CniVersion::V0_4_0] {
        for of in [of_add, of_ipam] {
            let mut expected = of(CniVersion::V1_0_0);
            expected["cniVersion"] = version.name().into();
            expected["ips"][0]["version"] = "4".into();
            expected["ips"][1]["version"] = "6".into();
            assert_eq!(of(version), expected);
        }
    }
}

#[test]
fn the_result_for_a_delegating_plugin_has_default_routes_and_no_interfaces() {
    assert_eq!(
        of_ipam(CniVersion::V1_1_0),
        json!({
            "cniVersion": "1.1.0",
            "ips": [
                {"address": "10.240.4.4/16", "gateway": "10.240.0.1"},
                {"address": "fd00::5/64", "gateway": "fe80::1234:5678:9abc"},
            ],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.240.0.1"}, {"dst": "::/0", "gw": "fe80::1234:5678:9abc"}],
            "dns": {},
        })
    );
}

#[test]
fn an_interface_in_no_sandbox_that_anybody_named_has_none() {
    let format = ResultFormat { version: CniVersion::V1_1_0, sandbox: None };
    assert!(result(attached(Some(&format), "eth0", &attachment()))["interfaces"][1].get("sandbox").is_none());
}

#[test]
fn who_gives_no_format_gets_the_protocol_s_own_answer() {
    assert_eq!(attached(None, "eth0", &attachment()), Reply::Attached(attachment()));
    assert_eq!(assigned(None, ipam()), Reply::Assigned(ipam()));
}

#[test]
fn an_attachment_of_both_families_fits_the_memory_asked_for() {
    let format = ResultFormat { version: CniVersion::V0_4_0, sandbox: Some("x".repeat(64)) };
    let Reply::Printed(text) = attached(Some(&format), "eth0-of-15bytes", &attachment()) else { panic!("not printed") };
    assert!(text.len() <= USUAL_LENGTH, "{} bytes", text.len());
}
