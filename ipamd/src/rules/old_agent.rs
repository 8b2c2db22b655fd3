//! Whether the ip-masq-agent has been here: its chain goes on masquerading by its own list, long after it ended. It is
//! reported and not fought; whoever installed it removes it.

use std::process::Stdio;

use super::apply::Nft;
use super::legacy::{self, Family, has_table};
use crate::errors::with_source;

/// The agent's chain in iptables' table `nat`.
pub const CHAIN: &str = "IP-MASQ-AGENT";

/// What was found, and what could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The kinds of iptables that have the agent's chain.
    pub kinds: Vec<&'static str>,
    /// Why others cannot be seen, in words.
    pub unread: Vec<String>,
}

impl Found {
    fn note(&mut self, kind: &'static str, chain: Result<Option<String>, String>) {
        match chain {
            Ok(Some(_)) => self.kinds.push(kind),
            Ok(None) => {}
            Err(why) => self.unread.push(why),
        }
    }
}

/// Which kinds of iptables have the agent's chain, in the calling process's namespace.
pub fn find() -> Found {
    let mut found = Found::default();
    match Nft::find() {
        Ok(nft) => {
            for (kind, family) in [("iptables-nft", "ip"), ("ip6tables-nft", "ip6")] {
                found.note(kind, nft.list(&["chain", family, "nat", CHAIN]).map_err(|e| with_source(&e)));
            }
        }
        Err(e) => found.unread.push(with_source(&e)),
    }
    for (program, family) in [("iptables-legacy", Family::V4), ("ip6tables-legacy", Family::V6)] {
        if has_table(family, "nat") {
            // Without the rules behind it: there may be tens of thousands.
            found.note(program, legacy::list(program, "nat", CHAIN, Stdio::null()));
        }
    }
    found
}
