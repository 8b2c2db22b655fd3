//! The ip-masq-agent's files: what they say, and how several become one. Pure; [`super::directory`] reads them.
//!
//! As ip-masq-agent v2 does: YAML or JSON, keys in any case, lists united, booleans or'd. Stricter where it was silent: a file
//! that is not understood is named and changes nothing. More generous where it had a limit: any number of CIDRs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

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

const CIDRS: &str = "nonMasqueradeCIDRs";
const LINK_LOCAL: &str = "masqLinkLocal";
const LINK_LOCAL_V6: &str = "masqLinkLocalIPv6";
/// Of v1, as the next one. v2 does not read it, so a bad value must not cost the file.
const RESYNC: &str = "resyncInterval";
/// v1's cap, which is not needed here.
const LIMIT: &str = "cidrLimit";

/// What stands at the keys. Those of v1 are known; others are warned of, as a newer agent may know them.
#[derive(Debug, Default)]
struct Raw {
    cidrs: Spelled<Vec<String>>,
    masq_link_local: Spelled<bool>,
    masq_link_local_v6: Spelled<bool>,
    resync: Spelled<Value>,
    limit: Spelled<Value>,
    others: BTreeSet<String>,
}

/// The values of one key, by how it is spelled. `None` where nothing or null stands there.
#[derive(Debug)]
struct Spelled<T>(BTreeMap<String, Option<T>>);

impl<T> Default for Spelled<T> {
    fn default() -> Self {
        Spelled(BTreeMap::new())
    }
}

impl<T> Spelled<T> {
    /// The value that counts, with a warning of each other: the exact spelling's, or else the one that the agent reads last,
    /// which has them in the order of their bytes.
    fn chosen(mut self, key: &str, warnings: &mut Vec<String>) -> Option<T> {
        let (spelling, value) = self.0.remove_entry(key).or_else(|| self.0.pop_last())?;
        let ignored = |other: &String| format!("the key {other} is ignored, for {spelling} is there too");
        warnings.extend(self.0.keys().map(ignored));
        value
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Keys)
    }
}

/// Matches keys without regard to case, as Go's `encoding/json` does for the agent.
struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keys with values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut raw = Raw::default();
        while let Some(key) = map.next_key::<String>()? {
            let is = |known: &str| key.eq_ignore_ascii_case(known);
            let is_new = if is(CIDRS) {
                raw.cidrs.0.insert(key.clone(), map.next_value()?).is_none()
            } else if is(LINK_LOCAL) {
                raw.masq_link_local.0.insert(key.clone(), map.next_value()?).is_none()
            } else if is(LINK_LOCAL_V6) {
                raw.masq_link_local_v6.0.insert(key.clone(), map.next_value()?).is_none()
            } else if is(RESYNC) {
                raw.resync.0.insert(key.clone(), map.next_value()?).is_none()
            } else if is(LIMIT) {
                raw.limit.0.insert(key.clone(), map.next_value()?).is_none()
            } else {
                map.next_value::<IgnoredAny>()?;
                raw.others.insert(key.clone())
            };
            if !is_new {
                return Err(A::Error::custom(format_args!("the key {key} is there twice")));
            }
        }
        Ok(raw)
    }
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
    let mut warnings: Vec<String> =
        raw.others.iter().map(|key| format!("the key {key} is unknown and ignored")).collect();
    let cidrs = raw.cidrs.chosen(CIDRS, &mut warnings).unwrap_or_default();
    let settings = AgentSettings {
        cidrs: cidrs.iter().map(|text| aligned(text)).collect::<Result<_, _>>()?,
        masq_link_local: raw.masq_link_local.chosen(LINK_LOCAL, &mut warnings).unwrap_or(false),
        masq_link_local_v6: raw.masq_link_local_v6.chosen(LINK_LOCAL_V6, &mut warnings).unwrap_or(false),
        resync: raw.resync.chosen(RESYNC, &mut warnings).and_then(|value| {
            let read = interval(&value);
            if read.is_none() {
                warnings
                    .push(format!("{RESYNC}: {value} is not a duration with its unit, such as 60s, and is ignored"));
            }
            read
        }),
    };
    if let Some(value) = raw.limit.chosen(LIMIT, &mut warnings).filter(|value| !value.is_u64()) {
        warnings.push(format!("{LIMIT}: {value} is not a number; there is no limit here, whatever it says"));
    }
    Ok((settings, warnings))
}

