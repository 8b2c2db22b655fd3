//! Routing rules: which table is asked for whom.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use crate::address::family;
use crate::{Batch, KernelError, Socket};

/// "What this address sends is looked up in that table."
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The source address.
    pub source: IpAddr,
    /// The table.
    pub table: u32,
    /// Rules are asked in the order of these; the main table's has 32766.
    pub priority: u32,
    /// Who owns the rule, as a route's protocol number says it.
    pub protocol: u8,
}

impl Batch {
    /// Adds a rule. One that is there already is refused with `EEXIST`.
    pub fn add_rule(&mut self, step: &'static str, rule: &Rule) {
        let mut message = message(rule.source, rule.priority);
        message.header.action = RuleAction::ToTable;
        message.attributes.push(RuleAttribute::Table(rule.table));
        message.attributes.push(RuleAttribute::Protocol(RouteProtocol::from(rule.protocol)));
        self.push(step, RouteNetlinkMessage::NewRule(message), NLM_F_CREATE | NLM_F_EXCL);
    }

    /// Deletes the first rule for this source that has this priority, whatever its table. If there is none, that is refused
    /// with `ENOENT`.
    pub fn delete_rule(&mut self, step: &'static str, source: IpAddr, priority: u32) {
        self.push(step, RouteNetlinkMessage::DelRule(message(source, priority)), 0);
    }
}

impl Socket {
    /// The rules for single source addresses, of both families.
    pub fn rules(&mut self) -> Result<Vec<Rule>, KernelError> {
        self.dump("list the rules", RouteNetlinkMessage::GetRule(RuleMessage::default()), read_rule)
    }
}

/// Reads a rule out of a netlink message; `None` if it is not one of those that [`Rule`] describes.
pub fn read_rule(message: RouteNetlinkMessage) -> Option<Rule> {
    let RouteNetlinkMessage::NewRule(message) = message else { return None };
    let (mut source, mut table, mut priority, mut protocol) = (None, u32::from(message.header.table), 0, 0);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(address) => source = Some(*address),
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Protocol(number) => protocol = u8::from(*number),
            _ => {}
        }
    }
    let source = source.filter(|address| message.header.src_len == width(*address))?;
    Some(Rule { source, table, priority, protocol })
}

const fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn message(source: IpAddr, priority: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(source);
    message.header.src_len = width(source);
    message.attributes.push(RuleAttribute::Source(source));
    message.attributes.push(RuleAttribute::Priority(priority));
    message
}
