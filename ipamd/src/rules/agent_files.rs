//! The ip-masq-agent's files: what they say, and how several become one. Pure; [`super::directory`] reads them.
//!
//! As ip-masq-agent v2 does: YAML or JSON, lists united, booleans or'd. Stricter where it was silent: a file that is not
//! understood is named and changes nothing. More generous where it had a limit: any number of CIDRs.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The names of files that count begin so.
pub const PREFIX: &str = "ip-masq";

/// What all files together say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSettings {
    /// Destinations that see the pod's own address.
    pub cidrs: BTreeSet<IpNet>,
    /// Whether IPv4 link-local destinations see the node's address.
    pub masq_link_local: bool,
    /// The same for IPv6.
    pub masq_link_local_v6: bool,
    /// The shortest interval that a file asks for.
    pub resync: Option<Duration>,
}

/// What became of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// The good files' settings; `None` where there is none.
    pub settings: Option<AgentSettings>,
    /// Files that are not understood, each with the reason.
    pub bad: Vec<String>,
    /// What is accepted and probably not meant.
    pub warnings: Vec<String>,
}

/// The keys as they are written. Those of v1 are known; others are warned of, as a newer agent may know them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(rename = "nonMasqueradeCIDRs")]
    cidrs: Option<Vec<String>>,
    masq_link_local: Option<bool>,
    #[serde(rename = "masqLinkLocalIPv6")]
    masq_link_local_v6: Option<bool>,
    resync_interval: Option<String>,
    /// v1's cap, which is not needed here.
    #[serde(rename = "cidrLimit")]
    _cidr_limit: Option<u64>,
    #[serde(flatten)]
    others: std::collections::BTreeMap<String, serde_json::Value>,
}

/// Reads and unites files, given with their names.
pub fn merge<'f>(files: impl IntoIterator<Item = (&'f str, &'f [u8])>) -> Merged {
    let mut merged = Merged::default();
    for (name, bytes) in files {
        match read(bytes) {
            Ok((one, mut warnings)) => {
                if one.cidrs.is_empty() {
                    warnings.push("exempts no destination; alone, it lets even the VNet see the node's address".into());
                }
                merged.warnings.extend(warnings.into_iter().map(|warning| format!("{name}: {warning}")));
                let settings = merged.settings.get_or_insert_default();
                settings.cidrs.extend(one.cidrs);
                settings.masq_link_local |= one.masq_link_local;
                settings.masq_link_local_v6 |= one.masq_link_local_v6;
                settings.resync = [settings.resync, one.resync].into_iter().flatten().min();
            }
            Err(reason) => merged.bad.push(format!("{name}: {reason}")),
        }
    }
    merged
}

fn read(bytes: &[u8]) -> Result<(AgentSettings, Vec<String>), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    // JSON first, where it may be: YAML does not take all of it (tabs).
    let json = text.trim_start().starts_with('{').then(|| serde_json::from_str::<Raw>(text).ok()).flatten();
    let raw = match json {
        Some(raw) => raw,
        None => serde_saphyr::from_str::<Option<Raw>>(text)
            .map_err(|e| e.without_snippet().to_string())?
            .unwrap_or_default(),
    };
    let cidrs = raw.cidrs.unwrap_or_default().iter().map(|text| aligned(text)).collect::<Result<_, _>>()?;
    let resync = raw.resync_interval.map(|text| interval(&text)).transpose()?;
    let warnings = raw.others.keys().map(|key| format!("the key {key} is unknown and ignored")).collect();
    let settings = AgentSettings {
        cidrs,
        masq_link_local: raw.masq_link_local.unwrap_or(false),
        masq_link_local_v6: raw.masq_link_local_v6.unwrap_or(false),
        resync,
    };
    Ok((settings, warnings))
}

/// A CIDR without host bits, as the agent asks for. A single address is no CIDR to the agent either.
pub fn aligned(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text.trim().parse().map_err(|_| format!("{text:?} is not a CIDR such as 10.0.0.0/8"))?;
    if net.trunc() == net { Ok(net) } else { Err(format!("{net} has host bits set; the network is {}", net.trunc())) }
}

