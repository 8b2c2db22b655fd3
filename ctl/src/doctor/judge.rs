//! From what is seen to what is wrong. Pure.

mod kubernetes;

use dotfour_ipamd::install::conflist::{Found, Owner, first_foreign};
use dotfour_ipamd::install::reference::{REMEDY, Reference};
use dotfour_ipamd::install::{DELEGATE, PLUGIN};
use dotfour_ipamd::rules::forward_drop::Verdict;
use dotfour_ipamd::rules::old_agent;
use dotfour_ipamd::wiring::names::LINK_PREFIX;
use dotfour_protocol::{AttachmentStatus, FamilyTotals, NodeStatus, PodName};

use super::finding::{Code, Finding, Unseen};
use super::look::{Plugin, Seen};

/// The findings in the order in which they are best mended, and what could not be looked at.
pub(crate) fn judge(seen: &Seen) -> (Vec<Finding>, Vec<Unseen>) {
    let mut report = (Vec::new(), Vec::new());
    judge_daemon(seen, &mut report);
    judge_programs(seen, &mut report);
    judge_lists(seen, &mut report);
    judge_forwarding(seen, &mut report);
    judge_exempt(seen, &mut report);
    kubernetes::judge(&seen.kubernetes, &here(seen), &mut report);
    report
}

type Report = (Vec<Finding>, Vec<Unseen>);

fn find(report: &mut Report, code: Code, what: String, why: &str, fix: impl Into<String>) {
    report.0.push(Finding { code, what, why: why.to_owned(), fix: fix.into() });
}

/// What Kubernetes' settings are compared with. Pods' addresses are from the NIC's subnets, as the node's own is.
fn here(seen: &Seen) -> kubernetes::Here {
    let status = seen.daemon.as_ref().ok();
    let pods = status.iter().flat_map(|status| status.attachments.iter().flat_map(|pod| &pod.addresses)).copied();
    kubernetes::Here {
        max_pods: seen.config.as_ref().ok().map(|config| config.max_pods),
        // A pod has one of each family that pods get.
        addresses: status.map(|status| {
            let FamilyTotals { v4, v6 } = status.totals;
            [v4, v6].into_iter().flatten().min().unwrap_or(status.pool.total)
        }),
        pods: status.map(|status| status.node_address).into_iter().chain(pods).collect(),
    }
}

fn judge_daemon(seen: &Seen, report: &mut Report) {
    if let Err(reason) = &seen.config {
        find(
            report,
            Code::ConfigUnusable,
            reason.clone(),
            "the daemon does not start with it; what follows takes the default places",
            "mend the file, or name another with --config; docs/configuration.md has every key",
        );
    }
    match (&seen.daemon, &seen.config) {
        (Err(reason), _) => {
            find(
                report,
                Code::DaemonUnreachable,
                reason.clone(),
                "no pod can be added; those that are wired keep their network",
                "start dotfour-ipamd run, as root, and read its log: it says why it ended",
            );
            report.1.push(Unseen { what: "the pool", why: "only the daemon knows it".into() });
        }
        (Ok(status), Ok(config)) => judge_pool(status, config.max_pods, report),
        (Ok(_), Err(_)) => {}
    }
}

/// A pod has an address of each family that pods get.
fn judge_pool(status: &NodeStatus, max_pods: u16, report: &mut Report) {
    let FamilyTotals { v4, v6 } = status.totals;
    // An older daemon does not tell them apart.
    let whole = (v4.is_none() && v6.is_none()).then_some(status.pool.total);
    for (family, total) in [("IPv4 ", v4), ("IPv6 ", v6), ("", whole)] {
        if let Some(total) = total.filter(|total| *total < usize::from(max_pods)) {
            find(
                report,
                Code::PoolSmall,
                format!("{} has {total} {family}pod addresses, and maxPods is {max_pods}", status.nic),
                "pods beyond the last address wait, with CNI error 11",
                "give the NIC more ipConfigurations (maxPods + 1 of them), or lower maxPods here and in the kubelet",
            );
        }
    }
}

