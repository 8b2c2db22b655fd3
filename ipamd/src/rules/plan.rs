//! What the rules are to be: from configuration, files and addresses to a plan. Pure; [`super::table`] writes it in
//! nftables' words.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Serialize;

use super::agent_files::AgentSettings;
use super::words::version;
use crate::config::{Masquerade, Metadata};

/// Azure's instance metadata service.
pub const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Azure's wireserver, which is its DNS server too.
pub const WIRESERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// The ports of the wireserver that give away the node's secrets: the goal state, and the VM extensions' settings.
pub const WIRESERVER_PORTS: [u16; 2] = [80, 32526];

/// What is exempt with neither configuration nor files, as the ip-masq-agent does it: RFC 1918.
const RFC1918: [&str; 3] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
/// The same for IPv6: unique local addresses (RFC 4193).
const RFC4193: [&str; 1] = ["fc00::/7"];
const LINK_LOCAL: &str = "169.254.0.0/16";
const LINK_LOCAL_V6: &str = "fe80::/10";

/// Everything the rules follow from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'i> {
    /// The configuration's `masquerade`.
    pub masquerade: &'i Masquerade,
    /// The configuration's `metadata`.
    pub metadata: Metadata,
    /// What the ip-masq-agent's files say, where there are any.
    pub agent: Option<&'i AgentSettings>,
    /// The NIC's name.
    pub nic: &'i str,
    /// The NIC's primary address.
    pub node: Ipv4Addr,
    /// The node's own IPv6 address, where it has one.
    pub node_v6: Option<Ipv6Addr>,
    /// The networks that azure mode's pods have their addresses from.
    pub azure_pods: &'i [IpNet],
    /// The networks that kubenet mode's pods have their addresses from.
    pub kubenet_pods: &'i [IpNet],
}

/// The rules of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The NIC's name.
    pub nic: String,
    /// The NIC's primary address, which is what the world sees.
    pub node: Ipv4Addr,
    /// The node's own IPv6 address, where it has one.
    pub node_v6: Option<Ipv6Addr>,
    /// Whether pods may reach the metadata service.
    pub metadata: Metadata,
    /// Pods by their addresses, each group with its own exceptions.
    pub groups: Vec<Group>,
}

/// Pods with the same rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// `azure` or `kubenet`.
    pub name: &'static str,
    /// Where their addresses are from: disjoint and in order.
    pub pods: Vec<IpNet>,
    /// Which destinations see the pod's own address: disjoint and in order.
    pub exempt: Vec<IpNet>,
}

/// A plan, and what an operator should know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The rules.
    pub plan: Plan,
    /// What is probably not meant.
    pub warnings: Vec<String>,
}

/// Plans the rules. The same inputs, in whatever order, make the same plan.
pub fn plan(inputs: &Inputs<'_>) -> Planned {
    let Inputs { masquerade, metadata, agent, nic, node, node_v6, azure_pods, kubenet_pods } = *inputs;
    let mut warnings = Vec::new();
    let mut common: Vec<IpNet> = agent.map(|agent| agent.cidrs.iter().copied().collect()).unwrap_or_default();
    let mut azure_default = Vec::new();
    for (family, default) in [(4, &RFC1918[..]), (6, &RFC4193[..])] {
        let of_family = |net: &&IpNet| version(net) == family;
        let own: Vec<IpNet> = azure_pods.iter().filter(of_family).copied().collect();
        let said = [&masquerade.vnet_cidrs, &masquerade.cluster_cidrs].into_iter().flatten().chain(&common);
        // A file exempts no IPv4 network by naming none. That it means IPv6 it has to say: the agent leaves IPv6 alone
        // unless it is started for it, and to masquerade pods to pods is nobody's wish.
        let about_it = said.into_iter().any(|net| of_family(&net)) || (family == 4 && agent.is_some());
        let no_pods = own.is_empty() && !kubenet_pods.iter().any(|net| of_family(&net));
        if about_it || no_pods {
            continue;
        }
        warnings.push(format!(
            "masquerade: neither vnetCidrs nor clusterCidrs nor a file of the ip-masq-agent says anything of IPv{family}; so \
             these see pods' own addresses: {}",
            default.join(", ")
        ));
        common.extend(nets(default));
        // Where the VNet's own range is another.
        azure_default.extend(own);
    }
    if !agent.is_some_and(|agent| agent.masq_link_local) {
        common.extend(nets(&[LINK_LOCAL]));
    }
    if !agent.is_some_and(|agent| agent.masq_link_local_v6) {
        common.extend(nets(&[LINK_LOCAL_V6]));
    }
    let exempted = |address: Ipv4Addr| {
        agent.is_some_and(|a| a.cidrs.iter().any(|c| c.contains(&IpNet::from(std::net::IpAddr::from(address)))))
    };
    for (what, address) in [("the metadata service", IMDS), ("the wireserver", WIRESERVER)] {
        if exempted(address) {
            warnings.push(format!(
                "a file exempts {what} ({address}); it sees the node's address all the same, for Azure answers no other"
            ));
        }
    }
    // Azure routes a pod's own address in the whole VNet only in azure mode. In both, pods see pods as they are.
    let with = |more: &[&[IpNet]]| merged(common.iter().chain(more.iter().copied().flatten()).copied());
    let groups = [
        Group {
            name: "azure",
            pods: merged(azure_pods.iter().copied()),
            exempt: with(&[&masquerade.vnet_cidrs, &masquerade.cluster_cidrs, &azure_default]),
        },
        Group {
            name: "kubenet",
            pods: merged(kubenet_pods.iter().copied()),
            exempt: with(&[&masquerade.cluster_cidrs]),
        },
    ];
    let groups = groups.into_iter().filter(|group| !group.pods.is_empty()).collect();
    Planned { plan: Plan { nic: nic.to_owned(), node, node_v6, metadata, groups }, warnings }
}

