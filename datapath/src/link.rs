//! Links: veth pairs born in place, changes, deletion, look-up.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkInfo, LinkMessage,
};
use rustix::io::Errno;

use crate::{Batch, KernelError, Mac, Socket};

/// The kernel's limit for an interface name, in bytes (IFNAMSIZ without the final zero).
pub const MAX_NAME: usize = 15;
/// The kernel's limit for an alias, in bytes (IFALIASZ without the final zero and the kernel's own spare byte).
pub const MAX_ALIAS: usize = 254;

/// One end of a new veth pair. It is born in its namespace with its final name and MAC: a link that is moved or renamed
/// afterwards waits for the kernel's grace periods, and udev gets a chance to touch it.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// Interface name, at most [`MAX_NAME`] bytes.
    pub name: &'a str,
    /// MAC address; the kernel draws one where none is given.
    pub mac: Option<Mac>,
    /// Interface index; the kernel chooses where none is given. Honoured for the far end only if given for the near
    /// end too.
    pub index: Option<u32>,
}

/// A veth pair to be made.
#[derive(Debug)]
pub struct VethPair<'a> {
    /// The end in the socket's own namespace. It is set up as it is made.
    pub near: VethEnd<'a>,
    /// The end in `far_netns`. It is down: the kernel refuses to make a far end that is up.
    pub far: VethEnd<'a>,
    /// Where the far end is born; the socket's own namespace where none is given.
    pub far_netns: Option<BorrowedFd<'a>>,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
}

/// A per-link IPv4 setting, as in `/proc/sys/net/ipv4/conf/LINK/`; the numbers are `IPV4_DEVCONF_*` of linux/ip.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Ipv4Setting {
    /// `proxy_arp`.
    ProxyArp = 3,
    /// `rp_filter`.
    RpFilter = 8,
    /// `proxy_arp_pvlan`.
    ProxyArpPvlan = 25,
}

/// Changes to a link; what is `None` or empty stays as it is.
#[derive(Debug, Default)]
pub struct LinkChange<'a> {
    /// Set up (`true`) or down (`false`).
    pub up: Option<bool>,
    /// New name.
    pub name: Option<&'a str>,
    /// New alias, at most [`MAX_ALIAS`] bytes.
    pub alias: Option<&'a str>,
    /// New group.
    pub group: Option<u32>,
    /// Index of a new master; 0 takes the link out of the one it has.
    pub master: Option<u32>,
    /// IPv4 settings of the link.
    pub ipv4: &'a [(Ipv4Setting, u32)],
    /// Whether the kernel gives the link an IPv6 address of its own when it comes up (`addr_gen_mode`).
    pub ipv6_link_local: Option<bool>,
}

/// Which link is meant.
#[derive(Debug, Clone, Copy)]
pub enum LinkId<'a> {
    /// By interface index.
    Index(u32),
    /// By name.
    Name(&'a str),
}

/// A link as the kernel describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// MAC address; absent on links without one, such as tunnels.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Index of the master (bridge, bond, or the synthetic NIC above an accelerated-networking VF), if any.
    pub master: Option<u32>,
    /// Alias, if any.
    pub alias: Option<String>,
    /// Group; 0 is the default one.
    pub group: u32,
    /// Kind, such as `veth`; absent on hardware.
    pub kind: Option<String>,
}

impl Batch {
    /// Makes a veth pair. A taken name or index on either side is refused with `EEXIST`, and the kernel does not say
    /// which.
    pub fn create_veth(&mut self, step: &'static str, pair: &VethPair<'_>) {
        let mut far = end_message(&pair.far, pair.mtu);
        far.attributes.extend(pair.far_netns.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
        let mut near = end_message(&pair.near, pair.mtu);
        near.header.flags = LinkFlags::Up;
        near.header.change_mask = LinkFlags::Up;
        near.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
        ]));
        self.push(step, RouteNetlinkMessage::NewLink(near), NLM_F_CREATE | NLM_F_EXCL);
    }

    /// Makes a bridge, set up. Its MAC address is the one given and not, as the kernel's default is, whichever is lowest
    /// among its ports. A taken name is refused with `EEXIST`.
    pub fn create_bridge(&mut self, step: &'static str, name: &str, mac: Mac) {
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.push(step, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);
    }

    /// Changes a link in place. A link that is not there is refused with `ENODEV`.
    pub fn change_link(&mut self, step: &'static str, link: LinkId<'_>, change: &LinkChange<'_>) {
        let mut message = address_link(link);
        if let Some(up) = change.up {
            message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
            message.header.change_mask = LinkFlags::Up;
        }
        message.attributes.extend(change.name.map(|name| LinkAttribute::IfName(name.to_owned())));
        message.attributes.extend(change.alias.map(|alias| LinkAttribute::IfAlias(alias.to_owned())));
        message.attributes.extend(change.group.map(LinkAttribute::Group));
        message.attributes.extend(change.master.map(LinkAttribute::Controller));
        let mut families = Vec::new();
        if !change.ipv4.is_empty() {
            families.push(AfSpecUnspec::Inet(vec![ipv4(change.ipv4)]));
        }
        families.extend(change.ipv6_link_local.map(|wanted| {
            let mode = if wanted { In6AddrGenMode::Eui64 } else { In6AddrGenMode::None };
            AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode)])
        }));
        if !families.is_empty() {
            message.attributes.push(LinkAttribute::AfSpecUnspec(families));
        }
        self.push(step, RouteNetlinkMessage::SetLink(message), 0);
    }

    /// Deletes a link, and with a veth its other end. The caller waits some 20 ms for a grace period of the kernel's.
    pub fn delete_link(&mut self, step: &'static str, link: LinkId<'_>) {
        self.push(step, RouteNetlinkMessage::DelLink(address_link(link)), 0);
    }

    /// Deletes all links of a group in one grace period. The default group, 0, cannot be named here by mistake: it is
    /// ignored. An empty group is refused with `ENODEV`.
    pub fn delete_group(&mut self, step: &'static str, group: u32) {
        if group == 0 {
            return;
        }
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(group));
        self.push(step, RouteNetlinkMessage::DelLink(message), 0);
    }
}

