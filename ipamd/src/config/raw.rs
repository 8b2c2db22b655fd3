//! The configuration as it is written, and what it takes to be believed. Every default is here, with its reason.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use ipnet::IpNet;
use serde::Deserialize;

use super::cni::RawCni;
use super::masquerade::RawMasquerade;
use super::metadata::RawMetadata;
use super::{AddressRange, Config, MetricsTarget, Source, StaticSource, WireserverSource, taint};
use crate::pool::{Families, Rest};

/// The default place of the daemon's state. It is a tmpfs, so that it dies with a reboot as pods do.
const DEFAULT_STATE_DIR: &str = "/run/dotfour";
/// How long caches in the network, and connections of the pod before, get to forget an address.
const DEFAULT_COOLDOWN: Duration = Duration::from_secs(30);
/// What is enough when every address is resting: the pool must not be a dead end.
const DEFAULT_COOLDOWN_FLOOR: Duration = Duration::from_secs(5);
/// AKS's default for Azure CNI.
const DEFAULT_MAX_PODS: u16 = 30;
/// The most addresses Azure gives a NIC, less the node's own.
const MOST_PODS: u16 = 255;
/// What a link must carry for IPv6 (RFC 8200, section 5); below it, the kernel takes IPv6 off the link.
const LEAST_MTU: u32 = 1280;
/// Azure's wireserver, the same in every region and cloud.
const DEFAULT_WIRESERVER: &str = "http://168.63.129.16";
/// azure-vnet-ipam's own limit for an answer.
const DEFAULT_SOURCE_TIMEOUT: Duration = Duration::from_secs(10);
/// azure-vnet-ipam's own shortest time between two questions.
const DEFAULT_SOURCE_REFRESH: Duration = Duration::from_secs(10);
/// Some hundred times what an ADD takes on an idle node, and still nothing that a person would notice.
const DEFAULT_SLOW_ADD: Duration = Duration::from_millis(100);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Raw {
    mode: Option<Mode>,
    nic: Option<String>,
    mtu: Option<u32>,
    networks: Option<Vec<String>>,
    socket: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    spool_dir: Option<PathBuf>,
    cooldown: Option<String>,
    cooldown_floor: Option<String>,
    reclaim_nic_addresses: Option<bool>,
    max_pods: Option<u16>,
    ip_families: Option<Vec<IpFamily>>,
    source: RawSource,
    masquerade: Option<RawMasquerade>,
    metadata: Option<RawMetadata>,
    metrics: Option<String>,
    slow_add: Option<String>,
    cni_bin_dir: Option<PathBuf>,
    cni_conf_dir: Option<PathBuf>,
    cni_conflist: Option<String>,
    cni_network: Option<String>,
    runtime: Option<String>,
    startup_taint: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Azure,
    Kubenet,
}

/// As Kubernetes writes them (`ipFamilies` of a Service).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum IpFamily {
    IPv4,
    IPv6,
}