/// A CIDR without host bits, as the agent asks for. A single address is no CIDR to the agent either.
pub fn aligned(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text.trim().parse().map_err(|_| format!("{text:?} is not a CIDR such as 10.0.0.0/8"))?;
    if net.trunc() == net { Ok(net) } else { Err(format!("{net} has host bits set; the network is {}", net.trunc())) }
}

/// Go writes `1m0s` where people write `1m`.
fn interval(value: &Value) -> Option<Duration> {
    humantime::parse_duration(value.as_str()?).ok().filter(|interval| !interval.is_zero())
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
            ("MASQLINKLOCAL: perhaps", "bool"),
            ("masqLinkLocal: true\nmasqLinkLocal: false", ""),
            ("{\"masqLinkLocal\": true, \"masqLinkLocal\": false}", ""),
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
    fn a_key_counts_in_any_case_and_of_several_spellings_the_exact_one() {
        for text in [
            "nonmasqueradecidrs: [10.0.0.0/8]\nMasqLinkLocal: true\nmasqlinklocalipv6: true\nresyncinterval: 5s\nCIDRLimit: 9",
            "{\"NonMasqueradeCIDRs\": [\"10.0.0.0/8\"], \"MASQLINKLOCAL\": true, \"masqLinkLocalIpv6\": true, \
             \"ResyncInterval\": \"5s\", \"cidrlimit\": 9}",
        ] {
            let merged = merge([("ip-masq-agent", text.as_bytes())]);
            assert_eq!((&merged.warnings, &merged.bad), (&vec![], &vec![]), "{text}");
            let read = merged.settings.unwrap();
            assert_eq!(cidrs(&read), ["10.0.0.0/8"], "{text}");
            assert!(read.masq_link_local && read.masq_link_local_v6, "{text}");
            assert_eq!(read.resync, Some(Duration::from_secs(5)), "{text}");
        }
        for (keys, counts, ignored) in [
            (["nonMasqueradeCIDRs", "nonmasqueradecidrs"], "nonMasqueradeCIDRs", "nonmasqueradecidrs"),
            (["NONMASQUERADECIDRS", "nonMasqueradeCIDRs"], "nonMasqueradeCIDRs", "NONMASQUERADECIDRS"),
            (["nonmasqueradecidrs", "NonMasqueradeCIDRs"], "nonmasqueradecidrs", "NonMasqueradeCIDRs"),
        ] {
            let line = |key: &str| format!("{key}: [{}]\n", if key == counts { "10.0.0.0/8" } else { "11.0.0.0/8" });
            let merged = merge([("ip-masq-agent", keys.map(line).concat().as_bytes())]);
            let warning = format!("ip-masq-agent: the key {ignored} is ignored, for {counts} is there too");
            assert_eq!(merged.warnings, [warning], "{keys:?}");
            assert_eq!(cidrs(&merged.settings.unwrap()), ["10.0.0.0/8"], "{keys:?}");
        }
    }

    #[test]
    fn a_bad_value_at_a_key_that_the_newer_agent_does_not_read_costs_that_key_alone() {
        for (line, warning) in [
            ("resyncInterval: often", "resyncInterval: \"often\" is not a duration"),
            ("resyncInterval: 0s", "resyncInterval: \"0s\" is not a duration"),
            ("resyncInterval: 60", "resyncInterval: 60 is not a duration"),
            ("resyncInterval: [60s]", "resyncInterval: [\"60s\"] is not a duration"),
            ("cidrLimit: many", "cidrLimit: \"many\" is not a number"),
            ("cidrLimit: -1", "cidrLimit: -1 is not a number"),
        ] {
            let merged = merge([("ip-masq-x", format!("{line}\nnonMasqueradeCIDRs: [10.0.0.0/8]").as_bytes())]);
            assert_eq!(merged.bad, [""; 0], "{line}");
            let [only] = &merged.warnings[..] else { panic!("{line}: {:?}", merged.warnings) };
            assert!(only.starts_with("ip-masq-x: ") && only.contains(warning), "{line}: {only}");
            let read = merged.settings.unwrap();
            assert_eq!((cidrs(&read), read.resync), (vec!["10.0.0.0/8".to_owned()], None), "{line}");
        }
    }

    #[test]
    fn ten_thousand_cidrs_are_read() {
        let list: Vec<String> = (0..10_000).map(|n| format!("- 11.{}.{}.0/24\n", n / 256, n % 256)).collect();
        let text = format!("nonMasqueradeCIDRs:\n{}", list.concat());
        assert_eq!(settings(&[&text]).cidrs.len(), 10_000);
    }
}