impl Batch {
    /// Asks for one link. The kernel looks at the link's carrier on the way, which it otherwise does a moment after it has
    /// changed. To be the last request of a batch.
    pub fn get_link(&mut self, step: &'static str, link: LinkId<'_>) {
        let mut message = address_link(link);
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.push_question(step, RouteNetlinkMessage::GetLink(message));
    }
}

impl Socket {
    /// One link of the socket's namespace, or `None` if there is no such link.
    pub fn link(&mut self, link: LinkId<'_>) -> Result<Option<Link>, KernelError> {
        let mut batch = Batch::new();
        batch.get_link("look up a link", link);
        let mut found = None;
        match self.exchange(batch, |object| found = found.take().or_else(|| read_link(object))) {
            Err(e) if e.errno() == Some(Errno::NODEV) => Ok(None),
            Err(e) => Err(e),
            Ok(()) => Ok(found),
        }
    }

    /// All links of the socket's namespace. Its cost grows with their number: not for the path of a pod.
    pub fn links(&mut self) -> Result<Vec<Link>, KernelError> {
        self.dump("list the links", RouteNetlinkMessage::GetLink(LinkMessage::default()), read_link)
    }
}

/// Reads a link out of a netlink message; `None` if the message is about something else.
pub fn read_link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link =
        Link { index: message.header.index, up: message.header.flags.contains(LinkFlags::Up), ..Link::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Group(group) => link.group = group,
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(link)
}

fn end_message(end: &VethEnd<'_>, mtu: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = end.index.unwrap_or_default();
    message.attributes.push(LinkAttribute::IfName(end.name.to_owned()));
    message.attributes.extend(end.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.push(LinkAttribute::Mtu(mtu));
    // One queue each way: the default, one per processor, costs 0.2 to 0.3 ms per pair.
    message.attributes.push(LinkAttribute::NumTxQueues(1));
    message.attributes.push(LinkAttribute::NumRxQueues(1));
    message
}

fn address_link(link: LinkId<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    match link {
        LinkId::Index(index) => message.header.index = index,
        LinkId::Name(name) => message.attributes.push(LinkAttribute::IfName(name.to_owned())),
    }
    message
}

/// The settings as `IFLA_INET_CONF`. The crate's own type leaves out zeros, so that a setting could never be cleared.
fn ipv4(settings: &[(Ipv4Setting, u32)]) -> AfSpecInet {
    const IFLA_INET_CONF: u16 = 1;
    const NLA_HEADER_AND_U32: u16 = 8;
    let mut value = Vec::with_capacity(settings.len() * usize::from(NLA_HEADER_AND_U32));
    for (setting, number) in settings {
        value.extend(NLA_HEADER_AND_U32.to_ne_bytes());
        value.extend((*setting as u16).to_ne_bytes());
        value.extend(number.to_ne_bytes());
    }
    AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_zero_is_never_deleted() {
        let mut batch = Batch::new();
        batch.delete_group("bury", 0);
        assert!(batch.is_empty());
    }

    #[test]
    fn a_cleared_setting_is_in_the_message() {
        let AfSpecInet::Other(nla) = ipv4(&[(Ipv4Setting::RpFilter, 0), (Ipv4Setting::ProxyArp, 1)]) else {
            panic!("not the raw form");
        };
        let mut value = vec![0; netlink_packet_core::Nla::value_len(&nla)];
        netlink_packet_core::Nla::emit_value(&nla, &mut value);
        assert_eq!(value.len(), 16);
        assert_eq!(value[2..8], [8, 0, 0, 0, 0, 0]);
        assert_eq!(value[10..16], [3, 0, 1, 0, 0, 0]);
    }
}
