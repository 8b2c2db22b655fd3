//! Packets as large as the links carry, forbidden to be cut, arrive; and pods' links are as large as the NIC, or as told.

use std::process::Command;

use dotfour_e2e::program::Failure;
use dotfour_rig::{NodeConfig, Place, Vnet, VnetConfig};
use serde_json::Value;

use crate::Host;
use crate::matrix::Matrix;

pub(crate) fn full_size_arrives(place: &Place) -> Result<(), Failure> {
    for (number, (nic, configured, expected)) in
        [(1500, None, 1500), (1400, None, 1400), (1500, Some(1300), 1300)].into_iter().enumerate()
    {
        let place = place.within(&format!("mtu-{number}"))?;
        let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place })?;
        let mut hosts = Vec::new();
        for node in ["node-1", "node-2"] {
            let node = vnet.add_node(&NodeConfig::new(node, 4))?;
            let lowered = node
                .netns()
                .run(|| Command::new("ip").args(["link", "set", "eth0", "mtu", &nic.to_string()]).status())??;
            assert!(lowered.success());
            hosts.push(Host::start_with(node, |config| {
                config.more = configured.map_or_else(String::new, |mtu| format!("mtu: {mtu}\n"));
            })?);
        }
        let mut pods = Vec::new();
        for host in &hosts {
            for pod in host.pods(2)? {
                let answer = host.runtime().add(&pod)?;
                let of_interfaces: Vec<Option<u64>> = answer
                    .result
                    .get("interfaces")
                    .and_then(Value::as_array)
                    .map(|all| all.iter().map(|one| one.get("mtu").and_then(Value::as_u64)).collect())
                    .unwrap_or_default();
                assert_eq!(of_interfaces, [Some(expected), Some(expected)], "what the result says");
                let link = pod.links()?.into_iter().find(|link| link.name == "eth0").ok_or("no eth0")?;
                assert_eq!(u64::from(link.mtu), expected);
                pods.push((host, pod, answer.ipv4().ok_or("no address")?));
            }
            let link = host.node.links()?.into_iter().find(|link| link.name == "eth0").ok_or("no eth0")?;
            assert_eq!(link.mtu, nic, "the NIC stays as it was");
        }
        let mut matrix = Matrix::of_mtu(usize::try_from(expected)?);
        for (host, pod, address) in &pods {
            matrix.place(&format!("{} on {}", pod.name, host.node.name()), pod.netns(), *address);
        }
        for host in &hosts {
            matrix.place(host.node.name(), host.node.netns(), host.node.address());
        }
        matrix.walk().map_err(|e| format!("NIC {nic}, configured {configured:?}: {e}"))?;
    }
    Ok(())
}
