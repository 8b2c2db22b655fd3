//! Which destinations see a pod's own address, and whether pods reach the metadata service.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::raw::{OneOrMany, absolute};
use crate::rules::agent_files::aligned;

/// The key `masquerade`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Masquerade {
    /// The VNet's networks, which route pods' own addresses in azure mode.
    pub vnet_cidrs: Vec<IpNet>,
    /// The networks of the cluster's pods.
    pub cluster_cidrs: Vec<IpNet>,
    /// The directory of the ip-masq-agent's files.
    pub config_dir: Option<PathBuf>,
}

/// The key `metadata`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metadata {
    /// Pods reach the instance metadata service.
    #[default]
    Allow,
    /// Pods that are not on the host's network do not.
    Block,
}

/// The key `metadata` as it is written: a word, or a block with the word as `access`.
#[derive(Debug, Default)]
pub(super) struct RawMetadata(MetadataBlock);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MetadataBlock {
    access: Metadata,
    #[serde(default)]
    exempt_namespaces: Vec<String>,
}

impl RawMetadata {
    /// What pods may, and the Kubernetes namespaces whose pods may all the same.
    pub(super) fn check(self) -> Result<(Metadata, BTreeSet<String>), String> {
        let MetadataBlock { access, exempt_namespaces } = self.0;
        if access == Metadata::Allow && !exempt_namespaces.is_empty() {
            return Err("metadata.exemptNamespaces has no meaning with access allow; nobody is kept out".into());
        }
        // What can be no namespace is a typing error that would keep somebody out (RFC 1123's labels).
        let is_label = |name: &String| {
            let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            (1..=63).contains(&name.len())
                && name.chars().all(|c| inner(c) || c == '-')
                && name.starts_with(inner)
                && name.ends_with(inner)
        };
        match exempt_namespaces.iter().find(|name| !is_label(name)) {
            Some(name) => Err(format!("metadata.exemptNamespaces: {name:?} is not the name of a namespace")),
            None => Ok((access, exempt_namespaces.into_iter().collect())),
        }
    }
}

impl<'de> Deserialize<'de> for RawMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrBlock;

        // By hand, because an untagged enum's errors do not say which word was wrong.
        impl<'de> Visitor<'de> for WordOrBlock {
            type Value = MetadataBlock;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`allow`, `block`, or a block with `access` and `exemptNamespaces`")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<MetadataBlock, E> {
                let access = Metadata::deserialize(StrDeserializer::new(word))?;
                Ok(MetadataBlock { access, exempt_namespaces: Vec::new() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MetadataBlock, A::Error> {
                MetadataBlock::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_any(WordOrBlock).map(RawMetadata)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawMasquerade {
    #[serde(alias = "vnetCidr")]
    vnet_cidrs: Option<OneOrMany>,
    cluster_cidrs: Option<OneOrMany>,
    config_dir: Option<PathBuf>,
}

impl RawMasquerade {
    pub(super) fn check(self) -> Result<Masquerade, String> {
        Ok(Masquerade {
            vnet_cidrs: cidrs("masquerade.vnetCidrs", self.vnet_cidrs)?,
            cluster_cidrs: cidrs("masquerade.clusterCidrs", self.cluster_cidrs)?,
            config_dir: self.config_dir.map(|path| absolute("masquerade.configDir", path)).transpose()?,
        })
    }
}

fn cidrs(key: &str, given: Option<OneOrMany>) -> Result<Vec<IpNet>, String> {
    let texts = given.map(OneOrMany::texts).unwrap_or_default();
    texts.iter().map(|text| aligned(text).map_err(|reason| format!("{key}: {reason}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn masquerade(block: &str) -> Result<Masquerade, String> {
        Config::parse(&format!("masquerade: {block}\nsource: {{kind: wireserver}}\n")).map(|config| config.masquerade)
    }

    fn texts(nets: &[IpNet]) -> Vec<String> {
        nets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_cidr_or_many_under_either_name() {
        for block in ["{vnetCidr: 10.240.0.0/16}", "{vnetCidrs: [10.240.0.0/16]}", "{vnetCidr: [10.240.0.0/16]}"] {
            assert_eq!(texts(&masquerade(block).unwrap().vnet_cidrs), ["10.240.0.0/16"], "{block}");
        }
        let both =
            masquerade("{vnetCidrs: [10.1.0.0/16, fd00::/48], clusterCidrs: [10.244.0.0/16], configDir: /etc/c}");
        let both = both.unwrap();
        assert_eq!(texts(&both.vnet_cidrs), ["10.1.0.0/16", "fd00::/48"]);
        assert_eq!(texts(&both.cluster_cidrs), ["10.244.0.0/16"]);
        assert_eq!(both.config_dir, Some("/etc/c".into()));
        assert_eq!(Config::parse("source: {kind: wireserver}").unwrap().masquerade, Masquerade::default());
    }

    #[test]
    fn what_is_no_network_or_no_key_is_refused() {
        for (block, named) in [
            ("{vnetCidrs: [10.240.0.1/16]}", "10.240.0.0/16"),
            ("{clusterCidrs: [ten]}", "masquerade.clusterCidrs"),
            ("{vnetCidrs: 7}", "CIDR"),
            ("{vnetCidr: 10.0.0.0/8, vnetCidrs: [10.0.0.0/8]}", "duplicate"),
            ("{configDir: etc}", "absolute"),
            ("{vnetCdirs: []}", "vnetCidrs"),
        ] {
            let reason = masquerade(block).unwrap_err();
            assert!(reason.contains(named), "{block} was refused with {reason:?}");
        }
    }

    #[test]
    fn metadata_is_allowed_unless_blocked() {
        let metadata =
            |line: &str| Config::parse(&format!("{line}\nsource: {{kind: wireserver}}\n")).map(|c| c.metadata);
        assert_eq!(metadata(""), Ok(Metadata::Allow));
        assert_eq!(metadata("metadata: allow"), Ok(Metadata::Allow));
        assert_eq!(metadata("metadata: block"), Ok(Metadata::Block));
        assert!(metadata("metadata: blok").unwrap_err().contains("did you mean `block`?"));
    }

    #[test]
    fn namespaces_are_exempt_from_the_block_and_from_nothing_else() {
        let parsed = |value: &str| Config::parse(&format!("metadata: {value}\nsource: {{kind: wireserver}}\n"));
        let config = parsed("{access: block, exemptNamespaces: [kube-system, azure-workload]}").unwrap();
        assert_eq!(config.metadata, Metadata::Block);
        assert!(config.metadata_exempt.iter().eq(["azure-workload", "kube-system"]));
        let config = parsed("{access: allow}").unwrap();
        assert_eq!((config.metadata, config.metadata_exempt.len()), (Metadata::Allow, 0));
        assert_eq!(parsed("block").unwrap().metadata_exempt.len(), 0);
        for (value, named) in [
            ("{access: allow, exemptNamespaces: [kube-system]}", "no meaning"),
            ("{exemptNamespaces: [kube-system]}", "access"),
            ("{access: blok}", "did you mean `block`?"),
            ("{access: block, exemptNamespace: []}", "did you mean `exemptNamespaces`?"),
            ("{access: block, exemptNamespaces: [Kube_System]}", "Kube_System"),
            ("{access: block, exemptNamespaces: ['']}", "not the name"),
            ("[block]", "`allow`, `block`"),
        ] {
            let reason = parsed(value).unwrap_err();
            assert!(reason.contains(named), "{value} was refused with {reason:?}");
        }
    }
}
