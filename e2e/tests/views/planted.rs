//! Faults planted in the kernel and on the NIC.

use std::net::{IpAddr, Ipv4Addr};

use dotfour_datapath::Mac;
use dotfour_datapath::address::PrefixRoute;
use dotfour_datapath::link::{Link, LinkChange, LinkId, VethEnd, VethPair};
use dotfour_datapath::route::{IfPresent, Route};
use dotfour_ipamd::wiring::names::{CONDEMNED_GROUPS, ROUTE_PROTOCOL};

use crate::stage::{Outcome, Stage, StagePod, plant_in, sorted};

fn host_route(address: Ipv4Addr, link: &Link) -> Route {
    let destination = IpAddr::V4(address).into();
    Route { destination, gateway: None, link: link.index, preferred_source: None, protocol: ROUTE_PROTOCOL }
}

fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x0a, 0xd4, a, b, c, d])
}

pub(crate) fn a_missing_host_route_is_found(stage: &Stage) -> Outcome {
    let StagePod { address, link, .. } = &stage.pods[1];
    stage.plant(|batch| batch.delete_route("", &host_route(*address, link)))?;
    stage.now_finds(&[format!("{address} has no host route to its link {}", link.name)])
}

pub(crate) fn a_host_route_to_nobody_is_found(stage: &Stage) -> Outcome {
    let stray = host_route("10.240.0.14".parse()?, &stage.pods[0].link);
    stage.plant(|batch| batch.add_route("", &stray, IfPresent::Refuse))?;
    stage.now_finds(&["the host route to 10.240.0.14/32 leads to no live link of it".to_owned()])
}

pub(crate) fn a_missing_neighbour_entry_is_found(stage: &Stage) -> Outcome {
    let StagePod { address, link, .. } = &stage.pods[2];
    let missing = [format!("{address} has no permanent neighbour entry with {} on {}", mac_of(*address), link.name)];
    stage.plant(|batch| batch.delete_neighbour("", link.index, IpAddr::V4(*address)))?;
    stage.now_finds(&missing)?;
    stage.plant(|batch| batch.set_neighbour("", link.index, IpAddr::V4(*address), Mac([2; 6])))?;
    stage.now_finds(&missing)
}

pub(crate) fn a_link_that_is_down_is_found(stage: &Stage) -> Outcome {
    let StagePod { address, link, who, .. } = &stage.pods[0];
    let down = LinkChange { up: Some(false), ..LinkChange::default() };
    stage.plant(|batch| batch.change_link("", LinkId::Index(link.index), &down))?;
    // The kernel takes route and neighbour along.
    stage.now_finds(&[
        format!("link {} of azure/{who}/eth0 is down", link.name),
        format!("{address} has no host route to its link {}", link.name),
        format!("{address} has no permanent neighbour entry with {} on {}", mac_of(*address), link.name),
    ])
}

pub(crate) fn a_lease_without_a_link_is_found(stage: &Stage) -> Outcome {
    let StagePod { address, link, who, .. } = &stage.pods[0];
    stage.plant(|batch| batch.delete_link("", LinkId::Index(link.index)))?;
    stage.now_finds(&[
        format!("azure/{who}/eth0 has a lease of {address} and no link"),
        format!("pod {who} was given {address}, and has no link on the node"),
    ])
}

pub(crate) fn a_second_link_with_an_address_is_found(stage: &Stage) -> Outcome {
    let StagePod { address, link, who, .. } = &stage.pods[1];
    let alias = format!("dotfour/1 eth0 {address} azure 0123456789abcdef");
    second_link(stage, "azvsecond", &LinkChange { alias: Some(&alias), ..LinkChange::default() })?;
    stage.now_finds(&[
        format!("{address} is on two links, {}", sorted([&link.name, "azvsecond"])),
        "link azvsecond of azure/0123456789ab/eth0 has no lease".to_owned(),
        "link azvsecond is of azure/0123456789ab/eth0, which no runtime knows".to_owned(),
        format!("{address} has no host route to its link azvsecond"),
        format!("{address} has no permanent neighbour entry with {} on azvsecond", mac_of(*address)),
    ])?;

    // The same key on both is a fault of its own.
    let alias = link.alias.clone().unwrap_or_default();
    let change = LinkChange { alias: Some(&alias), ..LinkChange::default() };
    stage.plant(|batch| batch.change_link("", LinkId::Name("azvsecond"), &change))?;
    stage.now_finds(&[
        format!("{address} is on two links, {}", sorted([&link.name, "azvsecond"])),
        format!("azure/{who}/eth0 has several links, {}", sorted([&link.name, "azvsecond"])),
        format!("{address} has no host route to its link azvsecond"),
        format!("{address} has no permanent neighbour entry with {} on azvsecond", mac_of(*address)),
    ])
}

/// Makes a link that is nobody's, up, with its other end beside it.
fn second_link(stage: &Stage, name: &str, change: &LinkChange<'_>) -> Outcome {
    let near = VethEnd { name, mac: None, index: None };
    let far = VethEnd { name: "far", mac: None, index: None };
    stage.plant(|batch| {
        batch.create_veth("", &VethPair { near, far, far_netns: None, mtu: 1500 });
        batch.change_link("", LinkId::Name(name), change);
    })
}

