//! The daemon's configuration: one YAML file, every key documented in `docs/configuration.md`, unknown keys refused.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::pool::{Families, Rest};

mod cni;
mod label;
mod masquerade;
mod metadata;
mod metrics;
mod range;
mod raw;
mod taint;

pub use cni::{Cni, DEFAULT_BIN_DIR, DEFAULT_CONF_DIR};
pub use masquerade::Masquerade;
pub use metadata::Metadata;
pub use metrics::MetricsTarget;
pub use range::AddressRange;
use raw::{Raw, one_line};

/// Where the configuration is unless somebody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/dotfour/ipamd.yaml";

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Name of the NIC that carries the pods' addresses; found by MAC or by the default route where absent.
    pub nic: Option<String>,
    /// MTU of pods' links in bytes; the NIC's where absent.
    pub mtu: Option<u32>,
    /// The networks (CNI `name`) that are served; all where empty.
    pub networks: Vec<String>,
    /// Path of the daemon's socket.
    pub socket: PathBuf,
    /// Directory of the daemon's state.
    pub state_dir: PathBuf,
    /// How long a released address rests.
    pub rest: Rest,
    /// Where plugins leave DELs that found no daemon.
    pub spool_dir: PathBuf,
    /// Whether pool addresses that somebody put on the NIC are removed from it.
    pub reclaim_nic_addresses: bool,
    /// How many pods the node may run.
    pub max_pods: u16,
    /// The families that every pod gets an address of; those that the source offers at the start where absent.
    pub ip_families: Option<Families>,
    /// Where addresses come from.
    pub source: Source,
    /// How long to wait between two looks at the source.
    pub refresh: Duration,
    /// Which destinations see a pod's own address.
    pub masquerade: Masquerade,
    /// Whether pods reach the metadata service.
    pub metadata: Metadata,
    /// The Kubernetes namespaces whose pods reach it all the same.
    pub metadata_exempt: BTreeSet<String>,
    /// Where metrics are served.
    pub metrics: MetricsTarget,
    /// From how long on an ADD is reported as slow.
    pub slow_add: Duration,
    /// Where the container runtime looks for plugins and network configurations.
    pub cni: Cni,
    /// The key of the taint that is removed from the node once pods can be wired; none if absent.
    pub startup_taint: Option<String>,
}

/// The address source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `kind: wireserver`.
    Wireserver(WireserverSource),
    /// `kind: static`.
    Static(StaticSource),
}

/// `kind: wireserver`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireserverSource {
    /// Host of `url`.
    pub host: String,
    /// Port of `url`.
    pub port: u16,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// `kind: static`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StaticSource {
    /// `subnet` and `addresses`.
    List {
        /// The subnets: at least one, and none inside another.
        subnets: Vec<IpNet>,
        /// The addresses that the NIC carries, each in one of the subnets.
        addresses: Vec<AddressRange>,
    },
    /// `file`.
    File(PathBuf),
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot be read")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not the YAML that was expected.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// What and where.
        reason: String,
    },
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: name.clone(), source })?;
        Config::parse(&text).map_err(|reason| ConfigError::Malformed { path: name, reason })
    }

    /// What counts where there is no file, for programs that only want to know the places: every key has its default, and
    /// the source is the usual one.
    pub fn without_file() -> Result<Self, String> {
        Config::parse("source: {kind: wireserver}")
    }

    /// Checks a configuration's text. The error is one sentence with the key in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let raw: Raw = serde_saphyr::from_str(text).map_err(|e| one_line(&e))?;
        raw.check()
    }
}

#[cfg(test)]
mod tests;
