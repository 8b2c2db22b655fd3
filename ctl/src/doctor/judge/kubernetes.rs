//! Whether Kubernetes' components are set to what pods with the VNet's addresses need.

use std::net::IpAddr;

use dotfour_ipamd::wiring::names::LINK_PREFIX;
use ipnet::IpNet;

use super::super::finding::{Code, Unseen};
use super::super::kubernetes::{Kubelet, Kubernetes, Manager, Proxy};
use super::{Report, find};

const GUIDE: &str = "docs/install/kubernetes.md";

/// What this node's own settings and state say to compare with; `None` where that is not known.
#[derive(Debug, Clone, Default)]
pub(super) struct Here {
    pub(super) max_pods: Option<u16>,
    /// How many addresses the source offers.
    pub(super) addresses: Option<usize>,
    /// An address of each subnet that pods are known to have addresses of.
    pub(super) pods: Vec<IpAddr>,
}

pub(super) fn judge(seen: &Kubernetes, here: &Here, report: &mut Report) {
    if let Some(why) = &seen.hidden {
        let what = "the settings of kubelet, kube-proxy and controller managers";
        report.1.push(Unseen { what, why: why.clone() });
    }
    for kubelet in &seen.kubelets {
        match kubelet {
            Ok(kubelet) => judge_kubelet(kubelet, here, report),
            Err(why) => report.1.push(Unseen { what: "the kubelet's maxPods", why: why.clone() }),
        }
    }
    for proxy in &seen.proxies {
        match proxy {
            Ok(proxy) => {
                judge_local_mode(proxy, here, report);
                judge_masquerade(proxy, report);
            }
            Err(why) => report.1.push(Unseen { what: "kube-proxy's settings", why: why.clone() }),
        }
    }
    seen.managers.iter().for_each(|manager| judge_routes(manager, report));
}

fn judge_kubelet(kubelet: &Kubelet, here: &Here, report: &mut Report) {
    let Kubelet { max_pods, said, pods_per_core } = kubelet;
    let Some(ours) = here.max_pods.filter(|ours| *max_pods > i64::from(*ours)) else { return };
    if *pods_per_core > 0 {
        let why = format!("podsPerCore is {pods_per_core}, so the number of processors has a word in it");
        return report.1.push(Unseen { what: "how many pods the kubelet takes", why });
    }
    let enough = here.addresses.is_some_and(|addresses| i64::try_from(addresses).is_ok_and(|all| *max_pods <= all));
    find(
        report,
        Code::KubeletMaxPods,
        format!("the kubelet takes {max_pods} pods ({said}), and maxPods is {ours}"),
        match enough {
            true => "the node is not told when it has fewer addresses than pods",
            false => "the scheduler sends pods that get no address and wait, with CNI error 11",
        },
        format!(
            "set the kubelet's maxPods to {ours} (manifests/host/kubelet-dotfour.yaml), or give the NIC {} \
             ipConfigurations and set maxPods here; {GUIDE}",
            max_pods.saturating_add(1)
        ),
    );
}

fn judge_local_mode(proxy: &Proxy, here: &Here, report: &mut Report) {
    let what = match proxy.detect_local.as_str() {
        "InterfaceNamePrefix" => {
            let prefix = proxy.interface_prefix.as_str();
            if !prefix.is_empty() && LINK_PREFIX.starts_with(prefix) {
                return;
            }
            format!("takes links {prefix}* for pods', and pods' are {LINK_PREFIX}*")
        }
        // Its default.
        "ClusterCIDR" | "" if proxy.cluster_cidr.is_empty() => {
            "has the detectLocalMode ClusterCIDR, and no clusterCIDR".to_owned()
        }
        "ClusterCIDR" | "" => {
            let all: Vec<IpNet> = proxy.cluster_cidr.split(',').filter_map(|text| text.trim().parse().ok()).collect();
            if here.pods.is_empty() {
                let why = format!("clusterCIDR is {}, and no pod's address is known", proxy.cluster_cidr);
                return report.1.push(Unseen { what: "whether kube-proxy knows pods", why });
            }
            let Some(stranger) = here.pods.iter().find(|pod| !all.iter().any(|cidr| cidr.contains(*pod))) else {
                return;
            };
            format!("has the clusterCIDR {}, where pods have addresses such as {stranger}", proxy.cluster_cidr)
        }
        other => format!("has the detectLocalMode {other}, which does not know pods of azure mode"),
    };
    let mode = if proxy.mode.is_empty() { "its default" } else { &proxy.mode };
    find(
        report,
        Code::KubeProxyLocalMode,
        format!("kube-proxy {what} ({}, mode {mode})", proxy.said),
        "it cannot tell the node's pods from others: services see the node's address instead of a pod's, or treat pods \
         as strangers",
        format!(
            "detectLocalMode: InterfaceNamePrefix, detectLocal.interfaceNamePrefix: {LINK_PREFIX} \
             (manifests/host/kube-proxy-dotfour.yaml); {GUIDE}"
        ),
    );
}

