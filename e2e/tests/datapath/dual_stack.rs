//! Pods with addresses of both families: they reach everybody, forge nothing, and no pod becomes the node's router.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use dotfour_e2e::inside::shell;
use dotfour_e2e::program::Failure;
use dotfour_rig::probe::{Witness, advertise_as_router, spoof_echo};
use dotfour_rig::runtime::Answer;
use dotfour_rig::{NodeConfig, Place, Pod, Vnet, VnetConfig};

use crate::matrix::Matrix;
use crate::{Host, eventually};

const BOTH: &str = "10.240.0.0/16,fd00:10:240::/64";
/// How long to wait for what must not come.
const A_WHILE: Duration = Duration::from_millis(300);
/// Pods of each node whose ADDs are compared.
const COMPARED: usize = 60;

fn ipv6_of(answer: &Answer) -> Result<Ipv6Addr, Failure> {
    Ok(answer.ipv6().ok_or("no IPv6 address")?)
}

/// Everybody to everybody in both families, with packets as large as the links carry; and the node keeps the default route
/// that it learnt, though it forwards now.
pub(crate) fn everybody_reaches_everybody(place: &Place) -> Result<(), Failure> {
    let vnet = Vnet::build(VnetConfig { subnet: BOTH.parse()?, place: place.clone() })?;
    let default_route = |host: &Host| shell(host.node.netns(), "ip -6 route show default proto ra");
    let mut hosts = Vec::new();
    for name in ["node-1", "node-2"] {
        let node = vnet.add_node(&NodeConfig::dual_stack(name, 4))?;
        eventually("the NIC has learnt its router", || {
            Ok(!shell(node.netns(), "ip -6 route show default proto ra")?.is_empty())
        })?;
        let host = Host::start(node)?;
        assert_eq!(shell(host.node.netns(), "cat /proc/sys/net/ipv6/conf/all/forwarding")?, "1\n");
        hosts.push(host);
    }
    let mut pods: Vec<(&Host, Pod, IpAddr, IpAddr)> = Vec::new();
    for host in &hosts {
        for pod in host.pods(2)? {
            let answer = host.runtime().add(&pod)?;
            pods.push((host, pod, answer.ipv4().ok_or("no IPv4 address")?.into(), ipv6_of(&answer)?.into()));
        }
    }
    let (mut v4, mut v6) = (Matrix::of_mtu(1500), Matrix::of_mtu(1500));
    for host in &hosts {
        v4.place(host.node.name(), host.node.netns(), host.node.address());
        v6.place(host.node.name(), host.node.netns(), host.node.ipv6().ok_or("no IPv6 address")?);
    }
    for (host, pod, in_v4, in_v6) in &pods {
        let name = format!("{} on {}", pod.name, host.node.name());
        v4.place(&name, pod.netns(), *in_v4);
        v6.place(&name, pod.netns(), *in_v6);
    }
    v4.walk()?;
    v6.walk()?;
    for host in &hosts {
        assert!(!default_route(host)?.is_empty(), "{} has lost its IPv6 default route", host.node.name());
        // And goes on hearing of it.
        shell(host.node.netns(), "ip -6 route flush default proto ra")?;
        vnet.advertise_router(&host.node)?;
        eventually("the route is learnt again", || Ok(!default_route(host)?.is_empty()))?;
    }
    Ok(())
}

/// What a pod sends from an address that is not its own is dropped and counted, in both families.
pub(crate) fn forged_sources_are_dropped(place: &Place) -> Result<(), Failure> {
    let vnet = Vnet::build(VnetConfig { subnet: BOTH.parse()?, place: place.clone() })?;
    let host = Host::start(vnet.add_node(&NodeConfig::dual_stack("node-1", 4))?)?;
    let (forger, victim) =
        (Pod::create(&host.node, "default", "forger")?, Pod::create(&host.node, "default", "victim")?);
    let own = host.runtime().add(&forger)?;
    let theirs = host.runtime().add(&victim)?;
    let witness = Witness::start(victim.netns())?;
    let spoofed = || shell(host.node.netns(), "nft list counter inet dotfour spoofed");
    for (own, to, foreign) in [
        (
            IpAddr::from(own.ipv4().ok_or("no IPv4 address")?),
            IpAddr::from(theirs.ipv4().ok_or("no IPv4 address")?),
            IpAddr::from([10, 240, 77, 7]),
        ),
        (ipv6_of(&own)?.into(), ipv6_of(&theirs)?.into(), "fd00:10:240::7777".parse()?),
    ] {
        spoof_echo(forger.netns(), own, to)?;
        eventually("what is not forged arrives", || Ok(witness.count(own, to) == 1))?;
        let before = spoofed()?;
        spoof_echo(forger.netns(), foreign, to)?;
        eventually("the forged packet is counted", || Ok(spoofed()? != before))?;
        assert_eq!(witness.count(foreign, to), 0, "{foreign} reached the other pod");
    }
    Ok(())
}

