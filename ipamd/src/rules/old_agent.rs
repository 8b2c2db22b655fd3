//! Whether the ip-masq-agent has been here: its chain goes on masquerading by its own list, long after it ended. It is
//! reported and not fought; whoever installed it removes it.

use std::process::{Command, Stdio};

use super::apply::Nft;
use super::legacy::{Family, has_table};

/// The agent's chain in iptables' table `nat`.
pub const CHAIN: &str = "IP-MASQ-AGENT";

/// Which kinds of iptables have the agent's chain, in the calling process's namespace. A kind whose program is not installed
/// has no chain that could be seen.
pub fn find() -> Vec<&'static str> {
    let nft = Nft::find().ok();
    let by_nft = |family| nft.as_ref().is_some_and(|nft| nft.list(&["chain", family, "nat", CHAIN]).is_ok());
    let by_legacy = |family, program| has_table(family, "nat") && has_chain(program);
    let kinds = [
        ("iptables-nft", by_nft("ip")),
        ("ip6tables-nft", by_nft("ip6")),
        ("iptables-legacy", by_legacy(Family::V4, "iptables-legacy")),
        ("ip6tables-legacy", by_legacy(Family::V6, "ip6tables-legacy")),
    ];
    kinds.into_iter().filter(|(_, has)| *has).map(|(kind, _)| kind).collect()
}

/// Whether a program of legacy iptables lists the chain, without the rules behind it: there may be tens of thousands.
fn has_chain(program: &str) -> bool {
    let mut command = Command::new(program);
    command.args(["-w", "5", "-t", "nat", "-S", CHAIN]);
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
