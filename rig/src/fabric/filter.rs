//! What a NIC may not send, and how often it tried.
//!
//! One nftables table in the fabric's namespace. Each NIC has a chain and a set with its addresses; every reason to drop
//! has a counter per NIC. The rules are few and change by hand of a test, so they go through the `nft` program as text.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use dotfour_datapath::Netns;
use serde::Deserialize;

use super::{NicId, SINK};
use crate::azure::{INSTANCE_METADATA, WIRESERVER};
use crate::{RigError, program};

/// What is the same for every NIC. Prerouting comes before routing, so a forged source reaches nothing, not even the
/// fabric's own services; those speak HTTP only. The fabric never reports errors by ICMP: Azure's is silent.
const TABLE: &str = "
table ip fabric {
  counter no_such_address {}
  map nics { type ifname : verdict; }
  chain arriving {
    type filter hook prerouting priority raw; policy drop;
    iifname lo accept
    iifname vmap @nics
  }
  chain crossing {
    type filter hook forward priority filter; policy accept;
    oifname SINK counter name no_such_address drop
  }
  chain for_services {
    type filter hook input priority filter; policy drop;
    iifname lo accept
    tcp dport 80 accept
  }
  chain from_services {
    type filter hook output priority filter; policy accept;
    meta l4proto icmp drop
  }
}
";

/// What one NIC's chain depends on.
#[derive(Debug)]
pub(super) struct NicRules {
    pub(super) id: NicId,
    pub(super) primary: Ipv4Addr,
    pub(super) ip_forwarding: bool,
}

/// Packets dropped so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drops {
    /// Sent to an address that is on no NIC.
    pub no_such_address: u64,
    /// What each NIC sent that it may not.
    pub nics: Vec<(NicId, NicDrops)>,
}

impl Drops {
    /// One NIC's; zeros for a NIC that is not there.
    pub fn of(&self, nic: NicId) -> NicDrops {
        self.nics.iter().find(|(id, _)| *id == nic).map(|(_, drops)| *drops).unwrap_or_default()
    }
}

/// Packets of one NIC dropped so far, by reason. A packet counts under the first reason that fits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NicDrops {
    /// Broadcast or multicast.
    pub broadcast: u64,
    /// To wireserver or instance metadata from another address than the NIC's primary one.
    pub not_primary: u64,
    /// From a source address that is not on the NIC.
    pub foreign_source: u64,
}

#[derive(Debug)]
pub(super) struct Filter {
    nft: PathBuf,
}

impl Filter {
    pub(super) fn new() -> Result<Self, RigError> {
        Ok(Filter { nft: program::find("nft", "nftables")? })
    }

    pub(super) fn install(&self, fabric: &Netns) -> Result<(), RigError> {
        self.apply(fabric, &TABLE.replace("SINK", SINK))
    }

    pub(super) fn add_nic(&self, fabric: &Netns, rules: &NicRules) -> Result<(), RigError> {
        let nic = rules.id;
        let mut text = String::new();
        for reason in ["broadcast", "not_primary", "foreign_source"] {
            let _ = writeln!(text, "add counter ip fabric {nic}_{reason}");
        }
        let _ = writeln!(text, "add set ip fabric {nic}_addresses {{ type ipv4_addr; }}");
        let _ = writeln!(text, "add chain ip fabric {nic}");
        text.push_str(&chain(rules));
        let _ = writeln!(text, "add element ip fabric nics {{ {nic} : goto {nic} }}");
        self.apply(fabric, &text)
    }

    pub(super) fn change_nic(&self, fabric: &Netns, rules: &NicRules) -> Result<(), RigError> {
        self.apply(fabric, &format!("flush chain ip fabric {}\n{}", rules.id, chain(rules)))
    }

    pub(super) fn remove_nic(&self, fabric: &Netns, nic: NicId) -> Result<(), RigError> {
        let mut text = format!(
            "delete element ip fabric nics {{ {nic} : goto {nic} }}\nflush chain ip fabric {nic}\n\
             delete chain ip fabric {nic}\ndelete set ip fabric {nic}_addresses\n"
        );
        for reason in ["broadcast", "not_primary", "foreign_source"] {
            let _ = writeln!(text, "delete counter ip fabric {nic}_{reason}");
        }
        self.apply(fabric, &text)
    }

    pub(super) fn allow_sources(&self, fabric: &Netns, nic: NicId, addresses: &[Ipv4Addr]) -> Result<(), RigError> {
        self.apply(fabric, &elements("add", nic, addresses))
    }

