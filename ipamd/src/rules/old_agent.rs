//! Whether the ip-masq-agent has been here: its chain goes on masquerading by its own list, long after it ended. It is
//! reported and not fought; whoever installed it removes it.

use std::process::{Command, Stdio};

use tracing::warn;

use super::apply::{ApplyError, Nft};
use super::legacy::{Family, has_table};
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
    fn note(&mut self, kind: &'static str, outcome: Result<bool, String>) {
        match outcome {
            Ok(true) => self.kinds.push(kind),
            Ok(false) => {}
            Err(why) => self.unread.push(why),
        }
    }
}

/// Which kinds of iptables have the agent's chain, in the calling process's namespace. Why others cannot be seen goes into the
/// log.
pub fn find() -> Vec<&'static str> {
    let Found { kinds, unread } = look();
    for why in unread {
        warn!("cannot see whether the ip-masq-agent's chain {CHAIN} is there still: {why}");
    }
    kinds
}

/// The same, with the reasons.
pub fn look() -> Found {
    let mut found = Found::default();
    match Nft::find() {
        Ok(nft) => {
            for (kind, family) in [("iptables-nft", "ip"), ("ip6tables-nft", "ip6")] {
                found.note(kind, judge_nft(nft.list(&["chain", family, "nat", CHAIN])));
            }
        }
        Err(e) => found.unread.push(with_source(&e)),
    }
    for (program, family) in [("iptables-legacy", Family::V4), ("ip6tables-legacy", Family::V6)] {
        // Without the table there is no chain, and the program would make the table.
        if has_table(family, "nat") {
            found.note(program, has_chain(program));
        }
    }
    found
}

fn judge_nft(listing: Result<String, ApplyError>) -> Result<bool, String> {
    match listing {
        Ok(_) => Ok(true),
        Err(ApplyError::Refused { said, .. }) if said.contains("No such file or directory") => Ok(false),
        Err(e) => Err(with_source(&e)),
    }
}

/// Whether a program of legacy iptables lists the chain, without the rules behind it: there may be tens of thousands.
fn has_chain(program: &str) -> Result<bool, String> {
    let mut command = Command::new(program);
    command.args(["-w", "5", "-t", "nat", "-S", CHAIN]).stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.output().map_err(|e| format!("{program} cannot be run: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(true)
    } else if said.contains("No chain/target/match by that name") {
        Ok(false)
    } else {
        Err(format!("{program}: {}", said.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_no_chain_only_if_it_says_so() {
        let refused = |said: &str| Err(ApplyError::Refused { what: "list chain ip nat".into(), said: said.into() });
        assert_eq!(judge_nft(Ok(String::new())), Ok(true));
        assert_eq!(judge_nft(refused("Error: No such file or directory")), Ok(false));
        let unseen = "netlink: Error: cache initialization failed: Operation not permitted";
        assert!(judge_nft(refused(unseen)).is_err_and(|why| why.contains("not permitted")));
    }

    #[test]
    fn a_program_that_cannot_say_is_not_taken_for_no_chain() {
        assert!(has_chain("no-such-iptables").is_err_and(|why| why.contains("no-such-iptables cannot be run")));
        assert!(has_chain("false").is_err_and(|why| why.starts_with("false")));
        assert_eq!(has_chain("true"), Ok(true));
        // As iptables ends where there is none, in the namespace that the tests run in.
        assert_eq!(has_chain("iptables-legacy"), Ok(false));
    }
}
