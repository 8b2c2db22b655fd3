//! The versions of the CNI specification the plugin speaks.

use serde::{Deserialize, Serialize};

/// A version of the CNI specification. Older ones than 0.3.0 have a result without interfaces, which cannot name a
/// pod's link, and are not served. In a message it is its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CniVersion {
    /// 0.3.0
    #[serde(rename = "0.3.0")]
    V0_3_0,
    /// 0.3.1
    #[serde(rename = "0.3.1")]
    V0_3_1,
    /// 0.4.0
    #[serde(rename = "0.4.0")]
    V0_4_0,
    /// 1.0.0
    #[serde(rename = "1.0.0")]
    V1_0_0,
    /// 1.1.0
    #[serde(rename = "1.1.0")]
    V1_1_0,
}

impl CniVersion {
    /// Every version served, oldest first.
    pub const SUPPORTED: [CniVersion; 5] =
        [CniVersion::V0_3_0, CniVersion::V0_3_1, CniVersion::V0_4_0, CniVersion::V1_0_0, CniVersion::V1_1_0];

    /// The newest version served, which an error carries when the configuration names none that is.
    pub const NEWEST: CniVersion = CniVersion::V1_1_0;

    /// The version a configuration without `cniVersion` has (SPEC.md 1.1.0, "Deriving execution configuration").
    pub const UNNAMED: &'static str = "0.2.0";

    /// As it is written in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            CniVersion::V0_3_0 => "0.3.0",
            CniVersion::V0_3_1 => "0.3.1",
            CniVersion::V0_4_0 => "0.4.0",
            CniVersion::V1_0_0 => "1.0.0",
            CniVersion::V1_1_0 => "1.1.0",
        }
    }

    /// The version of that name, if it is served.
    pub fn from_name(name: &str) -> Option<CniVersion> {
        CniVersion::SUPPORTED.into_iter().find(|version| version.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_version_s_name_and_no_other_is_read() {
        for version in CniVersion::SUPPORTED {
            let text = alloc::format!("\"{}\"", version.name());
            assert_eq!(serde_json::to_string(&version).unwrap(), text);
            assert_eq!(serde_json::from_str::<CniVersion>(&text).unwrap(), version);
        }
        assert!(serde_json::from_str::<CniVersion>("\"0.2.0\"").is_err());
    }

    #[test]
    fn every_version_is_found_by_its_name_and_the_newest_is_last() {
        for version in CniVersion::SUPPORTED {
            assert_eq!(CniVersion::from_name(version.name()), Some(version));
        }
        assert!(CniVersion::SUPPORTED.is_sorted());
        assert_eq!(CniVersion::SUPPORTED.last(), Some(&CniVersion::NEWEST));
        for name in ["", "1.1", "1.1.0 ", "v1.1.0", CniVersion::UNNAMED] {
            assert_eq!(CniVersion::from_name(name), None, "{name:?}");
        }
    }
}