    pub(super) fn forbid_sources(&self, fabric: &Netns, nic: NicId, addresses: &[Ipv4Addr]) -> Result<(), RigError> {
        self.apply(fabric, &elements("delete", nic, addresses))
    }

    pub(super) fn drops(&self, fabric: &Netns) -> Result<Drops, RigError> {
        let json = self.run(fabric, &["-j", "list", "counters", "table", "ip", "fabric"], "")?;
        parse_counters(&json).map_err(|e| RigError::Program { program: "nft".to_owned(), reason: e.to_string() })
    }

    fn apply(&self, fabric: &Netns, text: &str) -> Result<(), RigError> {
        self.run(fabric, &["-f", "-"], text).map(drop)
    }

    /// Runs nft in the fabric's namespace and returns what it printed.
    fn run(&self, fabric: &Netns, arguments: &[&str], input: &str) -> Result<String, RigError> {
        let failed = |reason: String| RigError::Program { program: "nft".to_owned(), reason };
        let child = fabric.run(|| {
            Command::new(&self.nft)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        });
        let mut child = child.flatten().map_err(|e| failed(e.to_string()))?;
        // nft reads all of its input before it prints anything, so writing first cannot block both sides.
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).map_err(|e| failed(e.to_string()))?;
        }
        let mut errors = String::new();
        let mut output = String::new();
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_string(&mut output).map_err(|e| failed(e.to_string()))?;
        }
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut errors).map_err(|e| failed(e.to_string()))?;
        }
        let status = child.wait().map_err(|e| failed(e.to_string()))?;
        if status.success() { Ok(output) } else { Err(failed(errors.trim().to_owned())) }
    }
}

/// A NIC's rules. With IP forwarding any source is good, except towards the platform's services.
fn chain(rules: &NicRules) -> String {
    let NicRules { id: nic, primary, ip_forwarding } = rules;
    let mut text = format!(
        "add rule ip fabric {nic} meta pkttype != host counter name {nic}_broadcast drop\n\
         add rule ip fabric {nic} ip daddr {{ 224.0.0.0/4, 255.255.255.255 }} counter name {nic}_broadcast drop\n\
         add rule ip fabric {nic} ip daddr {{ {WIRESERVER}, {INSTANCE_METADATA} }} ip saddr != {primary} \
         counter name {nic}_not_primary drop\n"
    );
    if !ip_forwarding {
        let _ = writeln!(
            text,
            "add rule ip fabric {nic} ip saddr != @{nic}_addresses counter name {nic}_foreign_source drop"
        );
    }
    let _ = writeln!(text, "add rule ip fabric {nic} accept");
    text
}

fn elements(verb: &str, nic: NicId, addresses: &[Ipv4Addr]) -> String {
    let list: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
    if list.is_empty() {
        return String::new();
    }
    format!("{verb} element ip fabric {nic}_addresses {{ {} }}\n", list.join(", "))
}

fn parse_counters(json: &str) -> serde_json::Result<Drops> {
    #[derive(Deserialize)]
    struct Listing {
        nftables: Vec<Object>,
    }
    #[derive(Deserialize)]
    struct Object {
        counter: Option<Counter>,
    }
    #[derive(Deserialize)]
    struct Counter {
        name: String,
        packets: u64,
    }
    let listing: Listing = serde_json::from_str(json)?;
    let mut drops = Drops::default();
    for Counter { name, packets } in listing.nftables.into_iter().filter_map(|object| object.counter) {
        if name == "no_such_address" {
            drops.no_such_address = packets;
            continue;
        }
        let Some((nic, reason)) = name.split_once('_') else { continue };
        let Some(id) = nic.strip_prefix("nic").and_then(|number| number.parse().ok()).map(NicId) else { continue };
        let place = drops.nics.iter().position(|(known, _)| *known == id).unwrap_or(drops.nics.len());
        if place == drops.nics.len() {
            drops.nics.push((id, NicDrops::default()));
        }
        let Some((_, nic)) = drops.nics.get_mut(place) else { continue };
        match reason {
            "broadcast" => nic.broadcast = packets,
            "not_primary" => nic.not_primary = packets,
            "foreign_source" => nic.foreign_source = packets,
            _ => {}
        }
    }
    drops.nics.sort_by_key(|(id, _)| *id);
    Ok(drops)
}