/// Go writes `1m0s` where people write `1m`.
fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if !interval.is_zero() => Ok(interval),
        _ => Err(format!("resyncInterval: {text:?} is not a duration with its unit, such as 60s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(files: &[&str]) -> AgentSettings {
        let merged = merge(files.iter().map(|text| ("ip-masq-agent", text.as_bytes())));
        assert_eq!(merged.bad, [""; 0], "{files:?}");
        merged.settings.unwrap()
    }

    fn cidrs(settings: &AgentSettings) -> Vec<String> {
        settings.cidrs.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn yaml_and_json_say_the_same() {
        let yaml = "nonMasqueradeCIDRs:\n  - 10.0.0.0/8\n  - fd00::/8\nmasqLinkLocal: true\nresyncInterval: 60s\n";
        let json = "{\n\t\"nonMasqueradeCIDRs\": [\"10.0.0.0/8\", \"fd00::/8\"],\n\t\"masqLinkLocal\": true,\n\
                    \t\"resyncInterval\": \"1m0s\"\n}";
        let read = settings(&[yaml]);
        assert_eq!(read, settings(&[json]));
        assert_eq!(cidrs(&read), ["10.0.0.0/8", "fd00::/8"]);
        assert!(read.masq_link_local && !read.masq_link_local_v6);
        assert_eq!(read.resync, Some(Duration::from_secs(60)));
    }

    #[test]
    fn several_files_are_united_and_their_booleans_or_d() {
        let read = settings(&[
            "nonMasqueradeCIDRs: [10.0.0.0/8, 172.16.0.0/12]\nresyncInterval: 60s",
            "nonMasqueradeCIDRs: [10.0.0.0/8, 192.168.0.0/16]\nmasqLinkLocal: true\nresyncInterval: 5s",
            "masqLinkLocalIPv6: true\nmasqLinkLocal: false",
        ]);
        assert_eq!(cidrs(&read), ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]);
        assert!(read.masq_link_local && read.masq_link_local_v6);
        assert_eq!(read.resync, Some(Duration::from_secs(5)));
    }

    #[test]
    fn an_empty_file_exempts_nothing_and_is_warned_of_and_no_file_is_something_else() {
        for text in ["", "\n", "# nothing\n", "{}", "nonMasqueradeCIDRs: []", "nonMasqueradeCIDRs:"] {
            let merged = merge([("ip-masq-agent", text.as_bytes())]);
            assert_eq!(merged.settings, Some(AgentSettings::default()), "{text:?}");
            assert!(merged.warnings[0].contains("exempts no destination"), "{text:?}: {:?}", merged.warnings);
        }
        assert_eq!(merge([]), Merged::default());
    }

    #[test]
    fn a_bad_file_is_named_with_its_reason() {
        for (text, reason) in [
            ("nonMasqueradeCIDRs: [10.0.0.1/8]", "10.0.0.0/8"),
            ("nonMasqueradeCIDRs: [fd00::1/8]", "fd00::/8"),
            ("nonMasqueradeCIDRs: [ten]", "ten"),
            ("nonMasqueradeCIDRs: [10.0.0.4]", "CIDR"),
            ("nonMasqueradeCIDRs: [10.0.0.0/33]", "CIDR"),
            ("nonMasqueradeCIDRs: 10.0.0.0/8", "sequence"),
            ("masqLinkLocal: perhaps", "bool"),
            ("resyncInterval: often", "resyncInterval"),
            ("resyncInterval: 0s", "resyncInterval"),
            ("{\"nonMasqueradeCIDRs\": [", ""),
            ("- 1", ""),
        ] {
            let merged = merge([("ip-masq-x", text.as_bytes())]);
            let [bad] = &merged.bad[..] else { panic!("{text:?} is read as {merged:?}") };
            assert!(bad.starts_with("ip-masq-x: ") && bad.contains(reason), "{text:?}: {bad}");
        }
        assert_eq!(merge([("ip-masq-x", &[0xff, 0xfe][..])]).bad, ["ip-masq-x: is not UTF-8 text"]);
    }

    #[test]
    fn an_unknown_key_is_warned_of_and_keys_of_the_first_version_are_known() {
        let merged =
            merge([("ip-masq-agent", &b"nonMasqueradeCIDRs: [10.0.0.0/8]\nnonMasqCIDRs: []\ncidrLimit: 64"[..])]);
        assert_eq!(merged.warnings, ["ip-masq-agent: the key nonMasqCIDRs is unknown and ignored"]);
    }

    #[test]
    fn ten_thousand_cidrs_are_read() {
        let list: Vec<String> = (0..10_000).map(|n| format!("- 11.{}.{}.0/24\n", n / 256, n % 256)).collect();
        let text = format!("nonMasqueradeCIDRs:\n{}", list.concat());
        assert_eq!(settings(&[&text]).cidrs.len(), 10_000);
    }
}