/// A list, or one without its brackets.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a CIDR or a list of them")]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn texts(self) -> Vec<String> {
        match self {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSource {
    kind: Kind,
    url: Option<String>,
    timeout: Option<String>,
    refresh: Option<String>,
    #[serde(alias = "subnets")]
    subnet: Option<OneOrMany>,
    addresses: Option<Vec<String>>,
    file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Static,
    Wireserver,
    Imds,
    Arm,
    PodCidr,
}

impl Raw {
    pub(super) fn check(self) -> Result<Config, String> {
        if matches!(self.mode, Some(Mode::Kubenet)) {
            return Err("mode: kubenet is not in this version; use azure".into());
        }
        let max_pods = self.max_pods.unwrap_or(DEFAULT_MAX_PODS);
        if !(1..=MOST_PODS).contains(&max_pods) {
            return Err(format!("maxPods is {max_pods}; Azure gives a NIC at most {MOST_PODS} pod addresses"));
        }
        if let Some(mtu) = self.mtu
            && mtu < LEAST_MTU
        {
            return Err(format!("mtu is {mtu}; {LEAST_MTU} bytes are the least that IPv6 works with"));
        }
        let socket = absolute("socket", self.socket.unwrap_or_else(|| dotfour_protocol::DEFAULT_SOCKET.into()))?;
        let beside_socket = socket.with_file_name(dotfour_protocol::SPOOL_NAME);
        let spool_dir = absolute("spoolDir", self.spool_dir.unwrap_or(beside_socket))?;
        let state_dir = absolute("stateDir", self.state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()))?;
        let networks = self.networks.unwrap_or_default();
        let cni = RawCni {
            bin_dir: self.cni_bin_dir,
            conf_dir: self.cni_conf_dir,
            conflist: self.cni_conflist,
            network: self.cni_network,
            runtime: self.runtime,
        };
        let (metadata, metadata_exempt) = self.metadata.unwrap_or_default().check()?;
        Ok(Config {
            cni: cni.check(&networks)?,
            metrics: MetricsTarget::parse(self.metrics.as_deref(), &state_dir, &socket)?,
            slow_add: duration("slowAdd", self.slow_add.as_deref(), DEFAULT_SLOW_ADD)?,
            nic: self.nic,
            mtu: self.mtu,
            networks,
            socket,
            state_dir,
            rest: rest(self.cooldown.as_deref(), self.cooldown_floor.as_deref())?,
            spool_dir,
            reclaim_nic_addresses: self.reclaim_nic_addresses.unwrap_or(false),
            max_pods,
            ip_families: self.ip_families.as_deref().map(families).transpose()?,
            refresh: refresh(self.source.refresh.as_deref())?,
            source: self.source.check()?,
            masquerade: self.masquerade.unwrap_or_default().check()?,
            metadata,
            metadata_exempt,
            startup_taint: self.startup_taint.map(taint::key).transpose()?,
        })
    }
}

impl RawSource {
    fn check(self) -> Result<Source, String> {
        match self.kind {
            Kind::Wireserver => {
                refuse(
                    "wireserver",
                    &[
                        ("subnet", self.subnet.is_some()),
                        ("addresses", self.addresses.is_some()),
                        ("file", self.file.is_some()),
                    ],
                )?;
                let (host, port) = host_and_port(self.url.as_deref().unwrap_or(DEFAULT_WIRESERVER))?;
                Ok(Source::Wireserver(WireserverSource {
                    host,
                    port,
                    timeout: duration("source.timeout", self.timeout.as_deref(), DEFAULT_SOURCE_TIMEOUT)?,
                }))
            }
            Kind::Static => {
                refuse("static", &[("url", self.url.is_some()), ("timeout", self.timeout.is_some())])?;
                Ok(Source::Static(static_source(self.subnet, self.addresses, self.file)?))
            }
            Kind::Imds | Kind::Arm | Kind::PodCidr => {
                Err("source.kind: imds, arm and pod-cidr are not in this version; use wireserver or static".into())
            }
        }
    }
}

fn static_source(
    subnet: Option<OneOrMany>,
    addresses: Option<Vec<String>>,
    file: Option<PathBuf>,
) -> Result<StaticSource, String> {
    match (subnet, addresses, file) {
        (None, None, Some(file)) => Ok(StaticSource::File(absolute("source.file", file)?)),
        (Some(subnets), Some(texts), None) => {
            let subnets = subnets.texts().iter().map(|text| subnet_of_list(text)).collect::<Result<Vec<_>, _>>()?;
            if let Some((one, other)) = overlap(&subnets) {
                return Err(format!("source.subnet: {one} and {other} overlap"));
            }
            let read = |text: &String| text.parse::<AddressRange>().map_err(|e| format!("source.addresses: {e}"));
            let addresses = texts.iter().map(read).collect::<Result<Vec<_>, _>>()?;
            let offered = addresses.iter().fold(0_u128, |sum, range| sum.saturating_add(range.count()));
            if offered > MOST_ADDRESSES {
                return Err(format!(
                    "source.addresses: {offered} addresses are more than a VNet holds ({MOST_ADDRESSES})"
                ));
            }
            for range in &addresses {
                // A range that begins in one subnet and ends in another has strangers between.
                let (first, last) = (range.first(), range.last());
                if !subnets.iter().any(|subnet| subnet.contains(&first) && subnet.contains(&last)) {
                    let outside = if subnets.iter().any(|subnet| subnet.contains(&first)) { last } else { first };
                    let subnets: Vec<String> = subnets.iter().map(IpNet::to_string).collect();
                    return Err(format!("source.addresses: {outside} is outside source.subnet {}", subnets.join(", ")));
                }
            }
            Ok(StaticSource::List { subnets, addresses })
        }
        _ => Err("source: kind static needs either subnet and addresses, or file".into()),
    }
}

