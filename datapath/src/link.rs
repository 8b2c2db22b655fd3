//! Links: veth pairs born in place, changes, deletion, look-up.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rustix::io::Errno;

use crate::attributes::{attributes, number, text};
use crate::batch::Object;
use crate::request::{INET, INET6, Kind, Request};
use crate::{Batch, KernelError, Mac, Socket};

// Attributes and their values, from linux/if_link.h and linux/rtnetlink.h.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_TARGET_NETNSID: u16 = 46;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_EUI64: u8 = 0;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const IFF_UP: u32 = 1;
/// The length of `struct ifinfomsg`, which a link's message begins with.
const HEADER: usize = 16;

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
        let VethPair { near, far, far_netns, mtu } = pair;
        let header = link_header(near.index.unwrap_or_default(), Some(true));
        let mut request = Request::begin(self, step, Kind::NewLink, NLM_F_CREATE | NLM_F_EXCL, &[&header]);
        write_end(&mut request, near, *mtu);
        request.nested(IFLA_LINKINFO, &[], |info| {
            info.text(IFLA_INFO_KIND, "veth");
            info.nested(IFLA_INFO_DATA, &[], |data| {
                data.nested(VETH_INFO_PEER, &[&link_header(far.index.unwrap_or_default(), None)], |peer| {
                    write_end(peer, far, *mtu);
                    if let Some(fd) = far_netns {
                        peer.attribute(IFLA_NET_NS_FD, &fd.as_raw_fd().to_ne_bytes());
                    }
                });
            });
        });
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
        let mut request = link_request(self, step, Kind::SetLink, link, change.up);
        if let Some(name) = change.name {
            request.text(IFLA_IFNAME, name);
        }
        if let Some(alias) = change.alias {
            request.text(IFLA_IFALIAS, alias);
        }
        if let Some(group) = change.group {
            request.number(IFLA_GROUP, group);
        }
        if let Some(master) = change.master {
            request.number(IFLA_MASTER, master);
        }
        if change.ipv4.is_empty() && change.ipv6_link_local.is_none() {
            return;
        }
        request.nested(IFLA_AF_SPEC, &[], |families| {
            if !change.ipv4.is_empty() {
                families.nested(INET, &[], |inet| {
                    inet.nested(IFLA_INET_CONF, &[], |settings| {
                        change.ipv4.iter().for_each(|(setting, value)| settings.number(*setting as u16, *value));
                    });
                });
            }
            if let Some(wanted) = change.ipv6_link_local {
                let mode = if wanted { IN6_ADDR_GEN_MODE_EUI64 } else { IN6_ADDR_GEN_MODE_NONE };
                families.nested(INET6, &[], |inet6| inet6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[mode]));
            }
        });
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
        link_request(self, step, Kind::GetLink, link, None).number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        self.answered_by_object();
    }

    /// [`Batch::get_link`], of a link in another namespace: the one that the socket's own knows by the number `netnsid`. A number
    /// that it does not know is refused with `EINVAL`, a name that is not there with `ENODEV`, a namespace of somebody else's with `EACCES`.
    pub fn get_link_across(&mut self, step: &'static str, netnsid: u32, name: &str) {
        let mut request = link_request(self, step, Kind::GetLink, LinkId::Name(name), None);
        request.number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        request.number(IFLA_TARGET_NETNSID, netnsid);
        drop(request);
        self.answered_by_object();
    }
}

impl Socket {
    /// One link of the socket's namespace, or `None` if there is no such link.
    pub fn link(&mut self, link: LinkId<'_>) -> Result<Option<Link>, KernelError> {
        let mut batch = Batch::new();
        batch.get_link("look up a link", link);
        let mut found = None;
        let outcome = self.exchange(batch, |object| {
            found = found.take().or_else(|| read_link(object));
            Ok(())
        });
        match outcome {
            Err(e) if e.errno() == Some(Errno::NODEV) => Ok(None),
            Err(e) => Err(e),
            Ok(()) => Ok(found),
        }
    }

    /// All links of the socket's namespace. Its cost grows with their number: not for the path of a pod.
    pub fn links(&mut self) -> Result<Vec<Link>, KernelError> {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.dump_objects("list the links", question, |object| Ok(read_link(object)))
    }
}

/// Reads a link out of an object; `None` if the object is about something else.
fn read_link(object: &Object<'_>) -> Option<Link> {
    if object.kind() != Some(Kind::NewLink as u16) {
        return None;
    }
    let (header, rest) = object.payload().split_at_checked(HEADER)?;
    let up = number(header.get(8..12)?)? & IFF_UP != 0;
    let mut link = Link { index: object.link_index()?, up, ..Link::default() };
    for (kind, value) in attributes(rest) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            IFLA_MTU => link.mtu = number(value).unwrap_or_default(),
            IFLA_MASTER => link.master = number(value),
            IFLA_IFALIAS => link.alias = Some(text(value)),
            IFLA_GROUP => link.group = number(value).unwrap_or_default(),
            IFLA_LINKINFO => {
                link.kind = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND).map(|(_, v)| text(v))
            }
            _ => {}
        }
    }
    Some(link)
}

fn write_end(request: &mut Request<'_>, end: &VethEnd<'_>, mtu: u32) {
    request.text(IFLA_IFNAME, end.name);
    if let Some(Mac(mac)) = end.mac {
        request.attribute(IFLA_ADDRESS, &mac);
    }
    request.number(IFLA_MTU, mtu);
    // One queue each way: the default, one per processor, costs 0.2 to 0.3 ms per pair.
    request.number(IFLA_NUM_TX_QUEUES, 1);
    request.number(IFLA_NUM_RX_QUEUES, 1);
}

/// A request about one link, which is to be set up or down, or neither.
fn link_request<'b>(
    batch: &'b mut Batch,
    step: &'static str,
    kind: Kind,
    link: LinkId<'_>,
    up: Option<bool>,
) -> Request<'b> {
    let index = match link {
        LinkId::Index(index) => index,
        LinkId::Name(_) => 0,
    };
    let mut request = Request::begin(batch, step, kind, 0, &[&link_header(index, up)]);
    if let LinkId::Name(name) = link {
        request.text(IFLA_IFNAME, name);
    }
    request
}

/// `struct ifinfomsg`.
fn link_header(index: u32, up: Option<bool>) -> [u8; HEADER] {
    let (flags, change) = match up {
        Some(true) => (IFF_UP, IFF_UP),
        Some(false) => (0, IFF_UP),
        None => (0, 0),
    };
    let mut header = [0; HEADER];
    let (fields, _) = header.as_chunks_mut::<4>();
    // The first four bytes are family and type, neither of which is said.
    for (field, value) in fields.iter_mut().skip(1).zip([index, flags, change]) {
        *field = value.to_ne_bytes();
    }
    header
}

fn address_link(link: LinkId<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    match link {
        LinkId::Index(index) => message.header.index = index,
        LinkId::Name(name) => message.attributes.push(LinkAttribute::IfName(name.to_owned())),
    }
    message
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
}