/// Disjoint and in order: nftables refuses a set whose intervals overlap.
fn merged(nets: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
    let mut merged = IpNet::aggregate(&nets.collect());
    merged.sort();
    merged
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(cidrs: &[&str]) -> AgentSettings {
        AgentSettings { cidrs: nets(cidrs).into_iter().collect(), ..AgentSettings::default() }
    }

    fn planned(masquerade: &Masquerade, agent: Option<&AgentSettings>) -> Planned {
        plan(&Inputs {
            masquerade,
            metadata: Metadata::Allow,
            agent,
            nic: "eth0",
            node: Ipv4Addr::new(10, 240, 0, 4),
            node_v6: None,
            azure_pods: &nets(&["10.240.0.0/16"]),
            kubenet_pods: &nets(&["10.244.3.0/24"]),
        })
    }

    /// What a group's pods leave alone, and what they do not, is the table that matters.
    fn exempt(planned: &Planned, group: &str) -> Vec<String> {
        let group = planned.plan.groups.iter().find(|g| g.name == group).unwrap();
        group.exempt.iter().map(ToString::to_string).collect()
    }

    fn configured(vnet: &[&str], cluster: &[&str]) -> Masquerade {
        Masquerade { vnet_cidrs: nets(vnet), cluster_cidrs: nets(cluster), config_dir: None }
    }

    #[test]
    fn each_input_exempts_what_it_says_and_no_more() {
        let link_local = AgentSettings { masq_link_local: true, masq_link_local_v6: true, ..agent(&["10.9.0.0/16"]) };
        let empty = agent(&[]);
        let files = agent(&["10.8.0.0/16", "fd00::/48"]);
        const V4: &str = "169.254.0.0/16";
        const V6: &str = "fe80::/10";
        for (masquerade, agent, azure, kubenet) in [
            (
                configured(&[], &[]),
                None,
                vec!["10.0.0.0/8", V4, "172.16.0.0/12", "192.168.0.0/16", V6],
                vec!["10.0.0.0/8", V4, "172.16.0.0/12", "192.168.0.0/16", V6],
            ),
            (configured(&["10.240.0.0/16"], &[]), None, vec!["10.240.0.0/16", V4, V6], vec![V4, V6]),
            (
                configured(&["10.240.0.0/16"], &["10.244.0.0/16"]),
                None,
                vec!["10.240.0.0/16", "10.244.0.0/16", V4, V6],
                vec!["10.244.0.0/16", V4, V6],
            ),
            (
                configured(&["10.240.0.0/16"], &[]),
                Some(&files),
                vec!["10.8.0.0/16", "10.240.0.0/16", V4, "fd00::/48", V6],
                vec!["10.8.0.0/16", V4, "fd00::/48", V6],
            ),
            (configured(&[], &[]), Some(&empty), vec![V4, V6], vec![V4, V6]),
            (configured(&[], &[]), Some(&link_local), vec!["10.9.0.0/16"], vec!["10.9.0.0/16"]),
        ] {
            let planned = planned(&masquerade, agent);
            assert_eq!(exempt(&planned, "azure"), azure, "{masquerade:?} {agent:?}");
            assert_eq!(exempt(&planned, "kubenet"), kubenet, "{masquerade:?} {agent:?}");
        }
    }

    #[test]
    fn a_family_that_nobody_has_spoken_of_has_its_private_networks_exempt_and_its_pods_own() {
        let pods = nets(&["100.64.0.0/16", "2001:db8:10::/64"]);
        let exempt = |masquerade: &Masquerade, agent: Option<&AgentSettings>| {
            let inputs = Inputs {
                masquerade,
                metadata: Metadata::Allow,
                agent,
                nic: "eth0",
                node: Ipv4Addr::new(100, 64, 0, 4),
                node_v6: None,
                azure_pods: &pods,
                kubenet_pods: &[],
            };
            let planned = plan(&inputs);
            (exempt(&planned, "azure"), planned.warnings.len())
        };
        const LINKS: [&str; 2] = ["169.254.0.0/16", "fe80::/10"];
        let v4 = ["10.0.0.0/8", "100.64.0.0/16", LINKS[0], "172.16.0.0/12", "192.168.0.0/16"];
        let v6 = ["2001:db8:10::/64", "fc00::/7", LINKS[1]];
        let both = |v4: &[&str], v6: &[&str]| [v4, v6].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
        let v4_file = agent(&["100.64.0.0/16"]);
        let empty = agent(&[]);
        let v6_file = agent(&["fd00::/48"]);
        let of_v4 = ["100.64.0.0/16", LINKS[0]];
        let of_v6 = ["fd00::/48", LINKS[1]];
        for (masquerade, agent, expected, warnings) in [
            (configured(&[], &[]), None, both(&v4, &v6), 2),
            (configured(&["100.64.0.0/16"], &[]), None, both(&of_v4, &v6), 1),
            (configured(&[], &["fd00::/48"]), None, both(&v4, &of_v6), 1),
            (configured(&[], &[]), Some(&v4_file), both(&of_v4, &v6), 1),
            (configured(&[], &[]), Some(&empty), both(&LINKS[..1], &v6), 1),
            (configured(&[], &[]), Some(&v6_file), both(&LINKS[..1], &of_v6), 0),
        ] {
            assert_eq!(exempt(&masquerade, agent), (expected, warnings), "{masquerade:?} {agent:?}");
        }
    }

    #[test]
    fn nothing_said_is_warned_of_and_a_file_or_a_key_is_something_said() {
        let warnings = planned(&configured(&[], &[]), None).warnings;
        assert!(warnings[0].contains("10.0.0.0/8") && warnings[0].contains("vnetCidrs"), "{warnings:?}");
        assert_eq!(planned(&configured(&["10.240.0.0/16"], &[]), None).warnings, [""; 0]);
        assert_eq!(planned(&configured(&[], &["10.244.0.0/16"]), None).warnings, [""; 0]);
        assert_eq!(planned(&configured(&[], &[]), Some(&agent(&["10.240.0.0/16"]))).warnings, [""; 0]);
    }

    #[test]
    fn a_file_that_exempts_azure_s_own_addresses_is_told_of() {
        let warnings = planned(&configured(&[], &[]), Some(&agent(&["168.63.129.16/32", "169.254.0.0/16"]))).warnings;
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("169.254.169.254") && warnings[1].contains("168.63.129.16"), "{warnings:?}");
    }

    #[test]
    fn overlapping_and_neighbouring_networks_are_one_interval() {
        let files = agent(&["10.0.0.0/9", "10.128.0.0/9", "10.240.0.0/16", "192.168.0.0/24"]);
        let planned = planned(&configured(&["10.0.0.0/8"], &[]), Some(&files));
        assert_eq!(exempt(&planned, "azure"), ["10.0.0.0/8", "169.254.0.0/16", "192.168.0.0/24", "fe80::/10"]);
    }

    #[test]
    fn a_mode_without_pods_has_no_rules() {
        let masquerade = configured(&["10.240.0.0/16"], &[]);
        let inputs = Inputs {
            masquerade: &masquerade,
            metadata: Metadata::Allow,
            agent: None,
            nic: "eth0",
            node: Ipv4Addr::new(10, 240, 0, 4),
            node_v6: None,
            azure_pods: &nets(&["10.240.0.0/16"]),
            kubenet_pods: &[],
        };
        let names: Vec<&str> = plan(&inputs).plan.groups.iter().map(|group| group.name).collect();
        assert_eq!(names, ["azure"]);
    }
}
