use dotfour_protocol::{PodAddress, Route as PodRoute};
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
            PodRoute { dst: "169.254.1.1/32".parse().unwrap(), gw: None },
            PodRoute { dst: "0.0.0.0/0".parse().unwrap(), gw: Some("169.254.1.1".parse().unwrap()) },
        ],
    }
}

fn printed(version: CniVersion, dns: Option<&str>) -> Value {
    let dns = dns.map(|dns| serde_json::from_str::<&RawValue>(dns).unwrap());
    let text = attached(version, &attachment(), "eth0", "/run/netns/cni-1", dns).unwrap();
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn the_result_of_1_1_0_is_exactly_this() {
    let dns = r#"{"nameservers":["168.63.129.16"]}"#;
    assert_eq!(
        printed(CniVersion::V1_1_0, Some(dns)),
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": "azv0123456789a", "mac": "aa:aa:aa:aa:aa:aa", "mtu": 1500},
                {"name": "eth0", "mac": "0a:58:0a:f0:04:04", "mtu": 1500, "sandbox": "/run/netns/cni-1"},
            ],
            "ips": [
                {"interface": 1, "address": "10.240.4.4/32", "gateway": "169.254.1.1"},
                {"interface": 1, "address": "fd00::4/128", "gateway": "fe80::1234:5678:9abc"},
            ],
            "routes": [{"dst": "169.254.1.1/32"}, {"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
            "dns": {"nameservers": ["168.63.129.16"]},
        })
    );
}

#[test]
fn the_result_of_1_0_0_has_no_mtu() {
    let mut expected = printed(CniVersion::V1_1_0, None);
    expected["cniVersion"] = "1.0.0".into();
    for interface in expected["interfaces"].as_array_mut().unwrap() {
        interface.as_object_mut().unwrap().remove("mtu");
    }
    assert_eq!(printed(CniVersion::V1_0_0, None), expected);
}

#[test]
fn the_results_before_1_0_0_name_the_addresses_family() {
    for version in [CniVersion::V0_3_0, CniVersion::V0_3_1, CniVersion::V0_4_0] {
        let mut expected = printed(CniVersion::V1_0_0, None);
        expected["cniVersion"] = version.name().into();
        expected["ips"][0]["version"] = "4".into();
        expected["ips"][1]["version"] = "6".into();
        assert_eq!(printed(version, None), expected);
    }
}

#[test]
fn dns_is_there_always() {
    for version in CniVersion::SUPPORTED {
        assert_eq!(printed(version, None)["dns"], json!({}));
    }
}

#[test]
fn version_lists_what_is_served() {
    let text = versions("0.4.0").unwrap();
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "{\"cniVersion\":\"0.4.0\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n"
    );
}

#[test]
fn an_error_has_the_cause_in_front_and_the_next_step_as_details() {
    let failure = Failure::new(Cause::PoolExhausted, "0 of 30 addresses are free \"now\"", "add addresses");
    assert_eq!(
        serde_json::from_slice::<Value>(&failed(CniVersion::V0_3_1, &failure)).unwrap(),
        json!({
            "cniVersion": "0.3.1",
            "code": 11,
            "msg": "pool-exhausted: 0 of 30 addresses are free \"now\"",
            "details": "add addresses",
        })
    );
}
