use dotfour_protocol::Cause;
use serde_json::{Value, json};

use super::*;

const RESULT: &str = "{\"cniVersion\":\"1.1.0\",\"ips\":[],\"dns\":{}}\n";

fn with(dns: Option<&str>) -> String {
    String::from_utf8(with_dns(RESULT.into(), dns)).unwrap()
}

#[test]
fn a_result_without_dns_is_printed_as_it_is() {
    assert_eq!(with(None), RESULT);
}

#[test]
fn the_configuration_s_dns_takes_the_place_of_the_empty_one_as_it_is() {
    assert_eq!(with(Some("{}")), RESULT);
    let dns = r#"{ "nameservers": ["168.63.129.16"], "search": [], "more": "\u00e9{}}" }"#;
    assert_eq!(with(Some(dns)), format!("{{\"cniVersion\":\"1.1.0\",\"ips\":[],\"dns\":{dns}}}\n"));
    let long = format!(r#"{{"domain":"{}"}}"#, "x".repeat(1_000_000));
    assert_eq!(with(Some(&long)).len(), RESULT.len() + long.len() - 2);
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