fn judge_masquerade(proxy: &Proxy, report: &mut Report) {
    if !proxy.masquerade_all {
        return;
    }
    find(
        report,
        Code::KubeProxyMasqueradeAll,
        format!("kube-proxy has masqueradeAll ({})", proxy.said),
        "whoever a pod reaches through a service sees the node's address, and network policies do, too",
        format!("masqueradeAll: false, or leave out --masquerade-all; {GUIDE}"),
    );
}

fn judge_routes(manager: &Manager, report: &mut Report) {
    if !manager.routes {
        return;
    }
    find(
        report,
        Code::CloudRoutes,
        format!("{} gives nodes pod CIDRs and writes routes for them", manager.name),
        "the subnet's route table sends a node what is within its pod CIDR, whoever has that address",
        format!("--configure-cloud-routes=false, and --allocate-node-cidrs=false; {GUIDE}"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Here {
        let pods = ["10.240.0.4", "fd00:10::5"].map(|address| address.parse().unwrap());
        Here { max_pods: Some(30), addresses: Some(30), pods: pods.into() }
    }

    /// The codes, and how much could not be seen.
    fn judged(seen: Kubernetes, here: &Here) -> (Vec<Code>, usize) {
        let mut report = Report::default();
        judge(&seen, here, &mut report);
        (report.0.iter().map(|finding| finding.code).collect(), report.1.len())
    }

    fn kubelet(max_pods: i64, pods_per_core: i64) -> Kubernetes {
        let kubelet = Kubelet { max_pods, said: "its flag".into(), pods_per_core };
        Kubernetes { kubelets: vec![Ok(kubelet)], ..Kubernetes::default() }
    }

    fn proxy(detect_local: &str, cluster_cidr: &str, interface_prefix: &str) -> Kubernetes {
        let proxy = Proxy {
            detect_local: detect_local.into(),
            cluster_cidr: cluster_cidr.into(),
            interface_prefix: interface_prefix.into(),
            ..Proxy::default()
        };
        Kubernetes { proxies: vec![Ok(proxy)], ..Kubernetes::default() }
    }

    #[test]
    fn a_kubelet_that_takes_more_pods_than_there_are_addresses_is_found() {
        assert_eq!(judged(kubelet(110, 0), &here()), (vec![Code::KubeletMaxPods], 0));
        for fewer in [30, 20] {
            assert_eq!(judged(kubelet(fewer, 0), &here()), (vec![], 0));
        }
        assert_eq!(judged(kubelet(110, 10), &here()), (vec![], 1), "the processors decide");
        assert_eq!(judged(kubelet(110, 0), &Here::default()), (vec![], 0), "nothing to compare with");
    }

    #[test]
    fn a_kube_proxy_that_knows_pods_is_left_alone_and_any_other_is_found() {
        for (mode, cidr, prefix) in [
            ("InterfaceNamePrefix", "", "azv"),
            ("InterfaceNamePrefix", "10.244.0.0/16", "az"),
            ("ClusterCIDR", "10.0.0.0/8,fd00:10::/32", ""),
            ("", "10.240.0.0/16, fd00::/8", ""),
        ] {
            assert_eq!(judged(proxy(mode, cidr, prefix), &here()), (vec![], 0), "{mode} {cidr} {prefix}");
        }
        for (mode, cidr, prefix) in [
            ("InterfaceNamePrefix", "", ""),
            ("InterfaceNamePrefix", "", "veth"),
            ("InterfaceNamePrefix", "", "azv1"),
            ("", "", ""),
            ("ClusterCIDR", "10.244.0.0/16", ""),
            ("", "10.240.0.0/16", ""),
            ("NodeCIDR", "10.0.0.0/8", ""),
            ("BridgeInterface", "10.0.0.0/8", ""),
        ] {
            let found = judged(proxy(mode, cidr, prefix), &here());
            assert_eq!(found, (vec![Code::KubeProxyLocalMode], 0), "{mode} {cidr} {prefix}");
        }
        assert_eq!(judged(proxy("", "10.244.0.0/16", ""), &Here::default()), (vec![], 1), "no address to compare");
    }

    #[test]
    fn masquerade_of_everything_and_routes_of_the_cloud_are_found() {
        let mut seen = proxy("InterfaceNamePrefix", "", "azv");
        if let Some(Ok(proxy)) = seen.proxies.first_mut() {
            proxy.masquerade_all = true;
        }
        seen.managers = [true, false].map(|routes| Manager { name: "manager".into(), routes }).into();
        assert_eq!(judged(seen, &here()), (vec![Code::KubeProxyMasqueradeAll, Code::CloudRoutes], 0));
    }

    #[test]
    fn what_cannot_be_read_is_named_as_not_seen() {
        let broken = Kubernetes {
            kubelets: vec![Err("no file".into())],
            proxies: vec![Err("no file".into())],
            hidden: Some("a container".into()),
            ..Kubernetes::default()
        };
        assert_eq!(judged(broken, &here()), (vec![], 3));
    }
}
