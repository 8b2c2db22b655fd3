//! Whether the ip-masq-agent has been here: its chain goes on masquerading by its own list, long after it ended. It is
//! reported and not fought; whoever installed it removes it.

use std::process::{Command, Stdio};

/// The agent's chain in iptables' table `nat`.
pub const CHAIN: &str = "IP-MASQ-AGENT";

/// Which kinds of iptables have the agent's chain, in the calling process's namespace. A kind whose program is not installed
/// has no chain that could be seen.
pub fn find() -> Vec<&'static str> {
    // Asking legacy iptables for a table that nobody uses would load its modules.
    let legacy = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    let mut kinds = vec!["iptables-nft"];
    if legacy.lines().any(|table| table == "nat") {
        kinds.push("iptables-legacy");
    }
    kinds.retain(|kind| has_chain(kind));
    kinds
}

fn has_chain(program: &str) -> bool {
    // Without the rules behind it: there may be tens of thousands.
    let mut command = match program {
        "iptables-nft" => {
            let mut command = Command::new("nft");
            command.args(["list", "chain", "ip", "nat", CHAIN]);
            command
        }
        _ => {
            let mut command = Command::new(program);
            command.args(["-w", "5", "-t", "nat", "-S", CHAIN]);
            command
        }
    };
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
