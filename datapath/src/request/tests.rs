//! The bytes are those of netlink-packet-route's own messages.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use proptest::option;
use proptest::prelude::*;

use crate::address::PrefixRoute;
use crate::link::{Ipv4Setting, LinkChange, LinkId, MAX_ALIAS, MAX_NAME, VethEnd, VethPair};
use crate::route::{IfPresent, Route};
use crate::{Batch, Mac};

const STEP: &str = "a step";

/// Whether a batch holds exactly this message.
fn is(message: RouteNetlinkMessage, flags: u16, write: impl FnOnce(&mut Batch)) {
    let (mut expected, mut written) = (Batch::new(), Batch::new());
    expected.push(STEP, message, flags);
    write(&mut written);
    assert_eq!(written.len(), 1);
    assert_eq!(numbered(written).bytes, numbered(expected).bytes);
}

fn numbered(mut batch: Batch) -> Batch {
    batch.number(7);
    batch
}

fn name() -> impl Strategy<Value = String> {
    prop::string::string_regex(&format!("[a-z0-9]{{1,{MAX_NAME}}}")).unwrap()
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn net() -> impl Strategy<Value = IpNet> {
    (address(), any::<u8>()).prop_map(|(address, length)| {
        let longest = IpNet::from(address).prefix_len();
        IpNet::new(address, length % (longest + 1)).unwrap()
    })
}

fn route() -> impl Strategy<Value = Route> {
    (net(), option::of(address()), any::<u32>(), option::of(address()), any::<u8>()).prop_map(
        |(destination, gateway, link, preferred_source, protocol)| Route {
            destination,
            gateway,
            link,
            preferred_source,
            protocol,
        },
    )
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn typed_end(name: &str, mac: Option<Mac>, index: Option<u32>, mtu: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index.unwrap_or_default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message.attributes.push(LinkAttribute::NumTxQueues(1));
    message.attributes.push(LinkAttribute::NumRxQueues(1));
    message
}

fn typed_route(route: &Route) -> RouteMessage {
    let ip = |address| match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    };
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.destination.addr());
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.kind = RouteType::Unicast;
    message.header.scope = if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    message.attributes.push(RouteAttribute::Destination(ip(route.destination.addr())));
    message.attributes.push(RouteAttribute::Oif(route.link));
    message.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(ip(gateway))));
    message.attributes.extend(route.preferred_source.map(|source| RouteAttribute::PrefSource(ip(source))));
    message
}

