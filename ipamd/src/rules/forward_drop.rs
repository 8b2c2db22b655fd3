//! Who else drops what the node forwards: a chain of somebody's on the forward hook whose policy is drop, as Docker and some
//! firewalls leave it. Pods' packets need a rule there that accepts them. It is reported and not fought; whether there is
//! such a rule takes a person, because only the chains are read and never the rules, of which there may be tens of thousands.

use std::fmt;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::table::TABLE;

/// A chain that drops what none of its rules accepts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DroppingChain {
    /// Its place as `nft` names it, such as `ip filter`; of legacy iptables, the program's name.
    pub table: String,
    /// Its name.
    pub chain: String,
}

impl fmt::Display for DroppingChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain {} of {}", self.chain, self.table)
    }
}

/// The chains that drop by policy what the calling process's namespace forwards, in order. A program that is not installed
/// sees none.
pub fn find() -> Vec<DroppingChain> {
    let mut found = read(&output("nft", &["-j", "-t", "list", "chains"]).unwrap_or_default());
    // Asking legacy iptables for a table that nobody uses would load its modules.
    for (program, names) in [("iptables-legacy", "ip_tables_names"), ("ip6tables-legacy", "ip6_tables_names")] {
        let tables = std::fs::read_to_string(format!("/proc/thread-self/net/{names}")).unwrap_or_default();
        if tables.lines().any(|table| table == "filter") {
            let rules = output(program, &["-w", "5", "-S", "FORWARD"]).unwrap_or_default();
            if rules.lines().next() == Some("-P FORWARD DROP") {
                found.push(DroppingChain { table: program.to_owned(), chain: "FORWARD".to_owned() });
            }
        }
    }
    found.sort();
    found
}

/// Reads what `nft -j -t list chains` prints. Our own table is not meant.
pub fn read(listing: &str) -> Vec<DroppingChain> {
    let listing: Value = serde_json::from_str(listing).unwrap_or_default();
    let objects = listing.get("nftables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let chains = objects.iter().filter_map(|object| object.get("chain"));
    chains
        .filter_map(|chain| {
            let text = |key: &str| chain.get(key).and_then(Value::as_str).unwrap_or_default();
            let routed = matches!(text("family"), "ip" | "ip6" | "inet");
            let drops = text("hook") == "forward" && text("policy") == "drop";
            let table = format!("{} {}", text("family"), text("table"));
            (routed && drops && table != format!("inet {TABLE}"))
                .then(|| DroppingChain { table, chain: text("name").to_owned() })
        })
        .collect()
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(family: &str, table: &str, hook: &str, policy: &str) -> String {
        format!(
            r#"{{"chain":{{"family":"{family}","table":"{table}","name":"FORWARD","handle":1,"type":"filter","hook":"{hook}","prio":0,"policy":"{policy}"}}}}"#
        )
    }

    fn found(chain: String) -> Vec<String> {
        let listing = format!(r#"{{"nftables":[{{"metainfo":{{"version":"1.0.6"}}}},{{"table":{{}}}},{chain}]}}"#);
        read(&listing).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_chain_that_drops_what_is_forwarded_is_named() {
        for family in ["ip", "ip6", "inet"] {
            assert_eq!(
                found(chain(family, "filter", "forward", "drop")),
                [format!("chain FORWARD of {family} filter")]
            );
        }
    }

    #[test]
    fn other_hooks_policies_families_and_our_own_table_are_not() {
        for other in [
            chain("ip", "filter", "input", "drop"),
            chain("ip", "filter", "forward", "accept"),
            chain("bridge", "filter", "forward", "drop"),
            chain("inet", TABLE, "forward", "drop"),
            r#"{"chain":{"family":"ip","table":"filter","name":"FORWARD","handle":1}}"#.to_owned(),
        ] {
            assert_eq!(found(other.clone()), [] as [String; 0], "{other}");
        }
        assert_eq!(read("nft: broken"), []);
    }
}
