//! The names and numbers by which the node's objects are known as Dotfour's. Others rely on them (ARCHITECTURE.md).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dotfour_datapath::Mac;
use dotfour_protocol::{AttachmentKey, PodName};

use crate::pool::PodAddresses;

/// What a pod's host link begins with. Calico finds it so (`FELIX_INTERFACEPREFIX=azv`).
pub const LINK_PREFIX: &str = "azv";

/// The interface whose host link carries the pod's name.
const FIRST_INTERFACE: &str = "eth0";

/// The protocol number of our routes, by which they are told from others' ([`crate::takeover`]).
pub const ROUTE_PROTOCOL: u8 = 44;

/// The priority of the rules in a pod that lead what a further interface's addresses send to that interface's own table:
/// before the main table's, 32766.
pub const RULE_PRIORITY: u32 = 1044;

/// The MAC of every pod's host link, the same as azure-vnet's, so that a pod's gateway never changes its MAC.
pub const HOST_MAC: Mac = Mac([0xaa; 6]);

/// The pod's IPv4 gateway: a link-local address that nobody has; the permanent neighbour entry makes it answer.
pub const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));

/// The pod's IPv6 gateway, likewise: the address that Azure's own IPv6 gateway has.
pub const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x1234, 0x5678, 0x9abc));

/// The gateway that a pod reaches the world by from this address of its.
pub const fn gateway_for(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { GATEWAY } else { GATEWAY_V6 }
}

/// The groups that condemned links are put in, sixteen links or so in each. An unlikely range: deleting a group takes
/// strangers' links as well.
pub const CONDEMNED_GROUPS: std::ops::RangeInclusive<u32> = 0x4444_0000..=0x4444_ffff;

/// What they have in common, in their upper bits: [`CONDEMNED_GROUPS`]' start, and no other group.
pub const CONDEMNED_MASK: u32 = 0xffff_0000;

/// The group of the host links of pods that the guard of the metadata service lets through (`metadata.exemptNamespaces`).
/// Beside the condemned ones, and as unlikely to be anybody else's.
pub const EXEMPT_GROUP: u32 = 0x4445_0000;

/// The group of all other pods' host links. Their packets are known by one number, before anything else is looked at.
pub const POD_GROUP: u32 = 0x4445_0001;

/// The interface indexes of pods' links. The kernel counts up from 1, so nobody else gets here.
pub const LINK_INDICES: std::ops::RangeInclusive<u32> = 0x4000_0000..=0x7fff_fff0;

/// The name of a pod's host link: `azv` and the first 11 hex digits of SHA-1("namespace.pod"), as azure-vnet and Calico
/// compute it. Further interfaces of a pod, and what has no pod name, are named by their key.
pub fn host_link(key: &AttachmentKey, pod: Option<&PodName>) -> String {
    match pod {
        Some(pod) if key.ifname == FIRST_INTERFACE => hashed(&[&pod.namespace, ".", &pod.name]),
        _ => keyed_host_link(key),
    }
}

/// The name of a host link by its attachment's key, for when the pod's name is not to be had.
pub fn keyed_host_link(key: &AttachmentKey) -> String {
    hashed(&[&key.to_string()])
}

/// How many hex digits of a hash are in a host link's name.
const HASH_DIGITS: usize = 11;

/// Named by the hash of a text, which comes in parts.
fn hashed(parts: &[&str]) -> String {
    let mut hash = sha1_smol::Sha1::new();
    parts.iter().for_each(|part| hash.update(part.as_bytes()));
    let digest = hash.digest().bytes();
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 0xf]).take(HASH_DIGITS);
    let mut name = String::with_capacity(LINK_PREFIX.len() + HASH_DIGITS);
    name.push_str(LINK_PREFIX);
    name.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
    name
}

/// The name a condemned link gets when a new pod needs the one it has. The index makes it unique.
pub fn condemned_link(index: u32) -> String {
    format!("azx{index:x}")
}

/// The MAC of a pod's interface, derived from its address (the IPv4 one if it has both), so that an address used again
/// has the MAC that caches know.
pub fn pod_mac(addresses: PodAddresses) -> Mac {
    let [a, b, c, d] = match (addresses.v4, addresses.v6) {
        (Some(v4), _) => v4.octets(),
        (None, Some(v6)) => low_bits(v6),
        (None, None) => [0; 4],
    };
    Mac([0x0a, 0xd4, a, b, c, d])
}

fn low_bits(address: Ipv6Addr) -> [u8; 4] {
    let [.., a, b, c, d] = address.octets();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use dotfour_datapath::link::MAX_NAME;

    fn key(ifname: &str) -> AttachmentKey {
        AttachmentKey { network: "azure".into(), container_id: "c0ffee".into(), ifname: ifname.into() }
    }

    #[test]
    fn the_first_interface_is_named_as_calico_names_it() {
        let pod = PodName { namespace: "default".into(), name: "web-0".into() };
        // printf default.web-0 | sha1sum
        assert_eq!(host_link(&key("eth0"), Some(&pod)), "azv0d7763386da");
        assert_ne!(host_link(&key("eth1"), Some(&pod)), host_link(&key("eth0"), Some(&pod)));
        assert_eq!(host_link(&key("eth0"), None), keyed_host_link(&key("eth0")));
    }

    #[test]
    fn every_name_fits_an_interface() {
        assert!(keyed_host_link(&key("eth0")).len() <= MAX_NAME);
        assert!(condemned_link(*LINK_INDICES.end()).len() <= MAX_NAME);
    }

    #[test]
    fn the_mask_tells_condemned_groups_from_all_others() {
        let (first, last) = (*CONDEMNED_GROUPS.start(), *CONDEMNED_GROUPS.end());
        assert_eq!((first, last), (first & CONDEMNED_MASK, first | !CONDEMNED_MASK));
        assert!([EXEMPT_GROUP, POD_GROUP].iter().all(|group| group & CONDEMNED_MASK != first));
    }

    #[test]
    fn a_pod_s_mac_is_unicast_local_and_follows_its_address() {
        let mac = pod_mac("10.240.0.5".parse::<IpAddr>().unwrap().into());
        assert_eq!(mac.to_string(), "0a:d4:0a:f0:00:05");
        assert_eq!(mac.0[0] & 0b11, 0b10);
    }
}
