//! The plan as nftables' table `inet dotfour`. Pure; [`super::apply`] hands it to `nft`.
//!
//! ```text
//! prerouting  raw     a pod's packet from an address that is not its own is dropped; so is its router advertisement, and
//!                     whatever comes by the link of a pod that was deleted
//! postrouting filter  the guard: what pods may not reach
//! postrouting 99      source addresses; just before srcnat, where kube-proxy and all others are, whoever came first
//! ```
//! Pods are told by their source address, not by their link: by the time a packet leaves, kernels before 5.7 and IPVS have
//! forgotten where it came from. That the address is true is the first chain's business. The node's own addresses may be
//! of the same networks as its pods', so what is local to the node is left out.
//!
//! Only the exemption of namespaces from the metadata guard goes by the link, by its group, so that nothing is written for
//! a single pod. Where the link is forgotten, nobody is exempt.

use std::collections::HashSet;

use ipnet::IpNet;
use nftables::expr::{Expression, FibFlag, FibResult, MetaKey};
use nftables::schema::{
    FlushObject, NfCmd, NfListObject, NfObject, Nftables, Rule, Set, SetFlag, SetType, SetTypeValue,
};
use nftables::stmt::{NAT, NATFamily, NATFlag, Statement};
use nftables::types::{NfChainType, NfHook};
use serde_json::Value;

use super::outline::Outline;
use super::plan::{Group, IMDS, Plan, WIRESERVER, WIRESERVER_PORTS};
pub use super::words::TABLE;
use super::words::{
    Base, FAMILY, chain, count, counter, describe, differs, element, equals, fib, goto, in_set, masked, meta,
    named_set, not_the_node, payload, prefix, set_name, table, text, version,
};
use crate::config::Metadata;
use crate::wiring::names::{CONDEMNED_GROUPS, CONDEMNED_MASK, EXEMPT_GROUP, LINK_PREFIX, POD_GROUP};

/// An empty set whose name says which plan the table was made from. Its name, because nft up to 1.0.6 at least loses the
/// comment of a set that is given as JSON.
const MARKER: &str = "plan_";

/// Both have their sets, empty or not: see [`Content::removals`].
const FAMILIES: [u8; 2] = [4, 6];

/// Before connection tracking, so that a forged packet leaves no trace.
const RAW: i32 = -300;
const FILTER: i32 = 0;
/// One before srcnat.
const BEFORE_SRCNAT: i32 = 99;

/// Named, so that a table that is made anew goes on counting.
const COUNTERS: [&str; 4] = ["spoofed", "router_adverts", "wireserver_blocked", "metadata_blocked"];

/// The table in full, apart from what is in the kernel.
#[derive(Debug, Clone)]
pub struct Content {
    chains: Vec<(&'static str, Option<Base>)>,
    sets: Vec<Set<'static>>,
    rules: Vec<Rule<'static>>,
    /// Identifies the content.
    pub fingerprint: String,
}

impl Content {
    /// What the plan asks for.
    pub fn of(plan: &Plan) -> Self {
        let mut content = Content {
            chains: vec![
                ("antispoof", Some((NfChainType::Filter, NfHook::Prerouting, RAW))),
                ("guard", Some((NfChainType::Filter, NfHook::Postrouting, FILTER))),
                ("node", None),
            ],
            sets: Vec::new(),
            rules: Vec::new(),
            fingerprint: String::new(),
        };
        content.forbid_forgery();
        content.guard(plan);
        content.take_node_address(plan);
        for group in &plan.groups {
            content.add_group(group);
        }
        // Last: it goes to the chains above.
        content.chains.push(("postrouting", Some((NfChainType::NAT, NfHook::Postrouting, BEFORE_SRCNAT))));
        content.rule(
            "postrouting",
            "what stays among this node's pods is as they sent it",
            vec![equals(meta(MetaKey::Oifname), text(format!("{LINK_PREFIX}*"))), Statement::Return(None)],
        );
        for group in &plan.groups {
            for family in FAMILIES {
                let select = vec![
                    in_set(family, "saddr", set_name(group.name, "pods", family)),
                    not_the_node(),
                    goto(group.name),
                ];
                content.rule("postrouting", &format!("from {} pods, IPv{family}", group.name), select);
            }
        }
        content.fingerprint = content.compute_fingerprint();
        content
    }