/// Azure's limit of private addresses in one VNet.
const MOST_ADDRESSES: u128 = 65_536;

fn subnet_of_list(text: &str) -> Result<IpNet, String> {
    let subnet: IpNet = text
        .parse()
        .map_err(|_| format!("source.subnet: {text:?} is not a network in CIDR form, such as 10.240.0.0/16"))?;
    if subnet.trunc() == subnet {
        Ok(subnet)
    } else {
        Err(format!("source.subnet: {subnet} has host bits set; the network is {}", subnet.trunc()))
    }
}

fn overlap(subnets: &[IpNet]) -> Option<(IpNet, IpNet)> {
    let pairs =
        subnets.iter().enumerate().flat_map(|(i, one)| subnets.iter().skip(i + 1).map(move |other| (*one, *other)));
    pairs.into_iter().find(|(one, other)| one.contains(other) || other.contains(one))
}

fn families(listed: &[IpFamily]) -> Result<Families, String> {
    let families = Families { v4: listed.contains(&IpFamily::IPv4), v6: listed.contains(&IpFamily::IPv6) };
    if listed.is_empty() {
        return Err("ipFamilies: a pod needs an address; list IPv4, IPv6 or both".into());
    }
    Ok(families)
}

pub(super) fn absolute(key: &str, path: PathBuf) -> Result<PathBuf, String> {
    if path.is_absolute() { Ok(path) } else { Err(format!("{key}: {path:?} is not an absolute path")) }
}

fn duration(key: &str, text: Option<&str>, default: Duration) -> Result<Duration, String> {
    text.map_or(Ok(default), |text| {
        humantime::parse_duration(text)
            .map_err(|_| format!("{key}: {text:?} is not a duration with its unit, such as 30s, 500ms or 2m"))
    })
}

fn rest(cooldown: Option<&str>, floor: Option<&str>) -> Result<Rest, String> {
    let cooldown = duration("cooldown", cooldown, DEFAULT_COOLDOWN)?;
    let default_floor = DEFAULT_COOLDOWN_FLOOR.min(cooldown);
    let floor = duration("cooldownFloor", floor, default_floor)?;
    if floor > cooldown {
        return Err(format!("cooldownFloor: {floor:?} is longer than the cooldown of {cooldown:?}"));
    }
    Ok(Rest { cooldown, floor })
}

/// The time between two looks at the source, which is never zero: that would be a busy loop against Azure's endpoint.
fn refresh(text: Option<&str>) -> Result<Duration, String> {
    match duration("source.refresh", text, DEFAULT_SOURCE_REFRESH)? {
        Duration::ZERO => Err("source.refresh: must be longer than nothing".into()),
        interval => Ok(interval),
    }
}

fn host_and_port(url: &str) -> Result<(String, u16), String> {
    let error = || format!("source.url: {url:?} is not of the form http://HOST[:PORT]");
    let uri: Uri = url.parse().map_err(|_| error())?;
    if uri.scheme_str() != Some("http") || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(error());
    }
    let host = uri.host().ok_or_else(error)?;
    Ok((host.trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(80)))
}

/// Refuses keys that belong to another kind of source.
fn refuse(kind: &str, keys: &[(&str, bool)]) -> Result<(), String> {
    match keys.iter().find(|(_, present)| *present) {
        Some((key, _)) => Err(format!("source.{key} has no meaning for kind {kind}")),
        None => Ok(()),
    }
}

/// One line of what the YAML reader found, with the nearest known name where a name is unknown.
pub(super) fn one_line(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error::{SerdeUnknownField, SerdeUnknownVariant};
    let error = error.without_snippet();
    let (unknown, expected) = match error {
        SerdeUnknownField { field, expected, .. } => (field, expected),
        SerdeUnknownVariant { variant, expected, .. } => (variant, expected),
        _ => return error.to_string(),
    };
    let nearest = expected
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&unknown.to_lowercase(), &known.to_lowercase()), known))
        .min()
        .filter(|(distance, _)| *distance <= unknown.len() / 2);
    match nearest {
        Some((_, known)) => format!("{error}; did you mean `{known}`?"),
        None => error.to_string(),
    }
}
