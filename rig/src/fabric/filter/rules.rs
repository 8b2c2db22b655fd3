//! The filter's rules as text for `nft`. Pure.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::azure::{INSTANCE_METADATA, WIRESERVER};
use crate::fabric::{NicId, SINK};

/// What a packet from a NIC carries while it crosses the fabric, for the route table's sake.
pub(in crate::fabric) const MARK: u32 = 1;

/// What is the same for every NIC. Prerouting comes before routing, so a forged source reaches nothing, not even the
/// fabric's own services. What comes back to those without opening a connection answers a load balancer's probe. The fabric never reports errors by ICMP: Azure's is silent.
const TABLE: &str = r#"
table FAMILY fabric {
  set own { type KIND; }
  counter no_such_address {}
  counter no_outbound {}
  map nics { type ifname : verdict; }
  chain arriving {
    type filter hook prerouting priority raw; policy drop;
    iifname lo accept
    iifname "net*" tcp flags & (syn | ack) == syn drop
    iifname "net*" accept
    iifname "out*" accept
    iifname "nic*" meta mark set MARK
    iifname vmap @nics
  }
  chain crossing {
    type filter hook forward priority filter; policy accept;
    oifname SINK counter name no_such_address drop
    iifname "nic*" oifname "net*" FAMILY saddr != @own counter name no_outbound drop
  }
  chain for_services {
    type filter hook input priority filter; policy drop;
    iifname lo accept
    TO_SERVICES
    tcp flags & (syn | ack) != syn accept
  }
  chain from_services {
    type filter hook output priority filter; policy accept;
    FROM_SERVICES
  }
}
"#;

/// What differs between the families: their names, and what the services are asked and may answer. By IPv6 the fabric itself
/// has nothing but the gateway's link-local address.
const IPV4: [(&str, &str); 4] = [
    ("FAMILY", "ip"),
    ("KIND", "ipv4_addr"),
    ("TO_SERVICES", "tcp dport { 53, 80, 32526 } accept\n    udp dport 53 accept"),
    ("FROM_SERVICES", "meta l4proto icmp drop"),
];
const IPV6: [(&str, &str); 4] = [
    ("FAMILY", "ip6"),
    ("KIND", "ipv6_addr"),
    ("TO_SERVICES", "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept"),
    (
        "FROM_SERVICES",
        "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-reply } drop\n    \
         icmpv6 type nd-redirect drop",
    ),
];

/// The reasons to drop that are counted for each NIC.
const REASONS: [&str; 3] = ["broadcast", "not_primary", "foreign_source"];

/// What one NIC's chains depend on.
#[derive(Debug, Clone, Copy)]
pub(in crate::fabric) struct NicRules {
    pub(in crate::fabric) id: NicId,
    pub(in crate::fabric) primary: Ipv4Addr,
    pub(in crate::fabric) own_ipv6: Option<Ipv6Addr>,
    pub(in crate::fabric) ip_forwarding: bool,
}

/// The tables of a fabric without NICs.
pub(super) fn tables(ipv6: bool) -> String {
    let of = |words: [(&str, &str); 4]| {
        words.into_iter().fold(TABLE.to_owned(), |text, (word, meaning)| text.replace(word, meaning))
    };
    let text = if ipv6 { of(IPV4) + &of(IPV6) } else { of(IPV4) };
    text.replace("SINK", SINK).replace("MARK", &MARK.to_string())
}

fn families(ipv6: bool) -> impl Iterator<Item = &'static str> {
    ["ip", "ip6"].into_iter().take(if ipv6 { 2 } else { 1 })
}

pub(super) fn add_nic(rules: &NicRules, ipv6: bool) -> String {
    let nic = rules.id;
    let mut text = String::new();
    for family in families(ipv6) {
        for reason in REASONS {
            let _ = writeln!(text, "add counter {family} fabric {nic}_{reason}");
        }
        let kind = if family == "ip" { "ipv4_addr" } else { "ipv6_addr" };
        let _ = writeln!(text, "add set {family} fabric {nic}_addresses {{ type {kind}; }}");
        let _ = writeln!(text, "add chain {family} fabric {nic}");
    }
    text.push_str(&chains(rules, ipv6));
    for family in families(ipv6) {
        let _ = writeln!(text, "add element {family} fabric nics {{ {nic} : goto {nic} }}");
    }
    text + &own("add", rules)
}

