//! Firewalls on the way of forwarded packets: chains of others at the hook `forward` that drop what no rule accepts, as
//! Docker and some firewalls leave them.
//!
//! A table of ours cannot overrule such a chain, so pods need a rule in it. It is reported and not fought. What a jump leads
//! to is not followed: what may be dropped is told as such. Rules of other chains are not read, for there may be tens of
//! thousands.

use std::fmt;
use std::process::Stdio;

use serde_json::Value;

use super::apply::Nft;
use super::legacy::{self, Family, has_table};
use super::table::TABLE;
use crate::errors::with_source;
use crate::wiring::names::LINK_PREFIX;

/// What a chain with the policy `drop` does with pods' packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A rule of it lets them through.
    Accepts,
    /// No rule of it does, and one leads elsewhere or accepts what cannot be judged here.
    Unclear,
    /// Nothing in it lets them through.
    Drops,
}

/// A chain with the policy `drop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Where it is, as its tool names it, such as `ip filter`; of legacy iptables, the program's name.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// What it does.
    pub verdict: Verdict,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain {} of {}", self.chain, self.table)
    }
}

/// What was found, and what could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The chains that drop by policy.
    pub chains: Vec<Chain>,
    /// Why others cannot be seen, in words.
    pub unread: Vec<String>,
}

/// The chains that drop by policy what the calling process's namespace forwards.
pub fn find() -> Found {
    let mut found = Found::default();
    match Nft::find() {
        Ok(nft) => find_nft(&nft, &mut found),
        Err(e) => found.unread.push(with_source(&e)),
    }
    for (program, family) in [("iptables-legacy", Family::V4), ("ip6tables-legacy", Family::V6)] {
        if !has_table(family, "filter") {
            continue;
        }
        let listing = legacy::list(program, "filter", "FORWARD", Stdio::piped());
        match listing.map(|listing| judge_iptables(&listing?)) {
            Ok(Some(verdict)) => {
                found.chains.push(Chain { table: program.to_owned(), chain: "FORWARD".to_owned(), verdict });
            }
            Ok(None) => {}
            Err(why) => found.unread.push(why),
        }
    }
    found
}

fn find_nft(nft: &Nft, found: &mut Found) {
    // One that is gone meanwhile drops nothing.
    let mut list = |what: &[&str]| nft.list(what).map_err(|e| found.unread.push(with_source(&e))).ok().flatten();
    for [family, table, name] in list(&["chains"]).map(|listing| dropping(&listing)).unwrap_or_default() {
        if let Some(listing) = list(&["chain", &family, &table, &name]) {
            let verdict = judge_nft(&listing);
            found.chains.push(Chain { table: format!("{family} {table}"), chain: name, verdict });
        }
    }
}

/// The dropping chains among those that `nft -j list chains` prints: family, table, name.
fn dropping(listing: &str) -> Vec<[String; 3]> {
    let string = |chain: &Value, key: &str| chain.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    objects(listing, "chain")
        .iter()
        // Bridged frames are no business of pods that are routed.
        .filter(|chain| matches!(string(chain, "family").as_str(), "ip" | "ip6" | "inet"))
        .filter(|chain| string(chain, "hook") == "forward" && string(chain, "policy") == "drop")
        .map(|chain| ["family", "table", "name"].map(|key| string(chain, key)))
        .filter(|[family, table, _]| (family.as_str(), table.as_str()) != ("inet", TABLE))
        .collect()
}

/// What the rules of one chain do, as `nft -j list chain` prints them.
fn judge_nft(listing: &str) -> Verdict {
    whole(objects(listing, "rule").iter().map(|rule| {
        let parts = rule.get("expr").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let has = |key: &str| parts.iter().any(|part| part.get(key).is_some());
        let conditions: Vec<&Value> = parts.iter().filter(|part| !is_neutral(part)).collect();
        if has("jump") || has("goto") {
            Verdict::Unclear
        } else if !has("accept") {
            Verdict::Drops
        } else if conditions.iter().all(|part| is_about_pod_links(part)) {
            Verdict::Accepts
        } else {
            accepts_some(conditions.iter().any(|part| is_about_replies(part)))
        }
    }))
}

