//! What is outside the VNet sees the addresses that Azure would let it see.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use dotfour_datapath::Netns;
use dotfour_rig::azure::{GATEWAY_V6, ProbeAnswer, WIRESERVER};
use dotfour_rig::probe::{Responder, Seen, Transport, Witness, ask};
use dotfour_rig::{Node, NodeConfig, Outside, OutsideConfig, Place, UserRoute, Vnet, VnetConfig, Where};

tests![
    peered_and_on_prem_hosts_see_every_address_of_a_nic_as_it_is,
    the_internet_is_reached_from_a_nics_own_address_alone,
    a_host_outside_reaches_a_nic_but_the_internet_opens_no_connection,
    the_platforms_ports_report_who_asked,
    a_balancer_probe_comes_from_the_platforms_addresses,
    a_forced_default_route_leads_what_is_for_the_internet_past_the_appliance,
    an_outside_host_with_ipv6_needs_a_dual_stack_vnet,
];

/// Long enough for any answer that comes at all.
const SOON: Duration = Duration::from_secs(5);
/// How long to wait for what must not come.
const A_WHILE: Duration = Duration::from_millis(300);
const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Udp];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node whose secondary addresses are on its loopback link, as pods' would be behind it.
fn vnet_and_node(place: Place) -> (Vnet, Node) {
    let subnet = "10.240.0.0/16,fd00:10:240::/64".parse().unwrap();
    let vnet = Vnet::build(VnetConfig { subnet, place }).unwrap();
    let node = vnet.add_node(&NodeConfig::dual_stack("node-1", 1)).unwrap();
    shell(node.netns(), "ip address add 10.240.0.5/32 dev lo; ip -6 address add fd00:10:240::5/128 dev lo nodad");
    (vnet, node)
}

fn shell(netns: &Netns, command: &str) {
    let run = || Command::new("/bin/sh").args(["-ec", command]).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").status();
    assert!(netns.run(run).unwrap().unwrap().success(), "{command}");
}

fn host(vnet: &Vnet, place: Where, addresses: &[&str]) -> Outside {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| address(text)).collect();
    vnet.add_outside(&OutsideConfig::new(format!("{place:?}"), place, &addresses)).unwrap()
}

/// As whom the host's port 80 sees a source.
fn seen(node: &Node, transport: Transport, source: &str, host: IpAddr, within: Duration) -> Option<IpAddr> {
    let answer = ask(node.netns(), transport, Some(address(source)), (host, 80).into(), within).unwrap();
    answer.map(|seen| seen.ip())
}

fn peered_and_on_prem_hosts_see_every_address_of_a_nic_as_it_is(place: Place) {
    let (vnet, node) = vnet_and_node(place);
    let peered = host(&vnet, Where::PeeredVnet, &["10.241.0.4", "10.241.0.5", "fd00:10:241::4"]);
    let on_prem = host(&vnet, Where::OnPrem, &["192.168.7.9", "fd00:192::9"]);
    for to in peered.addresses().iter().chain(on_prem.addresses()) {
        let sources = if to.is_ipv4() { ["10.240.0.4", "10.240.0.5"] } else { ["fd00:10:240::4", "fd00:10:240::5"] };
        for (source, transport) in sources.into_iter().flat_map(|source| BOTH.map(|transport| (source, transport))) {
            assert_eq!(seen(&node, transport, source, *to, SOON), Some(address(source)), "{transport:?} to {to}");
        }
    }
    assert_eq!((peered.seen().len(), on_prem.seen().len()), (12, 8));
    assert_eq!(peered.seen()[0].at, SocketAddr::from(([10, 241, 0, 4], 80)));
    assert_eq!(vnet.drops().unwrap().no_outbound, 0);
}

fn the_internet_is_reached_from_a_nics_own_address_alone(place: Place) {
    let (vnet, node) = vnet_and_node(place);
    let internet = host(&vnet, Where::Internet, &["198.51.100.7", "2001:db8::7"]);
    let [v4, v6] = [internet.addresses()[0], internet.addresses()[1]];
    for transport in BOTH {
        assert_eq!(seen(&node, transport, "10.240.0.4", v4, SOON), Some(address("10.240.0.4")));
        assert_eq!(seen(&node, transport, "fd00:10:240::4", v6, SOON), Some(address("fd00:10:240::4")));
    }
    assert_eq!(vnet.drops().unwrap().no_outbound, 0);
    assert_eq!(seen(&node, Transport::Udp, "10.240.0.5", v4, A_WHILE), None);
    assert_eq!(seen(&node, Transport::Udp, "fd00:10:240::5", v6, A_WHILE), None);
    assert_eq!(vnet.drops().unwrap().no_outbound, 2);
    assert_eq!(internet.seen().len(), 4);
    // A removed node's address is nobody's any more.
    vnet.remove_node(&node).unwrap();
}

