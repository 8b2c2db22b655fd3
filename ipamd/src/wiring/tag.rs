//! The alias of a pod's host link: the record that lives exactly as long as the wiring it describes.
//!
//! After a restart the daemon reads it back; nothing else is needed to know which address is whose.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use dotfour_datapath::link::MAX_ALIAS;
use dotfour_protocol::AttachmentKey;
use dotfour_protocol::plain::Writer;

use crate::pool::PodAddresses;

/// The first word, with the version of what follows.
const MAGIC: &str = "dotfour/1";

/// What a host link's alias says: `dotfour/1 IFNAME ADDRESS[,ADDRESS] NETWORK CONTAINER-ID`. None of the words has a space
/// in it, by the CNI specification's rules for them, which the plugin enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Whose link it is.
    pub key: Arc<AttachmentKey>,
    /// The pod's addresses.
    pub addresses: PodAddresses,
}

/// The alias is not a tag of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotATag;

impl Tag {
    /// The alias's text; `None` if the key is longer than the kernel's alias.
    pub fn to_alias(&self) -> Option<String> {
        let alias = self.text();
        (alias.len() <= MAX_ALIAS).then_some(alias)
    }

    fn text(&self) -> String {
        let AttachmentKey { network, container_id, ifname } = &*self.key;
        let mut alias = Writer::default();
        alias.reserve(MAX_ALIAS);
        for word in [MAGIC, " ", ifname, " "] {
            alias.raw(word);
        }
        for (place, address) in self.addresses.iter().enumerate() {
            alias.raw(if place == 0 { "" } else { "," });
            alias.address(address);
        }
        for word in [" ", network, " ", container_id] {
            alias.raw(word);
        }
        // Put together of nothing but texts.
        String::from_utf8(alias.into_bytes()).unwrap_or_default()
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl FromStr for Tag {
    type Err = NotATag;

    fn from_str(alias: &str) -> Result<Self, NotATag> {
        let words: Vec<&str> = alias.split(' ').collect();
        let [MAGIC, ifname, addresses, network, container_id] = words[..] else { return Err(NotATag) };
        if [ifname, network, container_id].contains(&"") {
            return Err(NotATag);
        }
        let key = AttachmentKey { network: network.into(), container_id: container_id.into(), ifname: ifname.into() };
        let addresses: Vec<IpAddr> =
            addresses.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| NotATag)?;
        let tag = Tag { key: Arc::new(key), addresses: addresses.iter().copied().collect() };
        // Two of one family are nothing that was ever written.
        if tag.addresses.iter().eq(addresses) { Ok(tag) } else { Err(NotATag) }
    }
}

/// Whether an alias was written by Dotfour, be it a version whose words this one cannot read.
pub fn is_ours(alias: &str) -> bool {
    alias.starts_with("dotfour/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(network: &str) -> Tag {
        Tag {
            key: Arc::new(AttachmentKey {
                network: network.into(),
                container_id: "f".repeat(64),
                ifname: "eth0".into(),
            }),
            addresses: "10.240.0.5".parse::<IpAddr>().unwrap().into(),
        }
    }

    #[test]
    fn both_families_are_read_back() {
        let mut tag = tag("azure");
        tag.addresses = tag.addresses.with("fd00::5".parse().unwrap());
        let alias = tag.to_alias().unwrap();
        assert!(alias.contains(" 10.240.0.5,fd00::5 "), "{alias}");
        assert_eq!(alias.parse(), Ok(tag));
    }

    #[test]
    fn a_tag_is_read_back_from_its_alias() {
        let alias = tag("azure").to_alias().unwrap();
        assert!(is_ours(&alias));
        assert_eq!(alias.parse(), Ok(tag("azure")));
    }

    #[test]
    fn a_key_longer_than_an_alias_is_refused_and_not_cut() {
        assert_eq!(tag(&"n".repeat(200)).to_alias(), None);
    }

    #[test]
    fn strangers_aliases_are_no_tags() {
        for alias in [
            "",
            "uplink",
            "dotfour/1",
            "dotfour/1 eth0 10.240.0.5 azure",
            "dotfour/1 eth0 ten azure c0ffee",
            "dotfour/1 eth0 10.240.0.5  c0ffee",
            "dotfour/2 eth0 10.240.0.5 azure c0ffee",
            "dotfour/1 eth0 10.240.0.5 a b c",
            "dotfour/1 eth0 10.240.0.5,10.240.0.6 azure c0ffee",
            "dotfour/1 eth0 10.240.0.5, azure c0ffee",
        ] {
            assert_eq!(alias.parse::<Tag>(), Err(NotATag), "{alias:?}");
        }
    }
}
