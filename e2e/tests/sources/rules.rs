//! Kubernetes' three rules for a cluster's network, by name, and what comes in from the load balancer.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dotfour_datapath::Netns;
use dotfour_e2e::inside::shell;
use dotfour_e2e::program::Failure;
use dotfour_rig::Place;
use dotfour_rig::azure::{GATEWAY_V6, ProbeAnswer, WIRESERVER};
use dotfour_rig::probe::{Transport, ask};

use crate::columns::{ALL, Column};
use crate::world::{NODE_PORT, PORT, World, own};

const SOON: Duration = Duration::from_secs(3);
/// How long to wait for what must not come.
const A_WHILE: Duration = Duration::from_millis(250);
const FAMILIES: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)];

/// Runs a rule against every configuration that makes a difference to it: all.
fn everywhere(
    place: &Place,
    name: &str,
    rule: impl Fn(&World, &mut Vec<String>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let place = place.within(name)?;
    let mut wrong = Vec::new();
    for column in &ALL {
        let Column { name, .. } = column;
        let world = World::build(&place, column)?;
        let mut found = Vec::new();
        rule(&world, &mut found)?;
        wrong.extend(found.iter().map(|what| format!("{name}: {what}")));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n  ").into()) }
}

/// Notes it if who listens at an address does not see `expected`.
fn expect(wrong: &mut Vec<String>, from: &Netns, to: IpAddr, expected: IpAddr) -> Result<(), Failure> {
    for transport in [Transport::Tcp, Transport::Udp] {
        let seen = ask(from, transport, None, SocketAddr::new(to, PORT), SOON)?.map(|seen| seen.ip());
        if seen != Some(expected) {
            wrong.push(format!("{transport:?} from {expected} to {to}: {seen:?} is seen"));
        }
    }
    Ok(())
}

pub(crate) fn pods_reach_all_pods_without_nat(place: &Place) -> Result<(), Failure> {
    everywhere(place, "rule-1", |world, wrong| {
        for (from, to) in pairs(&world.pods) {
            for family in FAMILIES {
                expect(wrong, from.pod.netns(), to.like(family), from.like(family))?;
            }
        }
        Ok(())
    })
}

pub(crate) fn nodes_reach_all_pods_and_pods_all_nodes_without_nat(place: &Place) -> Result<(), Failure> {
    everywhere(place, "rule-2", |world, wrong| {
        for (node, member) in world.nodes.iter().flat_map(|node| world.pods.iter().map(move |pod| (node, pod))) {
            for family in FAMILIES {
                expect(wrong, node.netns(), member.like(family), own(node, family))?;
                expect(wrong, member.pod.netns(), own(node, family), member.like(family))?;
            }
        }
        Ok(())
    })
}

pub(crate) fn a_pod_sees_of_itself_what_others_see(place: &Place) -> Result<(), Failure> {
    everywhere(place, "rule-3", |world, wrong| {
        for (from, to) in pairs(&world.pods) {
            let shown = shell(from.pod.netns(), "ip -o address show dev eth0 scope global")?;
            let own: Vec<IpAddr> = shown
                .lines()
                .filter_map(|line| line.split_whitespace().nth(3)?.split('/').next()?.parse().ok())
                .collect();
            if own.len() != FAMILIES.len() {
                wrong.push(format!("a pod sees of itself {own:?}"));
            }
            for address in own {
                expect(wrong, from.pod.netns(), to.like(address), address)?;
            }
        }
        Ok(())
    })
}

pub(crate) fn probes_arrive(place: &Place) -> Result<(), Failure> {
    everywhere(place, "probes", |world, wrong| {
        for node in &world.nodes {
            let (v4, v6): (IpAddr, IpAddr) = (node.address().into(), own(node, FAMILIES[1]));
            // The node's own port stands for kube-proxy's `healthCheckNodePort`, which is what Azure probes with `Local`.
            for (target, source) in [
                ((v4, PORT), IpAddr::from(WIRESERVER)),
                ((v4, NODE_PORT), WIRESERVER.into()),
                ((v6, PORT), GATEWAY_V6.into()),
            ] {
                let answer = world.vnet.balancer_probe(target.into(), SOON)?;
                if source_in(&answer) != Some(source) {
                    wrong.push(format!("a probe of {target:?} from {source}: {answer:?}"));
                }
            }
            // Linux forwards nothing that comes from a link-local address, whatever the rules, so that no pod can be probed.
            let answer = world.vnet.balancer_probe((v6, NODE_PORT).into(), A_WHILE)?;
            if answer != ProbeAnswer::Silent {
                wrong.push(format!("a probe of {v6}, led to a pod: {answer:?}"));
            }
            // What it lets through then comes as it is, to the same port.
            let client = world.host("on-prem")?;
            for (target, source) in [v4, v6].into_iter().zip(client.addresses()) {
                let seen = ask(client.netns(), Transport::Tcp, None, (target, NODE_PORT).into(), SOON)?;
                if seen.map(|seen| seen.ip()) != Some(*source) {
                    wrong.push(format!("a client's connection to {target} from {source}: {seen:?}"));
                }
            }
        }
        Ok(())
    })
}

/// Whom a target that was probed has seen. An IPv6 link-local address is written with its link.
fn source_in(answer: &ProbeAnswer) -> Option<IpAddr> {
    let ProbeAnswer::Connected(said) = answer else { return None };
    let (address, _) = said.rsplit_once(':')?;
    address.trim_matches(['[', ']']).split('%').next()?.parse().ok()
}

fn pairs<T>(members: &[T]) -> impl Iterator<Item = (&T, &T)> {
    let number = members.len();
    (0..number * number)
        .map(move |pair| (pair / number, pair % number))
        .filter(|(one, other)| one != other)
        .filter_map(|(one, other)| Some((members.get(one)?, members.get(other)?)))
}