/// A pod that says it is a router is not believed, on a node that does not forward IPv6 and would believe it.
pub(crate) fn no_pod_becomes_the_router(place: &Place) -> Result<(), Failure> {
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.clone() })?;
    let node = vnet.add_node(&NodeConfig::new("node-1", 4))?;
    // The rig turns IPv6 off on nodes of a VNet that has none; on Azure it is on everywhere.
    shell(node.netns(), "for links in all default; do echo 0 >/proc/sys/net/ipv6/conf/$links/disable_ipv6; done")?;
    let host = Host::start(node)?;
    let pod = Pod::create(&host.node, "default", "router")?;
    host.runtime().add(&pod)?;
    let link = pod.links()?.into_iter().find(|link| link.name == "eth0").ok_or("no eth0")?.index;
    // It has IPv4 alone, so nobody gave it an address to speak from; whoever pretends to be a router gives himself one.
    shell(pod.netns(), "ip -6 address add fe80::66/64 dev eth0 nodad")?;
    eventually("the pod can speak on its link", || Ok(advertise_as_router(pod.netns(), link).is_ok()))?;
    let believed = || Ok::<_, Failure>(!shell(host.node.netns(), "ip -6 route show default")?.is_empty());
    let counted = || shell(host.node.netns(), "nft list counter inet dotfour router_adverts");
    eventually("it is counted", || Ok(!counted()?.contains("packets 0 ")))?;
    std::thread::sleep(A_WHILE);
    assert!(!believed()?, "the node believes a pod");
    // Without the rule, and with a link-local address on the host link, it would: the test can fail.
    let Host { daemon, node, .. } = host;
    daemon.stop(Duration::from_secs(5))?;
    shell(node.netns(), "nft delete table inet dotfour")?;
    let host_link = node.links()?.into_iter().find(|near| near.index == link).ok_or("no host link")?;
    shell(node.netns(), &format!("ip -6 address add fe80::1/64 dev {} nodad", host_link.name))?;
    eventually("without the rule the node believes it", || {
        advertise_as_router(pod.netns(), link)?;
        Ok(!shell(node.netns(), "ip -6 route show default")?.is_empty())
    })
}

/// An ADD with both families takes at most five milliseconds more than one with IPv4 alone.
pub(crate) fn a_second_family_costs_little(place: &Place) -> Result<(), Failure> {
    let vnet = Vnet::build(VnetConfig { subnet: BOTH.parse()?, place: place.clone() })?;
    let mut hosts = Vec::new();
    for (name, families) in [("one", "[IPv4]"), ("both", "[IPv4, IPv6]")] {
        let node = vnet.add_node(&NodeConfig::dual_stack(name, COMPARED))?;
        hosts.push(Host::start_with(node, |config| config.more = format!("ipFamilies: {families}\n"))?);
    }
    let mut pods =
        hosts.iter().map(|host| Ok(host.pods(COMPARED)?.into_iter())).collect::<Result<Vec<_>, Failure>>()?;
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..COMPARED {
        for ((host, pods), took) in hosts.iter().zip(&mut pods).zip(&mut took) {
            let pod = pods.next().ok_or("no pod is left")?;
            took.push(host.runtime().add(&pod)?.took);
        }
    }
    let [one, both] = took.map(|mut took| {
        took.sort();
        took.get(COMPARED / 2).copied().unwrap_or_default()
    });
    println!("  an ADD with IPv4 took {one:.2?}, one with IPv6 too {both:.2?} (medians of {COMPARED}, in turn)");
    assert!(both < one + Duration::from_millis(5), "a second family costs {:?}", both - one);
    Ok(())
}