pub(crate) fn a_link_without_an_alias_is_found(stage: &Stage) -> Outcome {
    let StagePod { address, link, who, .. } = &stage.pods[0];
    let change = LinkChange { alias: Some("dotfour/9 of the future"), ..LinkChange::default() };
    stage.plant(|batch| batch.change_link("", LinkId::Index(link.index), &change))?;
    stage.now_finds(&[
        format!("link {} looks like a pod's and has no alias that can be read", link.name),
        format!("azure/{who}/eth0 has a lease of {address} and no link"),
        format!("pod {who} was given {address}, and has no link on the node"),
        format!("the host route to {address}/32 leads to no live link of it"),
    ])
}

pub(crate) fn a_link_by_another_name_than_the_daemon_s_is_found(stage: &Stage) -> Outcome {
    let StagePod { link, who, .. } = &stage.pods[0];
    let change = LinkChange { name: Some("azvother"), ..LinkChange::default() };
    stage.plant(|batch| batch.change_link("", LinkId::Index(link.index), &change))?;
    stage.now_finds(&[format!("the daemon calls the link of azure/{who}/eth0 {}, the kernel azvother", link.name)])
}

pub(crate) fn a_condemned_link_that_has_its_route_is_found(stage: &Stage) -> Outcome {
    let alias = "dotfour/1 eth0 10.240.0.14 azure 0123456789abcdef";
    let group = Some(*CONDEMNED_GROUPS.start());
    let change = LinkChange { alias: Some(alias), group, up: Some(true), ..LinkChange::default() };
    second_link(stage, "azvdead", &change)?;
    stage.now_finds(&[])?;
    let dead = stage.node.links()?.into_iter().find(|link| link.name == "azvdead").ok_or("no azvdead")?;
    let dead = host_route("10.240.0.14".parse()?, &dead);
    stage.plant(|batch| batch.add_route("", &dead, IfPresent::Refuse))?;
    stage.now_finds(&["the host route to 10.240.0.14/32 leads to no live link of it".to_owned()])
}

pub(crate) fn another_address_inside_a_pod_is_found(stage: &Stage) -> Outcome {
    let StagePod { pod, address, link, who } = &stage.pods[0];
    plant_in(pod.netns(), |batch| {
        batch.delete_address("", link.index, IpAddr::V4(*address).into());
        batch.add_address("", link.index, "10.240.0.14/32".parse().unwrap_or_default(), PrefixRoute::Omit);
    })?;
    stage.now_finds(&[format!("pod {who} was given {address}, and has 10.240.0.14 inside")])
}

pub(crate) fn a_second_address_inside_a_pod_is_found(stage: &Stage) -> Outcome {
    let [one, other, _] = &stage.pods;
    plant_in(one.pod.netns(), |batch| {
        batch.add_address("", one.link.index, IpAddr::V4(other.address).into(), PrefixRoute::Omit);
        batch.add_address("", one.link.index, "192.0.2.1/32".parse().unwrap_or_default(), PrefixRoute::Omit);
    })?;
    stage.now_finds(&[
        format!(
            "pod {} was given {}, and has {},{},192.0.2.1 inside",
            one.who, one.address, one.address, other.address
        ),
        format!("{} is inside two pods, {}", other.address, sorted([&one.who, &other.who])),
        format!("192.0.2.1 is inside pod {}, and is no secondary address of the NIC", one.who),
    ])
}

pub(crate) fn an_interface_by_another_name_is_found(stage: &Stage) -> Outcome {
    let StagePod { pod, address, link, who } = &stage.pods[0];
    let change = LinkChange { name: Some("eth9"), ..LinkChange::default() };
    plant_in(pod.netns(), |batch| batch.change_link("", LinkId::Index(link.index), &change))?;
    stage.now_finds(&[format!("pod {who} was given {address}, and has no interface")])?;

    // Something else by the interface's name is not the pod's.
    let near = VethEnd { name: "eth0", mac: None, index: None };
    let far = VethEnd { name: "far", mac: None, index: None };
    plant_in(pod.netns(), |batch| batch.create_veth("", &VethPair { near, far, far_netns: None, mtu: 1500 }))?;
    stage.now_finds(&[
        format!("pod {who}'s interface is not the other end of {}", link.name),
        format!("pod {who} was given {address}, and has nothing inside"),
    ])
}

pub(crate) fn an_address_that_left_the_nic_is_found(stage: &Stage) -> Outcome {
    let StagePod { address, link, who, .. } = &stage.pods[2];
    stage.vnet.detach(&stage.node, &[*address])?;
    stage.now_finds(&[
        format!("{address} is leased to azure/{who}/eth0, and is no secondary address of the NIC"),
        format!("{address} is on link {}, and is no secondary address of the NIC", link.name),
        format!("{address} is inside pod {who}, and is no secondary address of the NIC"),
        "the pool has 10 addresses, and the NIC 9 secondary ones".to_owned(),
    ])
}

pub(crate) fn an_alias_with_another_address_than_the_lease_is_found(stage: &Stage) -> Outcome {
    let StagePod { pod, address, link, who } = &stage.pods[0];
    let alias = format!("dotfour/1 eth0 10.240.0.14 azure {}", pod.container_id);
    let change = LinkChange { alias: Some(&alias), ..LinkChange::default() };
    stage.plant(|batch| batch.change_link("", LinkId::Index(link.index), &change))?;
    stage.now_finds(&[
        format!("azure/{who}/eth0 has a lease of {address}, and its link {} says 10.240.0.14", link.name),
        format!("10.240.0.14 has no host route to its link {}", link.name),
        format!("10.240.0.14 has no permanent neighbour entry with 0a:d4:0a:f0:00:0e on {}", link.name),
        format!("the host route to {address}/32 leads to no live link of it"),
    ])
}
