//! Who sees which source address.

use super::*;
use crate::support::NODE_ADDRESS;

#[test]
fn each_destination_sees_the_source_that_the_configuration_says() {
    let vnet = "masquerade: {vnetCidrs: [10.240.0.0/16]}";
    let files = "masquerade: {configDir: CONFIG}";
    let both = "masquerade: {vnetCidr: 10.240.0.0/16, configDir: CONFIG}";
    // Azure's own list of old: it exempts the wireserver, which does not answer pods' addresses.
    let aks = "nonMasqueradeCIDRs: [10.240.0.0/16, 168.63.129.16/32]\nmasqLinkLocal: true\nresyncInterval: 60s\n";
    let wide = "{\"nonMasqueradeCIDRs\": [\"10.0.0.0/8\", \"169.254.169.254/32\"]}";
    // Whether these see the pod: another node's pod, a peered VNet, on-prem, the internet, link-local.
    let table = [
        ("nothing", "", vec![], [true, true, true, false, true]),
        ("vnetCidrs", vnet, vec![], [true, false, false, false, true]),
        ("AKS's file", files, vec![aks], [true, false, false, false, false]),
        ("two files", files, vec![aks, wide], [true, true, false, false, false]),
        ("both", both, vec![wide], [true, true, false, false, true]),
        ("an empty file", files, vec![""], [false, false, false, false, true]),
        ("all", "masquerade: {vnetCidr: 0.0.0.0/0}", vec![], [true; 5]),
    ];
    for (name, masquerade, files, sees_pod) in table {
        let node = node_in_a_world();
        let config = config(&node, masquerade);
        files.iter().enumerate().for_each(|(n, text)| write(&node, &format!("ip-masq-{n}"), text));
        let _daemon = node.start(&config);
        let ((pod, pod_address), (other, other_address)) = (add(&node, "one"), add(&node, "two"));
        let seen = |to: &str| source_seen(&pod, &node.wire, ip(to)).expect(to);
        for (to, sees_pod) in [ELSEWHERE, PEER, ON_PREM, INTERNET, LINK_LOCAL].into_iter().zip(sees_pod) {
            let expected = if sees_pod { pod_address } else { NODE_ADDRESS.into() };
            assert_eq!(seen(to), expected, "{name}: {to} sees another source");
        }
        for to in [IMDS, WIRESERVER] {
            assert_eq!(seen(to), IpAddr::from(NODE_ADDRESS), "{name}: {to} answers the node only");
        }
        assert_eq!(source_seen(&pod, &other, other_address), Some(pod_address), "{name}: pods see pods");
        assert_eq!(
            source_seen(&pod, &node.netns, NODE_ADDRESS.into()),
            Some(pod_address),
            "{name}: the node sees pods"
        );
        assert_eq!(source_seen(&node.netns, &pod, pod_address), Some(NODE_ADDRESS.into()), "{name}: pods see the node");
        assert_eq!(
            source_seen(&node.wire, &pod, pod_address),
            Some(ip(GATEWAY)),
            "{name}: pods see who comes from outside"
        );
        for to in [ELSEWHERE, INTERNET, IMDS] {
            assert_eq!(
                source_seen(&node.netns, &node.wire, ip(to)),
                Some(NODE_ADDRESS.into()),
                "{name}: the node to {to}"
            );
        }
    }
}

#[test]
fn the_world_sees_the_nic_s_primary_address_even_if_the_nic_has_others() {
    let node = node_in_a_world();
    // As cloud-init leaves it: a pool address first, which is what the kernel itself would choose.
    run(
        &node.netns,
        "ip address flush dev eth0; ip address add 10.240.0.9/16 dev eth0; \
                      ip address add 10.240.0.4/16 dev eth0; ip route add default via 10.240.0.1",
    );
    let _daemon = node.start(&config(&node, ""));
    let (pod, _) = add(&node, "one");
    assert_eq!(source_seen(&pod, &node.wire, ip(INTERNET)), Some(NODE_ADDRESS.into()));
}

#[test]
fn a_host_process_keeps_its_source_port_and_a_pod_s_is_drawn() {
    let node = node_in_a_world();
    let _daemon = node.start(&config(&node, ""));
    let (pod, _) = add(&node, "one");
    let port_seen = |from: &Netns, port: u16| {
        let receiver = receiver(&node.wire, ip(INTERNET), 7008);
        from.run(|| UdpSocket::bind(("0.0.0.0", port)).unwrap().send_to(b"x", (INTERNET, 7008)).unwrap()).unwrap();
        receiver.recv_from(&mut [0; 4]).unwrap().1.port()
    };
    assert_eq!(port_seen(&node.netns, 5555), 5555);
    // One in sixty thousand may be drawn by chance, three hardly.
    assert!((6000..6003).any(|port| port_seen(&pod, port) != port), "ports are not drawn at random");
}

#[test]
fn pods_of_a_subnet_that_the_nic_gets_later_are_masqueraded_from_their_first_packet() {
    let node = node_in_a_world();
    let file = node.directory.path().join("interfaces.json");
    let first = r#"{"Prefix":"10.240.0.0/16","IPAddresses":[{"Address":"10.240.0.4","IsPrimary":true}]}"#;
    let later = r#"{"Prefix":"10.77.0.0/24","IPAddresses":[{"Address":"10.77.0.9","IsPrimary":false}]}"#;
    let document = |subnets: &str| {
        format!(r#"{{"Interfaces":[{{"MacAddress":"000D3A1BC721","IsPrimary":true,"IPSubnets":[{subnets}]}}]}}"#)
    };
    fs::write(&file, document(first)).unwrap();
    let source = format!("cooldown: 0s\nsource: {{kind: static, file: {}, refresh: 50ms}}\n", file.display());
    let config = node.config(&source);
    let daemon = node.start(&config);
    fs::write(&file, document(&format!("{first},{later}"))).unwrap();
    let pod = Netns::create().unwrap();
    eventually("the new address is lent", || node.add(&key("one"), "one", pod.as_fd()).is_ok());
    assert_eq!(source_seen(&pod, &node.wire, ip(INTERNET)), Some(NODE_ADDRESS.into()));
    assert_eq!(source_seen(&pod, &node.wire, ip(ELSEWHERE)), Some(ip("10.77.0.9")));
    // The NIC loses the subnet again, and the daemon starts anew: the pod still lives.
    daemon.stop();
    fs::write(&file, document(first)).unwrap();
    let _daemon = node.start(&config);
    assert_eq!(source_seen(&pod, &node.wire, ip(INTERNET)), Some(NODE_ADDRESS.into()));
}
