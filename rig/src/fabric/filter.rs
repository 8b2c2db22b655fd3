//! What a NIC may not send, and how often it tried.
//!
//! One nftables table for each family in the fabric's namespace (`rules`). Each NIC has a chain and a set with its
//! addresses; every reason to drop has a counter per NIC. The rules are few and change by hand of a test, so they go
//! through the `nft` program as text.

mod rules;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dotfour_datapath::Netns;
use serde::Deserialize;

pub(super) use self::rules::{MARK, NicRules};
use super::NicId;
use crate::error::AddressError;
use crate::{RigError, program};

/// Packets dropped so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drops {
    /// Sent to an address that is on no NIC.
    pub no_such_address: u64,
    /// Sent to the internet from an address that is not a NIC's own, and so has no outbound NAT.
    pub no_outbound: u64,
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
    ipv6: bool,
    /// What each NIC's rules are made of; held for look-ups only.
    nics: Mutex<BTreeMap<NicId, NicRules>>,
}

impl Filter {
    pub(super) fn new(ipv6: bool) -> Result<Self, RigError> {
        Ok(Filter { nft: program::find("nft", "nftables")?, ipv6, nics: Mutex::default() })
    }

    pub(super) fn install(&self, fabric: &Netns) -> Result<(), RigError> {
        self.apply(fabric, &rules::tables(self.ipv6))
    }

    pub(super) fn add_nic(&self, fabric: &Netns, nic: &NicRules) -> Result<(), RigError> {
        self.apply(fabric, &rules::add_nic(nic, self.ipv6))?;
        self.nics().insert(nic.id, *nic);
        Ok(())
    }

    pub(super) fn set_ip_forwarding(&self, fabric: &Netns, nic: NicId, enabled: bool) -> Result<(), RigError> {
        let known = self.nics().get(&nic).copied().ok_or(AddressError::NoNic)?;
        self.apply(fabric, &rules::change_nic(&NicRules { ip_forwarding: enabled, ..known }, self.ipv6))
    }

    pub(super) fn remove_nic(&self, fabric: &Netns, nic: NicId) -> Result<(), RigError> {
        let known = self.nics().remove(&nic).ok_or(AddressError::NoNic)?;
        self.apply(fabric, &rules::remove_nic(&known, self.ipv6))
    }

    fn nics(&self) -> MutexGuard<'_, BTreeMap<NicId, NicRules>> {
        self.nics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn allow_sources(&self, fabric: &Netns, nic: NicId, addresses: &[IpAddr]) -> Result<(), RigError> {
        self.apply(fabric, &rules::elements("add", nic, addresses))
    }

    pub(super) fn forbid_sources(&self, fabric: &Netns, nic: NicId, addresses: &[IpAddr]) -> Result<(), RigError> {
        self.apply(fabric, &rules::elements("delete", nic, addresses))
    }

    pub(super) fn drops(&self, fabric: &Netns) -> Result<Drops, RigError> {
        let json = self.run(fabric, &["-j", "list", "counters"], "")?;
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

/// Reads a listing of all counters. Those of the two families' tables have the same names, and are added up.
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
            drops.no_such_address += packets;
            continue;
        }
        if name == "no_outbound" {
            drops.no_outbound += packets;
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
            "broadcast" => nic.broadcast += packets,
            "not_primary" => nic.not_primary += packets,
            "foreign_source" => nic.foreign_source += packets,
            _ => {}
        }
    }
    drops.nics.sort_by_key(|(id, _)| *id);
    Ok(drops)
}
