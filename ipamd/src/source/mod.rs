//! Where the pool's addresses come from.
//!
//! A source reports what the NICs of this machine carry, and changes nothing. Its report is complete or an error: no
//! source answers with half a list, because a list that lacks an address takes it from the pool.

mod interfaces;
pub mod static_list;
pub mod wireserver;

use std::net::IpAddr;

use dotfour_datapath::Mac;
use ipnet::IpNet;

use crate::config::{Config, Source as SourceConfig};
use static_list::StaticList;
use wireserver::Wireserver;

/// A NIC as a source reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicView {
    /// The NIC's MAC; `None` where the source means whichever NIC the node has.
    pub mac: Option<Mac>,
    /// Whether it is the VM's primary NIC.
    pub is_primary: bool,
    /// Its subnets.
    pub subnets: Vec<SubnetView>,
}

/// A NIC's addresses in one subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetView {
    /// The subnet.
    pub prefix: IpNet,
    /// The node's own addresses.
    pub primaries: Vec<IpAddr>,
    /// The others, which may become pods'.
    pub secondaries: Vec<IpAddr>,
}

/// Why a source could not report.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The source did not answer, or not in HTTP.
    #[error("{url} cannot be read: {reason}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The source answered that it cannot answer.
    #[error("{url} answered HTTP {status}")]
    Status {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
    },
    /// A file cannot be read.
    #[error("{path} cannot be read")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The answer is not a whole interface document.
    #[error("the document of {origin} is not usable: {reason}")]
    Document {
        /// Where it came from.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The configured source. An enum and not a trait: there are few kinds, all known, and a caller waits for one at a time.
#[derive(Debug)]
pub enum AddressSource {
    /// Azure's wireserver.
    Wireserver(Wireserver),
    /// A list or a file that an operator wrote.
    Static(StaticList),
}

impl AddressSource {
    /// The source that the configuration asks for.
    pub fn new(config: &Config) -> Self {
        match &config.source {
            SourceConfig::Wireserver(source) => AddressSource::Wireserver(Wireserver::new(source)),
            SourceConfig::Static(source) => AddressSource::Static(StaticList::new(source)),
        }
    }

    /// What the NICs carry now. Cancel safe: a report that is given up changes nothing.
    pub async fn report(&self) -> Result<Vec<NicView>, SourceError> {
        match self {
            AddressSource::Wireserver(source) => source.report().await,
            AddressSource::Static(source) => source.report(),
        }
    }

    /// The source's name in the configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            AddressSource::Wireserver(_) => "wireserver",
            AddressSource::Static(_) => "static",
        }
    }
}
