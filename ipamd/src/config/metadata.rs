//! Whether pods reach the metadata service.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::label::is_label;

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
        // What can be no namespace is a typing error that would keep somebody out.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

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
