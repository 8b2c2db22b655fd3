//! What the configuration accepts, and the sentence for each thing it does not.

use super::*;

const MINIMAL: &str = "source:\n  kind: wireserver\n";

fn refusal(text: &str) -> String {
    Config::parse(text).unwrap_err()
}

#[test]
fn a_source_is_enough_and_the_rest_has_defaults() {
    let config = Config::parse(MINIMAL).unwrap();
    assert_eq!(config.socket, Path::new("/run/dotfour/ipamd.sock"));
    assert_eq!(config.state_dir, Path::new("/run/dotfour"));
    assert_eq!(config.rest, Rest { cooldown: Duration::from_secs(30), floor: Duration::from_secs(5) });
    assert_eq!(config.spool_dir, Path::new("/run/dotfour/spool"));
    assert_eq!(config.max_pods, 30);
    assert_eq!(config.slow_add, Duration::from_millis(100));
    let short = Config::parse("cooldown: 1s\nsource: {kind: wireserver}").unwrap();
    assert_eq!(short.rest.floor, Duration::from_secs(1), "the floor follows a short cool-down");
    let Source::Wireserver(source) = config.source else { panic!("not the wireserver") };
    assert_eq!((source.host.as_str(), source.port), ("168.63.129.16", 80));
}

#[test]
fn the_documented_example_is_accepted() {
    let text = "
mode: azure
nic: eth0
socket: /run/dotfour/ipamd.sock
stateDir: /run/dotfour
cooldown: 30s
maxPods: 30
source:
  kind: static
  subnet: 10.240.0.0/16
  addresses: [10.240.4.4-10.240.11.250]
masquerade:
  vnetCidrs: [10.240.0.0/16]
  clusterCidrs: []
  configDir: /etc/config
metadata: allow
metrics: unix:/run/dotfour/metrics.sock
";
    let config = Config::parse(text).unwrap();
    assert_eq!(config.masquerade.config_dir.as_deref(), Some(Path::new("/etc/config")));
    assert_eq!(config.masquerade.vnet_cidrs, ["10.240.0.0/16".parse().unwrap()]);
    let Source::Static(StaticSource::List { addresses, .. }) = config.source else { panic!("not a list") };
    assert_eq!(addresses[0].iter().next().unwrap().to_string(), "10.240.4.4");
    assert_eq!(addresses[0].iter().last().unwrap().to_string(), "10.240.11.250");
}

#[test]
fn an_mtu_is_the_nic_s_unless_one_is_given_that_ipv6_works_with() {
    assert_eq!(Config::parse(MINIMAL).unwrap().mtu, None);
    assert_eq!(Config::parse(&format!("mtu: 1400\n{MINIMAL}")).unwrap().mtu, Some(1400));
    let reason = refusal(&format!("mtu: 1279\n{MINIMAL}"));
    assert!(reason.contains("mtu") && reason.contains("1280"), "{reason}");
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_name() {
    let reason = refusal("maxpods: 30\nsource:\n  kind: wireserver\n");
    assert!(reason.contains("maxpods") && reason.contains("did you mean `maxPods`?"), "{reason}");
    let reason = refusal("source:\n  kind: wireserver\n  urll: http://1.2.3.4\n");
    assert!(reason.contains("did you mean `url`?"), "{reason}");
    let reason = refusal("source:\n  kind: wireservr\n");
    assert!(reason.contains("did you mean `wireserver`?"), "{reason}");
}

#[test]
fn each_bad_value_is_refused_with_its_key() {
    for (text, named) in [
        ("", "end of input"),
        ("mode: azure", "source"),
        ("- 1", "mapping"),
        ("source: {kind: static}", "file"),
        ("source: {kind: static, subnet: 10.0.0.0/8}", "addresses"),
        ("source: {kind: static, subnet: 10.0.0.1/8, addresses: [10.0.0.4]}", "10.0.0.0/8"),
        ("source: {kind: static, subnet: 10.0.0.0/24, addresses: [10.0.1.4]}", "10.0.1.4"),
        ("source: {kind: static, subnet: 10.0.0.0/24, addresses: [10.0.0.9-10.0.0.4]}", "before it begins"),
        ("source: {kind: static, subnet: 10.0.0.0/8, addresses: [10.0.0.4-10.255.0.0]}", "65536"),
        ("source: {kind: static, subnet: 10.0.0.0/24, addresses: [ten]}", "ten"),
        ("source: {kind: static, file: interfaces.json}", "absolute"),
        ("source: {kind: static, file: /i.json, url: http://1.2.3.4}", "url"),
        ("source: {kind: wireserver, url: https://1.2.3.4}", "http://HOST"),
        ("source: {kind: wireserver, url: http://1.2.3.4/path}", "http://HOST"),
        ("source: {kind: wireserver, timeout: 10}", "timeout"),
        ("source: {kind: imds}", "imds"),
        ("mode: kubenet\nsource: {kind: wireserver}", "kubenet"),
        ("cooldown: 30\nsource: {kind: wireserver}", "cooldown"),
        ("cooldown: 2s\ncooldownFloor: 3s\nsource: {kind: wireserver}", "cooldownFloor"),
        ("slowAdd: 100\nsource: {kind: wireserver}", "slowAdd"),
        ("spoolDir: spool\nsource: {kind: wireserver}", "spoolDir"),
        ("maxPods: 256\nsource: {kind: wireserver}", "maxPods"),
        ("maxPods: 0\nsource: {kind: wireserver}", "maxPods"),
        ("socket: ipamd.sock\nsource: {kind: wireserver}", "socket"),
    ] {
        let reason = refusal(text);
        assert!(reason.contains(named), "{text:?} was refused with {reason:?}");
    }
}

#[test]
fn an_absent_file_is_named() {
    let e = Config::load(Path::new("/nonexistent/ipamd.yaml")).unwrap_err();
    assert!(e.to_string().contains("/nonexistent/ipamd.yaml"));
}
