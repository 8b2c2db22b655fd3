//! What the doctor finds.

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Something works less well than it should, or will fail for some pods.
    Warning,
    /// Pods cannot be started, or have no network.
    Error,
}

impl Severity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $name:literal, $severity:ident;)*) => {
        /// What was found. Names never change once released; `docs/doctor.md` lists them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Code {
            $($(#[$doc])* $code,)*
        }

        impl Code {
            /// All of them, in the order of the document.
            #[cfg(test)]
            pub(crate) const ALL: &[Code] = &[$(Code::$code),*];

            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Code::$code => $name,)*
                }
            }

            pub(crate) fn severity(self) -> Severity {
                match self {
                    $(Code::$code => Severity::$severity,)*
                }
            }
        }
    };
}

codes! {
    /// The configuration file cannot be used.
    ConfigUnusable = "config-unusable", Error;
    /// The daemon does not answer.
    DaemonUnreachable = "daemon-unreachable", Error;
    /// The runtime will not find the plugin.
    PluginMissing = "plugin-missing", Error;
    /// The installed plugin is another release's.
    PluginDiffers = "plugin-differs", Warning;
    /// The reference plugin loopback is missing.
    LoopbackMissing = "loopback-missing", Warning;
    /// The reference plugin portmap is missing.
    PortmapMissing = "portmap-missing", Warning;
    /// There is no network configuration of ours.
    ConflistMissing = "conflist-missing", Error;
    /// There are several of ours.
    ConflistTwice = "conflist-twice", Warning;
    /// The runtime takes another one.
    ConflistShadowed = "conflist-shadowed", Error;
    /// The node does not forward.
    ForwardingOff = "forwarding-off", Error;
    /// A firewall drops what is forwarded.
    ForwardDrops = "forward-drops", Error;
    /// A firewall may do so.
    ForwardMayDrop = "forward-may-drop", Warning;
    /// There are fewer addresses than pods.
    PoolSmall = "pool-small", Warning;
    /// The ip-masq-agent's chain is there.
    MasqAgentLeft = "masq-agent-left", Warning;
    /// Pods are exempt by a namespace that is not known of them.
    MetadataExemptUnknown = "metadata-exempt-unknown", Warning;
    /// The kubelet takes more pods than the daemon is told of.
    KubeletMaxPods = "kubelet-max-pods", Warning;
    /// kube-proxy cannot tell pods from others.
    KubeProxyLocalMode = "kube-proxy-local-mode", Warning;
    /// kube-proxy hides pods' addresses.
    KubeProxyMasqueradeAll = "kube-proxy-masquerade-all", Warning;
    /// Azure's route table gets routes for pod CIDRs.
    CloudRoutes = "cloud-routes", Warning;
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) code: Code,
    /// What is so, with its numbers and names.
    pub(crate) what: String,
    /// Why that matters.
    pub(crate) why: String,
    /// What to do.
    pub(crate) fix: String,
}

/// What could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unseen {
    pub(crate) what: &'static str,
    pub(crate) why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_a_row_for_each_finding_and_no_other() {
        let document = include_str!("../../../docs/doctor.md");
        let rows: Vec<&str> = document.lines().filter(|line| line.starts_with("| `")).collect();
        let begins: Vec<String> =
            Code::ALL.iter().map(|code| format!("| `{}` | {} | ", code.name(), code.severity().name())).collect();
        assert_eq!(rows.len(), begins.len());
        for (row, begins) in rows.iter().zip(&begins) {
            assert!(row.starts_with(begins), "docs/doctor.md has {row}\nand needs {begins}");
        }
    }
}