    /// Each packet that the node forwards goes through here, so what most of them need comes first: pods' IPv4 ones are done with
    /// the first rule, known by the group of their links; those of others with the second. A pod whose link is in no group or in
    /// another one, be it exempt, wired by an older release, or changed by hand, is judged as well, by all the rules behind.
    fn forbid_forgery(&mut self) {
        let own_address =
            |found| equals(fib(FibResult::Oif, &[FibFlag::Saddr, FibFlag::Iif]), Expression::Boolean(found));
        self.rule(
            "antispoof",
            "from a pod's own IPv4 address",
            vec![
                equals(meta(MetaKey::Iifgroup), Expression::Number(POD_GROUP)),
                equals(meta(MetaKey::Nfproto), text("ipv4")),
                own_address(true),
                Statement::Accept(None),
            ],
        );
        self.rule(
            "antispoof",
            "from others than pods",
            vec![differs(meta(MetaKey::Iifname), text(format!("{LINK_PREFIX}*"))), Statement::Accept(None)],
        );
        // Their pods are gone, and what is left of them is nobody's forgery. Before anything else is accepted: somebody else's
        // route may still lead there.
        self.rule(
            "antispoof",
            "a condemned link carries nothing",
            vec![
                equals(masked(meta(MetaKey::Iifgroup), CONDEMNED_MASK), Expression::Number(*CONDEMNED_GROUPS.start())),
                Statement::Drop(None),
            ],
        );
        self.rule(
            "antispoof",
            "pods advertise no routes",
            vec![
                equals(payload("icmpv6", "type"), text("nd-router-advert")),
                count("router_adverts"),
                Statement::Drop(None),
            ],
        );
        // Neighbour discovery speaks from these, and nobody forwards them.
        for (comment, source) in [
            ("link-local stays on its link", prefix("fe80::", 10)),
            ("who has no address yet asks for one", text("::")),
        ] {
            self.rule("antispoof", comment, vec![equals(payload("ip6", "saddr"), source), Statement::Accept(None)]);
        }
        self.rule(
            "antispoof",
            "pods send from their own addresses",
            vec![own_address(false), count("spoofed"), Statement::Drop(None)],
        );
    }

    /// As little as can be for what goes elsewhere, which is nearly all that the node forwards: one look at its destination for
    /// each address that is guarded.
    fn guard(&mut self, plan: &Plan) {
        let metadata = (plan.metadata == Metadata::Block).then_some(("metadata", IMDS));
        for (name, address) in [("wireserver", WIRESERVER)].into_iter().chain(metadata) {
            // Before the rules that go there.
            self.chains.push((name, None));
            let there = vec![equals(payload("ip", "daddr"), text(address.to_string())), goto(name)];
            self.rule("guard", &format!("who reaches {address}"), there);
        }
        if metadata.is_some() {
            // A rule of its own in front, and not "from another group" in the next ones: a packet whose link is forgotten
            // matches neither, and so is dropped.
            let exempt = equals(meta(MetaKey::Iifgroup), Expression::Number(EXEMPT_GROUP));
            self.rule("metadata", "pods of exempt namespaces", vec![exempt, Statement::Return(None)]);
        }
        for group in &plan.groups {
            let forbid = |counter| {
                let pods = in_set(4, "saddr", set_name(group.name, "pods", 4));
                [pods, not_the_node(), count(counter), Statement::Drop(None)]
            };
            for port in WIRESERVER_PORTS {
                let mut rule = vec![equals(payload("tcp", "dport"), Expression::Number(u32::from(port)))];
                rule.extend(forbid("wireserver_blocked"));
                self.rule("wireserver", &format!("{} pods and port {port}", group.name), rule);
            }
            if metadata.is_some() {
                self.rule("metadata", &format!("{} pods", group.name), forbid("metadata_blocked").into());
            }
        }
    }

    fn take_node_address(&mut self, plan: &Plan) {
        let flags = || Some(HashSet::from([NATFlag::FullyRandom]));
        // Not masquerade: that would take the first address the NIC happens to have, which cloud-init may have made a pod's.
        let v6 = plan.node_v6.map(|node| ("ipv6", "as the node's own IPv6 address", NATFamily::IP6, node.to_string()));
        let v4 = ("ipv4", "as the NIC's primary address", NATFamily::IP, plan.node.to_string());
        for (protocol, comment, family, address) in [v4].into_iter().chain(v6) {
            self.rule(
                "node",
                comment,
                vec![
                    equals(meta(MetaKey::Nfproto), text(protocol)),
                    equals(meta(MetaKey::Oifname), text(plan.nic.clone())),
                    Statement::SNAT(Some(NAT {
                        addr: Some(text(address)),
                        family: Some(family),
                        port: None,
                        flags: flags(),
                    })),
                ],
            );
        }
        self.rule(
            "node",
            "as the address of the way out",
            vec![Statement::Masquerade(Some(NAT { addr: None, family: None, port: None, flags: flags() }))],
        );
    }

    fn add_group(&mut self, group: &Group) {
        let name = group.name;
        for family in FAMILIES {
            self.interval_set(name, "pods", family, &group.pods);
            self.interval_set(name, "exempt", family, &group.exempt);
        }
        self.chains.push((name, None));
        for address in [IMDS, WIRESERVER] {
            let comment = format!("{address} answers the node's address only");
            self.rule(name, &comment, vec![equals(payload("ip", "daddr"), text(address.to_string())), goto("node")]);
        }
        for family in FAMILIES {
            let exempt = in_set(family, "daddr", set_name(name, "exempt", family));
            self.rule(name, &format!("exempt, IPv{family}"), vec![exempt, Statement::Return(None)]);
        }
        self.rule(name, "all else", vec![goto("node")]);
    }

    fn rule(&mut self, chain: &'static str, comment: &str, expr: Vec<Statement<'static>>) {
        self.rules.push(Rule {
            family: FAMILY,
            table: TABLE.into(),
            chain: chain.into(),
            expr: expr.into(),
            comment: Some(comment.to_owned().into()),
            ..Rule::default()
        });
    }

