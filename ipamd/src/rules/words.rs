//! nftables' words, as the crate has them, for what [`super::table`] says more than once.

use ipnet::IpNet;
use nftables::expr::{
    BinaryOperation, Expression, Fib, FibFlag, FibResult, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix,
};
use nftables::schema::{Chain, Counter, Set, Table};
use nftables::stmt::{self, JumpTarget, Match, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use serde_json::Value;

/// The table's name. Others rely on it.
pub const TABLE: &str = "dotfour";

pub(super) const FAMILY: NfFamily = NfFamily::INet;

/// A base chain: type, hook and priority.
pub(super) type Base = (NfChainType, NfHook, i32);

pub(super) fn table() -> Table<'static> {
    Table { family: FAMILY, name: TABLE.into(), handle: None }
}

pub(super) fn chain(name: String, base: Option<Base>) -> Chain<'static> {
    let (kind, hook, priority) = (base.map(|b| b.0), base.map(|b| b.1), base.map(|b| b.2));
    let policy = base.map(|_| NfChainPolicy::Accept);
    Chain {
        family: FAMILY,
        table: TABLE.into(),
        name: name.into(),
        _type: kind,
        hook,
        prio: priority,
        policy,
        ..Chain::default()
    }
}

pub(super) fn named_set(name: String) -> Set<'static> {
    Set { family: FAMILY, table: TABLE.into(), name: name.into(), ..Set::default() }
}

pub(super) fn counter(name: &str) -> Counter<'static> {
    Counter {
        family: FAMILY,
        table: TABLE.into(),
        name: name.to_owned().into(),
        handle: None,
        packets: Some(0),
        bytes: Some(0),
    }
}

pub(super) fn set_name(group: &str, what: &str, family: u8) -> String {
    format!("{group}_{what}{family}")
}

pub(super) fn version(net: &IpNet) -> u8 {
    if net.addr().is_ipv4() { 4 } else { 6 }
}

pub(super) fn element(net: &IpNet) -> Expression<'static> {
    if net.prefix_len() == net.max_prefix_len() {
        text(net.addr().to_string())
    } else {
        prefix(&net.addr().to_string(), net.prefix_len())
    }
}

pub(super) fn text(text: impl Into<String>) -> Expression<'static> {
    Expression::String(text.into().into())
}

pub(super) fn prefix(address: &str, length: u8) -> Expression<'static> {
    Expression::Named(NamedExpression::Prefix(Prefix { addr: Box::new(text(address)), len: u32::from(length) }))
}

/// The bits of it that are in the mask: cheaper for each packet than a range, for which the kernel turns the number round first.
pub(super) fn masked(left: Expression<'static>, mask: u32) -> Expression<'static> {
    Expression::BinaryOperation(Box::new(BinaryOperation::AND(left, Expression::Number(mask))))
}

pub(super) fn payload(protocol: &'static str, field: &'static str) -> Expression<'static> {
    let field = PayloadField { protocol: protocol.into(), field: field.into() };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

pub(super) fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

pub(super) fn fib(result: FibResult, flags: &[FibFlag]) -> Expression<'static> {
    Expression::Named(NamedExpression::Fib(Fib { result, flags: flags.iter().copied().collect() }))
}

pub(super) fn equals(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op: Operator::EQ })
}

pub(super) fn differs(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op: Operator::NEQ })
}

pub(super) fn in_set(family: u8, field: &'static str, set: String) -> Statement<'static> {
    equals(payload(if family == 4 { "ip" } else { "ip6" }, field), text(format!("@{set}")))
}

/// The node's own addresses are not a pod's, whichever network they are of.
pub(super) fn not_the_node() -> Statement<'static> {
    differs(fib(FibResult::Type, &[FibFlag::Saddr]), text("local"))
}

pub(super) fn goto(chain: &'static str) -> Statement<'static> {
    Statement::Goto(JumpTarget { target: chain.into() })
}

pub(super) fn count(counter: &'static str) -> Statement<'static> {
    Statement::Counter(stmt::Counter::Named(counter.into()))
}

/// A base chain as an outline has it.
pub(super) fn describe(base: Option<Base>) -> String {
    let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
    base.map_or_else(String::new, |(kind, hook, priority)| {
        let (kind, hook) = (serde_json::to_value(kind), serde_json::to_value(hook));
        format!("{} {} {priority} accept", word(kind.unwrap_or_default()), word(hook.unwrap_or_default()))
    })
}