proptest! {
    #[test]
    fn a_pair_is_made_as_the_crate_would_have_it(
        names in [name(), name()],
        macs in [option::of(any::<[u8; 6]>()), option::of(any::<[u8; 6]>())],
        indices in [option::of(any::<u32>()), option::of(any::<u32>())],
        mtu: u32,
        elsewhere: bool,
    ) {
        let somewhere = std::io::stdin();
        let far_netns = elsewhere.then(|| somewhere.as_fd());
        let [near, far] = [0, 1].map(|i| VethEnd { name: &names[i], mac: macs[i].map(Mac), index: indices[i] });
        let mut peer = typed_end(&names[1], far.mac, far.index, mtu);
        peer.attributes.extend(far_netns.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
        let mut message = typed_end(&names[0], near.mac, near.index, mtu);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        is(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, |batch| {
            batch.create_veth(STEP, &VethPair { near, far, far_netns, mtu });
        });
    }

    #[test]
    fn a_link_is_changed_as_the_crate_would_have_it(
        link in prop_oneof![any::<u32>().prop_map(Ok), name().prop_map(Err)],
        up: Option<bool>,
        name in option::of(name()),
        alias in option::of(prop::string::string_regex(&format!("[ -~]{{0,{MAX_ALIAS}}}")).unwrap()),
        group: Option<u32>,
        master: Option<u32>,
        settings in prop::collection::vec((any::<bool>(), any::<u32>()), 0..3),
        ipv6_link_local: Option<bool>,
    ) {
        let ipv4: Vec<_> = settings
            .iter()
            .map(|(arp, value)| (if *arp { Ipv4Setting::ProxyArp } else { Ipv4Setting::RpFilter }, *value))
            .collect();
        let mut message = LinkMessage::default();
        let id = match &link {
            Ok(index) => {
                message.header.index = *index;
                LinkId::Index(*index)
            }
            Err(name) => {
                message.attributes.push(LinkAttribute::IfName(name.clone()));
                LinkId::Name(name)
            }
        };
        if let Some(up) = up {
            message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
            message.header.change_mask = LinkFlags::Up;
        }
        message.attributes.extend(name.clone().map(LinkAttribute::IfName));
        message.attributes.extend(alias.clone().map(LinkAttribute::IfAlias));
        message.attributes.extend(group.map(LinkAttribute::Group));
        message.attributes.extend(master.map(LinkAttribute::Controller));
        let mut families = Vec::new();
        if !ipv4.is_empty() {
            // The crate's own type leaves out zeros, so that a setting could never be cleared.
            let value = ipv4.iter().flat_map(|(setting, value)| {
                [&8_u16.to_ne_bytes()[..], &(*setting as u16).to_ne_bytes(), &value.to_ne_bytes()].concat()
            });
            families.push(AfSpecUnspec::Inet(vec![AfSpecInet::Other(DefaultNla::new(1, value.collect()))]));
        }
        families.extend(ipv6_link_local.map(|wanted| {
            let mode = if wanted { In6AddrGenMode::Eui64 } else { In6AddrGenMode::None };
            AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode)])
        }));
        if !families.is_empty() {
            message.attributes.push(LinkAttribute::AfSpecUnspec(families));
        }
        let change =
            LinkChange { up, name: name.as_deref(), alias: alias.as_deref(), group, master, ipv4: &ipv4, ipv6_link_local };
        is(RouteNetlinkMessage::SetLink(message), 0, |batch| batch.change_link(STEP, id, &change));
    }

    #[test]
    fn an_address_is_given_as_the_crate_would_have_it(link: u32, address in net(), omit: bool) {
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.index = link;
        message.header.scope = AddressScope::Universe;
        message.attributes.push(AddressAttribute::Address(address.addr()));
        message.attributes.push(AddressAttribute::Local(address.addr()));
        let prefix_route = if omit { PrefixRoute::Omit } else { PrefixRoute::Add };
        let mut flags = if omit { AddressFlags::Noprefixroute } else { AddressFlags::empty() };
        flags.set(AddressFlags::Nodad, address.addr().is_ipv6());
        message.attributes.push(AddressAttribute::Flags(flags));
        is(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL, |batch| {
            batch.add_address(STEP, link, address, prefix_route);
        });
    }

    #[test]
    fn a_route_is_added_and_deleted_as_the_crate_would_have_it(route in route(), table: u32) {
        is(RouteNetlinkMessage::NewRoute(typed_route(&route)), NLM_F_CREATE | NLM_F_EXCL, |batch| {
            batch.add_route(STEP, &route, IfPresent::Refuse);
        });
        is(RouteNetlinkMessage::NewRoute(typed_route(&route)), NLM_F_CREATE | NLM_F_REPLACE, |batch| {
            batch.add_route(STEP, &route, IfPresent::Replace);
        });
        is(RouteNetlinkMessage::DelRoute(typed_route(&route)), 0, |batch| batch.delete_route(STEP, &route));
        let mut message = typed_route(&route);
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.attributes.push(RouteAttribute::Table(table));
        is(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL, |batch| {
            batch.add_route_to_table(STEP, &route, table);
        });
    }

    #[test]
    fn an_address_is_made_local_as_the_crate_would_have_it(link: u32, address in address()) {
        let route = Route { destination: address.into(), gateway: None, link, preferred_source: None, protocol: 0 };
        let mut message = typed_route(&route);
        message.header.table = 255;
        message.header.protocol = RouteProtocol::Kernel;
        message.header.kind = RouteType::Local;
        message.header.scope = RouteScope::Host;
        is(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL, |batch| {
            batch.add_local_route(STEP, link, address);
        });
    }

    #[test]
    fn a_link_s_multicast_route_is_deleted_as_the_crate_would_have_it(link: u32) {
        let destination = "ff00::/8".parse().unwrap();
        let route = Route { destination, gateway: None, link, preferred_source: None, protocol: 0 };
        let mut message = typed_route(&route);
        message.header.table = 255;
        message.header.protocol = RouteProtocol::Kernel;
        message.header.kind = RouteType::Multicast;
        message.header.scope = RouteScope::Universe;
        is(RouteNetlinkMessage::DelRoute(message), 0, |batch| batch.delete_multicast_route(STEP, link));
    }

    #[test]
    fn a_neighbour_is_set_as_the_crate_would_have_it(link: u32, address in address(), mac: [u8; 6]) {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = link;
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        }));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        is(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE, |batch| {
            batch.set_neighbour(STEP, link, address, Mac(mac));
        });
    }
}

#[test]
fn a_link_is_asked_for_as_the_crate_would_have_it() {
    for id in [LinkId::Index(7), LinkId::Name("eth0")] {
        let mut message = LinkMessage::default();
        match id {
            LinkId::Index(index) => message.header.index = index,
            LinkId::Name(name) => message.attributes.push(LinkAttribute::IfName(name.to_owned())),
        }
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut expected = Batch::new();
        expected.push(STEP, RouteNetlinkMessage::GetLink(message), 0);
        expected.answered_by_object();
        let mut written = Batch::new();
        written.get_link(STEP, id);
        assert_eq!(numbered(written).bytes, numbered(expected).bytes);
    }
}

#[test]
fn a_link_of_another_namespace_is_asked_for_as_the_crate_would_have_it() {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName("azv1".to_owned()));
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message.attributes.push(LinkAttribute::IfNetnsId(3));
    let mut expected = Batch::new();
    expected.push(STEP, RouteNetlinkMessage::GetLink(message), 0);
    expected.answered_by_object();
    let mut written = Batch::new();
    written.get_link_across(STEP, 3, "azv1");
    assert_eq!(numbered(written).bytes, numbered(expected).bytes);
}

#[test]
fn requests_behind_one_another_are_each_as_long_as_they_say() {
    let mut batch = Batch::new();
    batch.get_link(STEP, LinkId::Name("eth0"));
    batch.set_neighbour(STEP, 3, [10, 0, 0, 1].into(), Mac([1; 6]));
    batch.delete_link(STEP, LinkId::Index(3));
    let Batch { bytes, steps } = numbered(batch);
    let (mut rest, mut count) = (&bytes[..], 0);
    while let Some((length, _)) = rest.split_first_chunk::<4>() {
        rest = &rest[usize::try_from(u32::from_ne_bytes(*length)).unwrap()..];
        count += 1;
    }
    assert_eq!(count, steps.len());
}
