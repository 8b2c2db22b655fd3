//! The metadata service, closed but for the pods of some namespaces.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dotfour_e2e::inside::shell;
use dotfour_e2e::program::{self, Failure};
use dotfour_ipamd::wiring::names::{CONDEMNED_GROUPS, EXEMPT_GROUP, LINK_INDICES};
use dotfour_rig::azure::WIRESERVER;
use dotfour_rig::{Network, Node, NodeConfig, Place, Pod, Runtime, Vnet, VnetConfig};

use crate::table::request;
use crate::world::SUBNET;

/// Long enough for any answer that comes at all.
const SOON: Duration = Duration::from_secs(3);
/// How long to wait for what must not come.
const A_WHILE: Duration = Duration::from_millis(250);

/// What the daemon is told, and whether the pod of `kube-system` and the one of `default` get through then.
const TURNS: [(&str, [bool; 2]); 4] = [
    ("metadata: {access: block, exemptNamespaces: [kube-system]}", [true, false]),
    ("metadata: {access: block, exemptNamespaces: [default]}", [false, true]),
    ("metadata: block", [false, false]),
    ("metadata: {access: block, exemptNamespaces: [default, kube-system]}", [true, true]),
];

/// Existing pods follow a changed list when the daemon starts, and are deleted like all others.
pub(crate) fn namespaces_reach_metadata(place: &Place) -> Result<(), Failure> {
    let vnet = Vnet::build(VnetConfig { subnet: SUBNET.parse()?, place: place.within("exempt")? })?;
    let node = vnet.add_node(&NodeConfig::dual_stack("node-1", 4))?;
    let network = program::network(&node)?;
    let pods = [Pod::create(&node, "kube-system", "agent")?, Pod::create(&node, "default", "web")?];
    let mut results = Vec::new();
    for (yaml, expected) in TURNS {
        let mut config = program::daemon()?;
        yaml.clone_into(&mut config.more);
        let daemon = node.start_daemon(&config)?;
        for (pod, passes) in pods.iter().zip(expected) {
            if results.len() < pods.len() {
                results.push(Runtime::new(&node, &network).add(pod)?.result);
            }
            let who = format!("{yaml}: a pod of {}", pod.namespace);
            let before = vnet.metadata().asked().len();
            let metadata = request(pod.netns(), SocketAddr::from(([169, 254, 169, 254], 80)), patience(passes));
            let asked: Vec<IpAddr> = vnet.metadata().asked().split_off(before);
            if metadata != passes || asked.iter().any(|asker| *asker != IpAddr::from(node.address())) {
                return Err(
                    format!("{who} reaches metadata: {metadata}, which sees {asked:?}\n{}", daemon.log()).into()
                );
            }
            // Being exempt is of no use elsewhere.
            if request(pod.netns(), SocketAddr::from((WIRESERVER, 80)), A_WHILE) {
                return Err(format!("{who} reaches the wireserver").into());
            }
        }
        check(&node, &network, &pods, &results)?;
        daemon.stop(SOON)?;
    }
    let mut config = program::daemon()?;
    TURNS[3].0.clone_into(&mut config.more);
    let _daemon = node.start_daemon(&config)?;
    for pod in &pods {
        Runtime::new(&node, &network).del(pod, None)?;
    }
    let left = node.links()?;
    let left: Vec<_> = left.iter().filter(|link| LINK_INDICES.contains(&link.index)).collect();
    match left.iter().find(|link| !CONDEMNED_GROUPS.contains(&link.group)) {
        Some(link) => {
            Err(format!("a deleted pod's link is in group {}, not condemned: {EXEMPT_GROUP}?", link.group).into())
        }
        None => Ok(()),
    }
}

/// CHECK sees the group too: nobody may be let through by hand.
fn check(node: &Node, network: &Network, pods: &[Pod], results: &[serde_json::Value]) -> Result<(), Failure> {
    let check = |pod: &Pod, result| Runtime::new(node, network).enter(|calls| calls.check(pod, result));
    for (pod, result) in pods.iter().zip(results) {
        check(pod, result)??;
    }
    let links = node.links()?;
    let link = links.iter().find(|link| LINK_INDICES.contains(&link.index)).ok_or("no pod's link")?;
    let by_hand = if link.group == EXEMPT_GROUP { 0 } else { EXEMPT_GROUP };
    let regroup = |group: u32| shell(node.netns(), &format!("ip link set {} group {group}", link.name));
    regroup(by_hand)?;
    let refused = pods.iter().zip(results).any(|(pod, result)| check(pod, result).is_ok_and(|answer| answer.is_err()));
    regroup(link.group)?;
    if refused { Ok(()) } else { Err("CHECK does not notice a link's group".into()) }
}

fn patience(passes: bool) -> Duration {
    if passes { SOON } else { A_WHILE }
}
