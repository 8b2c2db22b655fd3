//! Neighbour discovery (RFC 4861) as bytes: what is read and written. Pure.

use std::net::Ipv6Addr;

use dotfour_datapath::Mac;

use crate::azure::GATEWAY_V6;
use crate::fabric::FABRIC_MAC;
use crate::probe::icmpv6_checksum;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Next header: ICMPv6.
const ICMPV6: u8 = 58;
/// The greatest a default router may have, in seconds.
const ROUTER_LIFETIME: u16 = 9000;
const ETHERNET_HEADER: usize = 14;
const IPV6_HEADER: usize = 40;

/// What a NIC asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) from: Ipv6Addr,
    pub(super) mac: Mac,
    pub(super) about: About,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// Who is the router?
    Router,
    /// Who has this address?
    Address(Ipv6Addr),
}

/// Reads a frame; `None` if it wants no answer. One without a source address is a node's test whether an address of its
/// own is taken, and an answer would make it so; for its own address the gateway is asked by the kernel's hand.
pub(super) fn read(frame: &[u8]) -> Option<Question> {
    let mac = Mac(frame.get(6..12)?.try_into().ok()?);
    let header = frame.get(ETHERNET_HEADER..ETHERNET_HEADER + IPV6_HEADER)?;
    let from = address(header.get(8..24)?)?;
    let message = frame.get(ETHERNET_HEADER + IPV6_HEADER..)?;
    // Only a neighbour's packet still has this hop limit.
    let is_discovery = header.get(6) == Some(&ICMPV6) && header.get(7) == Some(&255);
    let about = match *message.first()? {
        ROUTER_SOLICITATION if is_discovery => About::Router,
        NEIGHBOUR_SOLICITATION if is_discovery && !from.is_unspecified() => {
            About::Address(address(message.get(8..24)?).filter(|target| *target != GATEWAY_V6)?)
        }
        _ => return None,
    };
    Some(Question { from, mac, about })
}

/// The whole frame that answers a question.
pub(super) fn answer(question: &Question) -> Vec<u8> {
    let (source, mut message) = match question.about {
        About::Router => (GATEWAY_V6, router_advertisement()),
        About::Address(target) => (target, neighbour_advertisement(target)),
    };
    let to = if question.from.is_unspecified() { ALL_NODES } else { question.from };
    let sum = icmpv6_checksum(source, to, &message).to_be_bytes();
    message.splice(2..4, sum);
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);

    let mut frame = Vec::with_capacity(ETHERNET_HEADER + IPV6_HEADER + message.len());
    frame.extend(question.mac.0);
    frame.extend(FABRIC_MAC.0);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([ICMPV6, 255]);
    frame.extend(source.octets());
    frame.extend(to.octets());
    frame.extend(message);
    frame
}

/// `ff02::1`.
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A default router, addresses by DHCPv6, no prefix. The checksum is left open: raw sockets fill it in.
pub(crate) fn router_advertisement() -> Vec<u8> {
    const MANAGED: u8 = 0x80;
    let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 64, MANAGED];
    message.extend(ROUTER_LIFETIME.to_be_bytes());
    // How long neighbours count as reachable, and how often they are asked: as the node likes.
    message.extend([0; 8]);
    message.extend(own_mac(1));
    message
}

/// Says that the fabric has the address, without the checksum.
fn neighbour_advertisement(target: Ipv6Addr) -> Vec<u8> {
    const SOLICITED: u8 = 0x40;
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, SOLICITED, 0, 0, 0];
    message.extend(target.octets());
    message.extend(own_mac(2));
    message
}

/// The option that names the fabric's MAC: kind 1 for the source's, 2 for the target's; 1 is its length in 8 octets.
fn own_mac(kind: u8) -> impl Iterator<Item = u8> {
    [kind, 1].into_iter().chain(FABRIC_MAC.0)
}

fn address(bytes: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn solicitation(from: &str, kind: u8, target: Option<&str>) -> Vec<u8> {
        let from: Ipv6Addr = from.parse().unwrap();
        let mut frame = vec![0x33, 0x33, 0, 0, 0, 2, 0, 0x0d, 0x3a, 1, 2, 3, 0x86, 0xdd];
        frame.extend([0x60, 0, 0, 0, 0, 24, ICMPV6, 255]);
        frame.extend(from.octets());
        frame.extend(ALL_NODES.octets());
        frame.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend(target.map(|text| text.parse::<Ipv6Addr>().unwrap().octets()).unwrap_or_default());
        frame
    }

    #[test]
    fn any_address_is_the_fabrics_but_one_that_a_node_tests_for_itself() {
        let question = read(&solicitation("fe80::1", NEIGHBOUR_SOLICITATION, Some("fd00::7"))).unwrap();
        assert_eq!(question.about, About::Address("fd00::7".parse().unwrap()));
        assert_eq!(question.mac, Mac([0, 0x0d, 0x3a, 1, 2, 3]));
        let frame = answer(&question);
        assert_eq!(frame[..12], [0, 0x0d, 0x3a, 1, 2, 3, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
        assert_eq!(frame[54], NEIGHBOUR_ADVERTISEMENT);
        assert_eq!(frame[frame.len() - 6..], FABRIC_MAC.0);
        // The message with its checksum sums up to nothing.
        assert_eq!(icmpv6_checksum("fd00::7".parse().unwrap(), question.from, &frame[54..]), 0);
        assert_eq!(read(&solicitation("::", NEIGHBOUR_SOLICITATION, Some("fd00::7"))), None);
        assert_eq!(read(&solicitation("fe80::1", NEIGHBOUR_SOLICITATION, Some("fe80::1234:5678:9abc"))), None);
    }

    #[test]
    fn a_router_solicitation_is_answered_to_whoever_sent_it() {
        let question = read(&solicitation("fe80::1", ROUTER_SOLICITATION, None)).unwrap();
        let frame = answer(&question);
        assert_eq!(frame[22..38], GATEWAY_V6.octets());
        assert_eq!(frame[38..54], question.from.octets());
        assert_eq!((frame[21], frame[54]), (255, ROUTER_ADVERTISEMENT));
        let unknown = read(&solicitation("::", ROUTER_SOLICITATION, None)).unwrap();
        assert_eq!(answer(&unknown)[38..54], ALL_NODES.octets());
    }

    #[test]
    fn what_came_from_afar_or_is_cut_gets_no_answer() {
        let mut far = solicitation("fe80::1", ROUTER_SOLICITATION, None);
        far[21] = 254;
        assert_eq!(read(&far), None);
        let whole = solicitation("fe80::1", NEIGHBOUR_SOLICITATION, Some("fd00::7"));
        assert!((0..whole.len()).all(|length| read(&whole[..length]).is_none()));
        assert_eq!(read(&solicitation("fe80::1", NEIGHBOUR_ADVERTISEMENT, Some("fd00::7"))), None);
    }
}