fn a_host_outside_reaches_a_nic_but_the_internet_opens_no_connection(place: Place) {
    let (vnet, node) = vnet_and_node(place);
    let on_prem = host(&vnet, Where::OnPrem, &["192.168.7.9"]);
    let internet = host(&vnet, Where::Internet, &["198.51.100.7"]);
    let pod = SocketAddr::from(([10, 240, 0, 5], 7000));
    let own = SocketAddr::from((node.address(), 7000));
    let _responder = Responder::start(node.netns(), &[pod, own], &[pod, own]).unwrap();
    for transport in BOTH {
        let answer = ask(on_prem.netns(), transport, None, pod, SOON).unwrap();
        assert_eq!(answer.map(|seen| seen.ip()), Some(on_prem.addresses()[0]), "{transport:?}");
    }
    // Not even to the address that is seen there.
    for refused in [pod, own] {
        assert_eq!(ask(internet.netns(), Transport::Tcp, None, refused, A_WHILE).unwrap(), None, "{refused}");
    }
    vnet.remove_outside(&on_prem).unwrap();
    assert_eq!(ask(on_prem.netns(), Transport::Udp, None, pod, A_WHILE).unwrap(), None);
}

fn the_platforms_ports_report_who_asked(place: Place) {
    let (vnet, node) = vnet_and_node(place);
    let ports = [(Transport::Tcp, 53), (Transport::Udp, 53), (Transport::Tcp, 32526)];
    for (transport, port) in ports {
        let at = SocketAddr::from((WIRESERVER, port));
        let answer = ask(node.netns(), transport, None, at, SOON).unwrap().unwrap();
        assert_eq!(answer.ip(), IpAddr::V4(node.address()));
        assert_eq!(vnet.platform_seen().last(), Some(&Seen { transport, at, from: answer }));
        assert_eq!(ask(node.netns(), transport, Some(address("10.240.0.5")), at, A_WHILE).unwrap(), None);
    }
    assert_eq!(vnet.platform_seen().len(), 3);
    assert!(vnet.drops().unwrap().of(node.nic()).not_primary >= 3);
    // The wireserver itself counts what is no request for its document too.
    let run = || std::net::TcpStream::connect((WIRESERVER, 80)).unwrap();
    let mut stream = node.netns().run(run).unwrap();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n").unwrap();
    std::io::Read::read_to_end(&mut stream, &mut Vec::new()).unwrap();
    assert_eq!(vnet.wireserver().asked(), [IpAddr::V4(node.address())]);
}

fn a_balancer_probe_comes_from_the_platforms_addresses(place: Place) {
    let (vnet, node) = vnet_and_node(place);
    let targets = ["10.240.0.4", "10.240.0.5", "fd00:10:240::4", "fd00:10:240::5"].map(address);
    let ports: Vec<SocketAddr> = targets.iter().map(|target| SocketAddr::new(*target, 10256)).collect();
    let _responder = Responder::start(node.netns(), &ports, &[]).unwrap();
    for port in ports {
        let source: IpAddr = if port.is_ipv4() { WIRESERVER.into() } else { GATEWAY_V6.into() };
        let ProbeAnswer::Connected(said) = vnet.balancer_probe(port, SOON).unwrap() else { panic!("{port}") };
        // The link's number is part of how a link-local address is written.
        let said = said.split('%').next().unwrap().trim_start_matches('[');
        assert!(said.starts_with(&source.to_string()), "{said} for {port}");
        let closed = SocketAddr::new(port.ip(), 1);
        assert_eq!(vnet.balancer_probe(closed, SOON).unwrap(), ProbeAnswer::Refused, "{closed}");
    }
    // One that waits for a request is healthy as well, and one that drops packets is not.
    let _quiet = node.netns().run(|| TcpListener::bind("10.240.0.4:10257").unwrap()).unwrap();
    let quiet = SocketAddr::from(([10, 240, 0, 4], 10257));
    assert_eq!(vnet.balancer_probe(quiet, A_WHILE).unwrap(), ProbeAnswer::Connected(String::new()));
    shell(node.netns(), "ip link set eth0 down");
    assert_eq!(vnet.balancer_probe(quiet, A_WHILE).unwrap(), ProbeAnswer::Silent);
    assert!(vnet.balancer_probe("10.240.0.77:80".parse().unwrap(), A_WHILE).is_err());
}