/// What a chain does whose policy is `DROP`, as `iptables -S FORWARD` prints it; `None` if its policy is another.
fn judge_iptables(listing: &str) -> Option<Verdict> {
    listing.lines().find(|line| *line == "-P FORWARD DROP")?;
    Some(whole(listing.lines().filter_map(|line| line.strip_prefix("-A FORWARD ")).map(|rule| {
        let (conditions, target) = match rule.split_once("-j ") {
            Some((conditions, target)) => (conditions.trim(), target.split(' ').next().unwrap_or_default()),
            None => return if rule.contains("-g ") { Verdict::Unclear } else { Verdict::Drops },
        };
        let pods = [format!("-i {LINK_PREFIX}+"), format!("-o {LINK_PREFIX}+")];
        match target {
            "ACCEPT" if conditions.is_empty() || pods.iter().any(|pod| pod == conditions) => Verdict::Accepts,
            "ACCEPT" => accepts_some(conditions.contains("ESTABLISHED")),
            "DROP" | "REJECT" | "LOG" | "RETURN" | "MARK" => Verdict::Drops,
            _ => Verdict::Unclear,
        }
    })))
}

fn whole(rules: impl Iterator<Item = Verdict>) -> Verdict {
    let rules: Vec<Verdict> = rules.collect();
    [Verdict::Accepts, Verdict::Unclear].into_iter().find(|verdict| rules.contains(verdict)).unwrap_or(Verdict::Drops)
}

/// A rule that accepts replies only lets nobody begin.
fn accepts_some(replies_only: bool) -> Verdict {
    if replies_only { Verdict::Drops } else { Verdict::Unclear }
}

/// Whether a part of a rule neither decides nor restricts.
fn is_neutral(part: &Value) -> bool {
    ["accept", "counter", "log"].iter().any(|key| part.get(key).is_some()) || xt(part) == Some("comment")
}

/// The name of a match of iptables' that nft cannot say in its own words. It shows no more of it.
fn xt(part: &Value) -> Option<&str> {
    part.pointer("/xt/name").and_then(Value::as_str)
}

fn is_about_pod_links(part: &Value) -> bool {
    let field = |path: &str| part.pointer(path).and_then(Value::as_str);
    let interface = matches!(field("/match/left/meta/key"), Some("iifname" | "oifname"));
    let name = field("/match/right").unwrap_or_default();
    interface && field("/match/op") == Some("==") && name == format!("{LINK_PREFIX}*")
}

fn is_about_replies(part: &Value) -> bool {
    // What everybody uses iptables' conntrack match for.
    xt(part) == Some("conntrack")
        || part.pointer("/match/left/ct/key").and_then(Value::as_str) == Some("state")
            && !part.pointer("/match/right").is_some_and(|states| states.to_string().contains("\"new\""))
}

/// The objects of one kind in a listing.
fn objects(listing: &str, kind: &str) -> Vec<Value> {
    let listing: Value = serde_json::from_str(listing).unwrap_or_default();
    let all = listing.get("nftables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(|object| object.get(kind)).cloned().collect()
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
        dropping(&listing).iter().map(|[family, table, name]| format!("chain {name} of {family} {table}")).collect()
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
        assert!(dropping("nft: broken").is_empty());
    }

    #[test]
    fn what_iptables_prints_is_judged_by_what_it_does_with_pods() {
        for (rules, expected) in [
            ("-P FORWARD ACCEPT\n-A FORWARD -j DROP", None),
            ("-P FORWARD DROP", Some(Verdict::Drops)),
            ("-P FORWARD DROP\n-A FORWARD -i azv+ -j ACCEPT", Some(Verdict::Accepts)),
            ("-P FORWARD DROP\n-A FORWARD -j ACCEPT", Some(Verdict::Accepts)),
            ("-P FORWARD DROP\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", Some(Verdict::Drops)),
            ("-P FORWARD DROP\n-A FORWARD -i azv+ -p tcp -j ACCEPT", Some(Verdict::Unclear)),
            ("-P FORWARD DROP\n-A FORWARD -j KUBE-FORWARD", Some(Verdict::Unclear)),
            ("-P FORWARD DROP\n-A FORWARD -g DOCKER-USER", Some(Verdict::Unclear)),
            ("-P FORWARD DROP\n-A FORWARD -j KUBE-FORWARD\n-A FORWARD -o azv+ -j ACCEPT", Some(Verdict::Accepts)),
        ] {
            assert_eq!(judge_iptables(rules), expected, "{rules}");
        }
    }
}
