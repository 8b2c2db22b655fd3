//! Addresses that an operator wrote down: in the configuration, or in Azure Stack's `interfaces.json`.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

use super::interfaces::{self, RawInterface, RawSubnet};
use super::{NicView, SourceError, SubnetView};
use crate::config::StaticSource;

/// A source that asks nobody. The file is read again for every report, so an edit is noticed at the next refresh.
#[derive(Debug)]
pub enum StaticList {
    /// Listed in the configuration, by subnet.
    Inline(Vec<SubnetView>),
    /// Listed in a file.
    File(PathBuf),
}

impl StaticList {
    /// The source for a checked configuration.
    pub fn new(config: &StaticSource) -> Self {
        match config {
            StaticSource::List { subnets, addresses } => {
                let subnet = |prefix: &IpNet| SubnetView {
                    prefix: *prefix,
                    primaries: Vec::new(),
                    secondaries: addresses
                        .iter()
                        .filter(|range| prefix.contains(&range.first()))
                        .flat_map(|range| range.iter())
                        .collect(),
                };
                StaticList::Inline(subnets.iter().map(subnet).collect())
            }
            StaticSource::File(path) => StaticList::File(path.clone()),
        }
    }

    pub(super) fn report(&self) -> Result<Vec<NicView>, SourceError> {
        match self {
            StaticList::Inline(subnets) => Ok(vec![NicView { mac: None, is_primary: true, subnets: subnets.clone() }]),
            StaticList::File(path) => {
                let origin = path.display().to_string();
                let text = std::fs::read(path).map_err(|source| SourceError::File { path: origin.clone(), source })?;
                parse(&text).map_err(|reason| SourceError::Document { origin, reason })
            }
        }
    }
}

/// Azure Stack Hub's document (`/etc/kubernetes/interfaces.json`), with the wireserver's members in JSON.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    interfaces: Vec<Interface>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Interface {
    mac_address: String,
    #[serde(default)]
    is_primary: bool,
    #[serde(rename = "IPSubnets")]
    subnets: Vec<Subnet>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Subnet {
    prefix: String,
    #[serde(rename = "IPAddresses")]
    addresses: Vec<Address>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Address {
    address: String,
    #[serde(default)]
    is_primary: bool,
}

fn parse(text: &[u8]) -> Result<Vec<NicView>, String> {
    let document: Document = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let raw = document
        .interfaces
        .iter()
        .map(|interface| RawInterface {
            mac: &interface.mac_address,
            is_primary: interface.is_primary,
            subnets: interface
                .subnets
                .iter()
                .map(|subnet| RawSubnet {
                    prefix: &subnet.prefix,
                    addresses: subnet.addresses.iter().map(|a| (a.address.as_str(), a.is_primary)).collect(),
                })
                .collect(),
        })
        .collect();
    interfaces::read(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"Interfaces":[{"MacAddress":"002248263DBD","IsPrimary":true,"IPSubnets":[
        {"Prefix":"10.240.0.0/16","IPAddresses":[{"Address":"10.240.0.4","IsPrimary":true},
        {"Address":"10.240.0.5","IsPrimary":false}]}]}]}"#;

    #[test]
    fn azure_stack_s_file_is_read() {
        let nics = parse(DOCUMENT.as_bytes()).unwrap();
        assert_eq!(nics[0].mac, Some("00:22:48:26:3d:bd".parse().unwrap()));
        assert_eq!(nics[0].subnets[0].secondaries, ["10.240.0.5".parse::<std::net::IpAddr>().unwrap()]);
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        for end in 0..DOCUMENT.len() {
            assert!(parse(&DOCUMENT.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn an_absent_file_is_named() {
        let source = StaticList::File("/nonexistent/interfaces.json".into());
        assert!(source.report().unwrap_err().to_string().contains("/nonexistent/interfaces.json"));
    }
}