    fn interval_set(&mut self, group: &str, what: &str, family: u8, nets: &[IpNet]) {
        let elements: Vec<Expression<'static>> =
            nets.iter().filter(|net| version(net) == family).map(element).collect();
        self.sets.push(Set {
            family: FAMILY,
            table: TABLE.into(),
            name: set_name(group, what, family).into(),
            set_type: SetTypeValue::Single(if family == 4 { SetType::Ipv4Addr } else { SetType::Ipv6Addr }),
            flags: Some(HashSet::from([SetFlag::Interval])),
            elem: (!elements.is_empty()).then(|| elements.into()),
            ..Set::default()
        });
    }

    /// One transaction that makes the table this, whatever it holds. Counters go on counting.
    pub fn transaction(&self, present: Option<&Outline>) -> Nftables<'static> {
        let mut commands = vec![NfCmd::Add(NfListObject::Table(table()))];
        let known = present.filter(|present| !present.strange);
        match known {
            Some(present) => commands.extend(self.removals(present)),
            None if present.is_some() => {
                commands.extend([NfCmd::Delete, NfCmd::Add].map(|command| command(NfListObject::Table(table()))));
            }
            None => {}
        }
        let kept = |name: &str| known.is_some_and(|known| known.counters.iter().any(|counter| counter == name));
        let counters = COUNTERS.iter().filter(|name| !kept(name));
        commands.extend(counters.map(|name| NfCmd::Add(NfListObject::Counter(counter(name)))));
        commands.extend(
            self.chains.iter().map(|(name, base)| NfCmd::Add(NfListObject::Chain(chain((*name).to_owned(), *base)))),
        );
        commands.push(NfCmd::Add(NfListObject::Set(Box::new(named_set(self.marker())))));
        commands.extend(self.sets.iter().map(|set| NfCmd::Add(NfListObject::Set(Box::new(set.clone())))));
        commands.extend(self.rules.iter().map(|rule| NfCmd::Add(NfListObject::Rule(rule.clone()))));
        Nftables { objects: commands.into_iter().map(NfObject::CmdObject).collect::<Vec<_>>().into() }
    }

    /// Empties the table of rules and elements, and removes what is not wanted. The rest is kept. A new counter begins at
    /// zero. And a new set, an anonymous one too, is not atomic with the rules that ask it: the kernel puts new rules in
    /// force a moment before new elements, and in that moment a set that was there still has its old ones.
    fn removals(&self, present: &Outline) -> Vec<NfCmd<'static>> {
        let wanted = self.outline();
        let set = |name: &String| Box::new(named_set(name.clone()));
        let (kept, sets): (Vec<_>, Vec<_>) = present.sets.iter().partition(|name| wanted.sets.contains(name));
        let sets = sets.into_iter().map(|name| NfListObject::Set(set(name)));
        let chains = present.chains.iter().filter(|chain| !wanted.chains.contains(chain));
        let chains = chains.map(|(name, _)| NfListObject::Chain(chain(name.clone(), None)));
        let counters = present.counters.iter().filter(|name| !wanted.counters.contains(name));
        let counters = counters.map(|name| NfListObject::Counter(counter(name)));
        let flushed =
            [FlushObject::Table(table())].into_iter().chain(kept.into_iter().map(|name| FlushObject::Set(set(name))));
        flushed.map(NfCmd::Flush).chain(sets.chain(chains).chain(counters).map(NfCmd::Delete)).collect()
    }

    /// What a listing shows once the table is this. In no order but the rules' within their chain.
    pub fn outline(&self) -> Outline {
        let rule = |rule: &Rule<'_>| (rule.chain.to_string(), rule.comment.as_deref().unwrap_or_default().to_owned());
        Outline {
            chains: self.chains.iter().map(|(name, base)| ((*name).to_owned(), describe(*base))).collect(),
            sets: self.sets.iter().map(|set| set.name.to_string()).chain([self.marker()]).collect(),
            rules: self.rules.iter().map(rule).collect(),
            counters: COUNTERS.map(str::to_owned).to_vec(),
            strange: false,
        }
        .in_order()
    }

    fn marker(&self) -> String {
        format!("{MARKER}{}", self.fingerprint)
    }

    /// Of all there is to write: whatever changes a rule changes it, a new version of this program too.
    fn compute_fingerprint(&self) -> String {
        let mut value = serde_json::to_value(self.transaction(None)).unwrap_or_default();
        sort_flags(&mut value);
        sha1_smol::Sha1::from(value.to_string()).digest().to_string()
    }
}

/// The crate keeps flags in sets, whose order is another in every process.
fn sort_flags(value: &mut Value) {
    match value {
        Value::Object(map) => map.iter_mut().for_each(|(key, value)| match value {
            Value::Array(flags) if key == "flags" => flags.sort_by_key(Value::to_string),
            value => sort_flags(value),
        }),
        Value::Array(items) => items.iter_mut().for_each(sort_flags),
        _ => {}
    }
}
