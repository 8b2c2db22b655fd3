//! Which destinations see a pod's own address.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

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
}