fn a_forced_default_route_leads_what_is_for_the_internet_past_the_appliance(place: Place) {
    let (vnet, node) = vnet_and_node(place);
    let other = vnet.add_node(&NodeConfig::dual_stack("node-2", 0)).unwrap();
    let internet = host(&vnet, Where::Internet, &["198.51.100.7", "2001:db8::7"]);
    let peered = host(&vnet, Where::PeeredVnet, &["10.241.0.4"]);
    let addresses = [address("172.16.0.4"), address("fd00:172::4")];
    let config = OutsideConfig { forwards: true, ..OutsideConfig::new("appliance", Where::OnPrem, &addresses) };
    let appliance = vnet.add_outside(&config).unwrap();
    let witness = Witness::start(appliance.netns()).unwrap();
    let [v4, v6] = [internet.addresses()[0], internet.addresses()[1]];
    let defaults =
        ["0.0.0.0/0", "::/0"].map(|prefix| UserRoute { prefix: prefix.parse().unwrap(), next_hop: &appliance });

    assert!(seen(&node, Transport::Udp, "10.240.0.4", v4, SOON).is_some());
    assert_eq!(witness.count(address("10.240.0.4"), v4), 0);
    vnet.set_route_table(&defaults).unwrap();
    // A secondary address too: what the appliance translates is its own affair.
    for source in ["10.240.0.4", "10.240.0.5"] {
        assert_eq!(seen(&node, Transport::Udp, source, v4, SOON), Some(address(source)));
        assert_eq!(witness.count(address(source), v4), 1);
    }
    assert_eq!(seen(&node, Transport::Udp, "fd00:10:240::5", v6, SOON), Some(address("fd00:10:240::5")));
    assert_eq!(witness.sources_to(v6), [address("fd00:10:240::5")]);
    // The VNet, its peers and the platform are nearer.
    assert!(seen(&node, Transport::Tcp, "10.240.0.5", peered.addresses()[0], SOON).is_some());
    let platform = SocketAddr::from((WIRESERVER, 53));
    assert!(ask(node.netns(), Transport::Udp, None, platform, SOON).unwrap().is_some());
    let neighbour = SocketAddr::from((other.address(), 7000));
    let _responder = Responder::start(other.netns(), &[neighbour], &[]).unwrap();
    assert!(ask(node.netns(), Transport::Tcp, None, neighbour, SOON).unwrap().is_some());
    for near in [peered.addresses()[0], WIRESERVER.into(), other.address().into()] {
        assert!(witness.sources_to(near).is_empty(), "{near}");
    }
    vnet.set_route_table(&[]).unwrap();
    assert_eq!(seen(&node, Transport::Udp, "10.240.0.5", v4, A_WHILE), None);
    assert_eq!(witness.count(address("10.240.0.5"), v4), 1);
}

fn an_outside_host_with_ipv6_needs_a_dual_stack_vnet(place: Place) {
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse().unwrap(), place }).unwrap();
    let node = vnet.add_node(&NodeConfig::new("node-1", 0)).unwrap();
    let v6 = OutsideConfig::new("v6", Where::OnPrem, &[address("fd00::1")]);
    assert!(vnet.add_outside(&v6).is_err());
    let v4 = host(&vnet, Where::OnPrem, &["192.168.0.1"]);
    assert_eq!(seen(&node, Transport::Tcp, "10.240.0.4", v4.addresses()[0], SOON), Some(node.address().into()));
    vnet.set_route_table(&[UserRoute { prefix: "0.0.0.0/0".parse().unwrap(), next_hop: &v4 }]).unwrap();
    assert!(vnet.set_route_table(&[UserRoute { prefix: "::/0".parse().unwrap(), next_hop: &v4 }]).is_err());
}