/// `verb` is `add` or `delete`.
fn own(verb: &str, rules: &NicRules) -> String {
    let v6 = rules.own_ipv6.map(|own| format!("{verb} element ip6 fabric own {{ {own} }}\n"));
    format!("{verb} element ip fabric own {{ {} }}\n{}", rules.primary, v6.unwrap_or_default())
}

pub(super) fn change_nic(rules: &NicRules, ipv6: bool) -> String {
    let nic = rules.id;
    let flush: String = families(ipv6).map(|family| format!("flush chain {family} fabric {nic}\n")).collect();
    flush + &chains(rules, ipv6)
}

pub(super) fn remove_nic(rules: &NicRules, ipv6: bool) -> String {
    let nic = rules.id;
    let mut text = own("delete", rules);
    for family in families(ipv6) {
        let _ = write!(
            text,
            "delete element {family} fabric nics {{ {nic} : goto {nic} }}\nflush chain {family} fabric {nic}\n\
             delete chain {family} fabric {nic}\ndelete set {family} fabric {nic}_addresses\n"
        );
        for reason in REASONS {
            let _ = writeln!(text, "delete counter {family} fabric {nic}_{reason}");
        }
    }
    text
}

/// `verb` is `add` or `delete`.
pub(super) fn elements(verb: &str, nic: NicId, addresses: &[IpAddr]) -> String {
    let mut text = String::new();
    for (family, of_family) in [("ip", IpAddr::is_ipv4 as fn(&IpAddr) -> bool), ("ip6", IpAddr::is_ipv6)] {
        let list: Vec<String> = addresses.iter().filter(|address| of_family(address)).map(IpAddr::to_string).collect();
        if !list.is_empty() {
            let _ = writeln!(text, "{verb} element {family} fabric {nic}_addresses {{ {} }}", list.join(", "));
        }
    }
    text
}

/// A NIC's rules. With IP forwarding any source is good, except towards the platform's services.
fn chains(rules: &NicRules, ipv6: bool) -> String {
    let NicRules { id: nic, primary, ip_forwarding, .. } = rules;
    let mut text = format!(
        "add rule ip fabric {nic} meta pkttype != host counter name {nic}_broadcast drop\n\
         add rule ip fabric {nic} ip daddr {{ 224.0.0.0/4, 255.255.255.255 }} counter name {nic}_broadcast drop\n\
         add rule ip fabric {nic} ip daddr {WIRESERVER} ip saddr @{nic}_addresses tcp dport 32768-60999 \
         tcp flags & (syn | ack) != syn accept\n\
         add rule ip fabric {nic} ip daddr {{ {WIRESERVER}, {INSTANCE_METADATA} }} ip saddr != {primary} \
         counter name {nic}_not_primary drop\n"
    );
    if ipv6 {
        // Neighbour discovery ends at the fabric; reports of group membership nobody needs are no offence.
        let discovery = "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }";
        let reports = "icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report }";
        let _ = write!(
            text,
            "add rule ip6 fabric {nic} {discovery} ip6 daddr {{ fe80::/10, ff02::/16 }} accept\n\
             add rule ip6 fabric {nic} {discovery} drop\n\
             add rule ip6 fabric {nic} {reports} drop\n\
             add rule ip6 fabric {nic} meta pkttype != host counter name {nic}_broadcast drop\n\
             add rule ip6 fabric {nic} ip6 daddr ff00::/8 counter name {nic}_broadcast drop\n"
        );
    }
    for family in families(ipv6) {
        if !ip_forwarding {
            let drop = format!("counter name {nic}_foreign_source drop");
            let _ = writeln!(text, "add rule {family} fabric {nic} {family} saddr != @{nic}_addresses {drop}");
        }
        let _ = writeln!(text, "add rule {family} fabric {nic} accept");
    }
    text
}