fn judge_programs(seen: &Seen, report: &mut Report) {
    let again = format!("run dotfour-ipamd install --cni-bin-dir {}", seen.bin_dir.display());
    for (name, plugin) in &seen.plugins {
        let (code, is, effect) = match plugin {
            Plugin::Missing => (
                Code::PluginMissing,
                "is missing or cannot be run",
                "the container runtime can neither add nor delete a pod",
            ),
            Plugin::Differs => {
                (Code::PluginDiffers, "is not this release's", "neighbouring releases work together, others need not")
            }
            Plugin::Unknown(why) => {
                report.1.push(Unseen { what: "whether the plugin is this release's", why: why.clone() });
                continue;
            }
            Plugin::Same => continue,
        };
        find(report, code, format!("{} {is}", seen.bin_dir.join(name).display()), effect, again.clone());
    }
    for missing in &seen.missing {
        let code = match missing {
            Reference::Loopback => Code::LoopbackMissing,
            Reference::Portmap => Code::PortmapMissing,
        };
        let what = format!("{} has no {}", seen.bin_dir.display(), missing.name());
        find(report, code, what, missing.without(), REMEDY);
    }
}

fn judge_lists(seen: &Seen, report: &mut Report) {
    let found = match &seen.lists {
        Ok(found) => found,
        Err(why) => return report.1.push(Unseen { what: "the network configurations", why: why.clone() }),
    };
    let directory = seen.conf_dir.display();
    let ours: Vec<&str> =
        found.iter().filter(|file| file.owner == Owner::Ours).map(|file| file.name.as_str()).collect();
    let gives_pods = |file: &&Found| matches!(file.owner, Owner::Ours | Owner::Delegating);
    let Some(first) = found.iter().find(gives_pods).map(|file| file.name.as_str()) else {
        return find(
            report,
            Code::ConflistMissing,
            format!("{directory} has no network configuration with the plugin {PLUGIN} or {DELEGATE} in it"),
            "the runtime does not give pods to Dotfour; a node without any stays NotReady",
            format!("set cniConfDir: {directory}, and the daemon writes {} once it serves", seen.conflist),
        );
    };
    if ours.len() > 1 {
        find(
            report,
            Code::ConflistTwice,
            format!("{directory} has {} network configurations of Dotfour's: {}", ours.len(), ours.join(", ")),
            "the runtime takes the first, whatever the others say",
            format!("remove all but {}", seen.conflist),
        );
    }
    if let Some(foreign) = first_foreign(found, first) {
        let (is, why) = match foreign.owner {
            Owner::Unreadable => ("is no network configuration and", "containerd stops at it and has no network"),
            _ => ("is somebody else's and", "the runtime takes it, and pods are not Dotfour's"),
        };
        find(
            report,
            Code::ConflistShadowed,
            format!("{} {is} sorts before {first}", seen.conf_dir.join(&foreign.name).display()),
            why,
            "remove it, and whatever writes it, or give cniConflist a name that comes first",
        );
    }
}

fn judge_forwarding(seen: &Seen, report: &mut Report) {
    match &seen.forwarding {
        Ok(true) => {}
        Ok(false) => find(
            report,
            Code::ForwardingOff,
            "net.ipv4.ip_forward is 0".into(),
            "pods reach nobody but their node",
            "sysctl -w net.ipv4.ip_forward=1, and find out who turned it off: the daemon turns it on when it starts",
        ),
        Err(why) => report.1.push(Unseen { what: "net.ipv4.ip_forward", why: why.clone() }),
    }
    for chain in &seen.chains.chains {
        let (code, what) = match chain.verdict {
            Verdict::Accepts => continue,
            Verdict::Drops => (Code::ForwardDrops, "drops what is forwarded, pods' packets too"),
            Verdict::Unclear => (
                Code::ForwardMayDrop,
                "drops what no rule accepts, and none of its own accepts pods' packets; others that it leads to may",
            ),
        };
        let fix = format!(
            "accept -i {LINK_PREFIX}+ and -o {LINK_PREFIX}+ in it, or have whoever made it use the policy accept"
        );
        let why = "no rule of another table overrules it, so pods may reach nobody outside of the node";
        find(report, code, format!("{chain} {what}"), why, fix);
    }
    for why in &seen.chains.unread {
        report.1.push(Unseen { what: "firewalls on the way of pods", why: why.clone() });
    }
    for kind in &seen.old_agent.kinds {
        find(
            report,
            Code::MasqAgentLeft,
            format!("{kind} has a chain {} of the ip-masq-agent", old_agent::CHAIN),
            "it goes on masquerading by its own list, beside Dotfour's",
            format!(
                "stop the agent, and remove the chain {} and the jump to it from nat POSTROUTING",
                old_agent::CHAIN
            ),
        );
    }
    for why in &seen.old_agent.unread {
        report.1.push(Unseen { what: "whether the ip-masq-agent's chain is there", why: why.clone() });
    }
}

/// A pod that nobody has named is in no namespace that is exempt.
fn judge_exempt(seen: &Seen, report: &mut Report) {
    let (Ok(config), Ok(status)) = (&seen.config, &seen.daemon) else { return };
    if config.metadata_exempt.is_empty() {
        return;
    }
    let unnamed = unnamed(&status.attachments);
    let Some(first) = unnamed.first() else { return };
    find(
        report,
        Code::MetadataExemptUnknown,
        format!("{} pods' namespaces are not known, such as that of {}", unnamed.len(), first.key.container_id),
        "metadata.exemptNamespaces is no help to them: the metadata service is closed to them",
        "delete those that need it, for they are known when they are made again; a runtime that passes no \
         K8S_POD_NAMESPACE, such as podman, has no namespace to exempt (docs/masquerade.md)",
    );
}

/// Those whose runtime gave no namespace, or whose name is lost. What another plugin has wired is never exempt.
fn unnamed(attachments: &[AttachmentStatus]) -> Vec<&AttachmentStatus> {
    let known = |pod: &PodName| !pod.namespace.is_empty();
    attachments.iter().filter(|pod| !pod.delegated && !pod.pod.as_ref().is_some_and(known)).collect()
}

#[cfg(test)]
mod tests {
    use dotfour_ipamd::rules::forward_drop;

    use super::*;

    /// A node with these network configurations, and nothing else to be found.
    fn seen(files: &[(&str, Owner)], plugins: &[(&'static str, Plugin)]) -> Seen {
        let found = |&(name, owner): &(&str, Owner)| Found { name: name.into(), owner };
        Seen {
            config: Err(String::new()),
            daemon: Err(String::new()),
            bin_dir: "/opt/cni/bin".into(),
            plugins: plugins.to_vec(),
            missing: Vec::new(),
            conf_dir: "/etc/cni/net.d".into(),
            conflist: "10-dotfour.conflist".into(),
            lists: Ok(files.iter().map(found).collect()),
            forwarding: Ok(true),
            chains: forward_drop::Found::default(),
            old_agent: old_agent::Found::default(),
            kubernetes: super::super::kubernetes::Kubernetes::default(),
        }
    }

    fn codes(judge: impl Fn(&Seen, &mut Report), seen: &Seen) -> Vec<Code> {
        let mut report = Report::default();
        judge(seen, &mut report);
        report.0.into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn a_list_that_delegates_to_us_gives_pods_to_dotfour() {
        let (ours, ptp) = (("10-dotfour.conflist", Owner::Ours), ("05-ptp.conf", Owner::Delegating));
        let (azure, bridge) = (("04-azure.conflist", Owner::Other), ("87-podman.conflist", Owner::Other));
        for (files, expected) in [
            (&[][..], &[Code::ConflistMissing][..]),
            (&[bridge], &[Code::ConflistMissing]),
            (&[ptp], &[]),
            (&[ptp, bridge], &[]),
            (&[ptp, ours], &[]),
            (&[ours], &[]),
            (&[azure, ptp], &[Code::ConflistShadowed]),
            (&[azure, ours], &[Code::ConflistShadowed]),
            (&[ours, ("20-dotfour.conflist", Owner::Ours)], &[Code::ConflistTwice]),
        ] {
            assert_eq!(codes(judge_lists, &seen(files, &[])), expected, "{files:?}");
        }
    }

    #[test]
    fn what_cannot_be_told_of_the_old_agent_is_said_and_is_no_finding() {
        let mut seen = seen(&[], &[]);
        seen.old_agent.unread.push("iptables-legacy cannot be run".into());
        let mut report = Report::default();
        judge_forwarding(&seen, &mut report);
        assert!(report.0.is_empty());
        let told: Vec<_> = report.1.iter().map(|unseen| (unseen.what, unseen.why.as_str())).collect();
        assert_eq!(told, [("whether the ip-masq-agent's chain is there", "iptables-legacy cannot be run")]);
    }

    #[test]
    fn each_name_of_the_plugin_is_judged_by_itself() {
        let seen = seen(&[], &[("dotfour", Plugin::Same), ("dotfour-ipam", Plugin::Missing)]);
        let mut report = Report::default();
        judge_programs(&seen, &mut report);
        let [finding] = &report.0[..] else { panic!("{:?}", report.0) };
        assert_eq!(finding.code, Code::PluginMissing);
        assert!(finding.what.starts_with("/opt/cni/bin/dotfour-ipam is missing"), "{}", finding.what);
    }
}
