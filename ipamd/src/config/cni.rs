//! Where the container runtime looks for plugins and network configurations.

use std::path::PathBuf;

use super::raw::absolute;

/// Where runtimes look for plugins.
pub const DEFAULT_BIN_DIR: &str = "/opt/cni/bin";
/// Where runtimes look for network configurations.
pub const DEFAULT_CONF_DIR: &str = "/etc/cni/net.d";
/// As early as azure-vnet's, and behind it in the alphabet.
const DEFAULT_CONFLIST: &str = "10-dotfour.conflist";
/// azure-vnet's own, which others know.
const DEFAULT_NETWORK: &str = "azure";

/// The keys `cniBinDir`, `cniConfDir`, `cniConflist`, `cniNetwork` and `runtime`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cni {
    /// Where plugins are.
    pub bin_dir: PathBuf,
    /// Where the daemon keeps its network configuration; nowhere if absent.
    pub conf_dir: Option<PathBuf>,
    /// The file's name there.
    pub conflist: String,
    /// The network's name in it.
    pub network: String,
    /// The container runtime's socket; it is not asked if absent.
    pub runtime: Option<PathBuf>,
}

/// The keys as they are written.
#[derive(Debug, Default)]
pub(super) struct RawCni {
    pub(super) bin_dir: Option<PathBuf>,
    pub(super) conf_dir: Option<PathBuf>,
    pub(super) conflist: Option<String>,
    pub(super) network: Option<String>,
    pub(super) runtime: Option<String>,
}

impl RawCni {
    /// `networks` are the names that are served; all where empty.
    pub(super) fn check(self, networks: &[String]) -> Result<Cni, String> {
        let RawCni { bin_dir, conf_dir, conflist, network, runtime } = self;
        let conflist = conflist.unwrap_or_else(|| DEFAULT_CONFLIST.into());
        let plain = !conflist.contains('/') && !conflist.starts_with('.');
        if !plain || !conflist.ends_with(".conflist") {
            return Err(format!("cniConflist: {conflist:?} is not a file name that ends with .conflist"));
        }
        let served = networks.first().cloned();
        let network = network.or_else(|| served.clone()).unwrap_or_else(|| DEFAULT_NETWORK.into());
        if served.is_some() && !networks.contains(&network) {
            return Err(format!("cniNetwork: {network:?} is not among networks, which are the ones that are served"));
        }
        Ok(Cni {
            bin_dir: absolute("cniBinDir", bin_dir.unwrap_or_else(|| DEFAULT_BIN_DIR.into()))?,
            conf_dir: conf_dir.map(|path| absolute("cniConfDir", path)).transpose()?,
            conflist,
            network,
            runtime: runtime.as_deref().map(socket).transpose()?,
        })
    }
}

/// A path, or a URL as the kubelet's `containerRuntimeEndpoint` has it.
fn socket(text: &str) -> Result<PathBuf, String> {
    absolute("runtime", text.strip_prefix("unix://").unwrap_or(text).into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    #[test]
    fn no_network_configuration_is_written_unless_told_where() {
        let config = Config::parse("source: {kind: wireserver}").unwrap();
        assert_eq!(config.cni.conf_dir, None);
        assert_eq!(config.cni.bin_dir, Path::new("/opt/cni/bin"));
        assert_eq!((config.cni.conflist.as_str(), config.cni.network.as_str()), ("10-dotfour.conflist", "azure"));
        let one = Config::parse("networks: [blue, azure]\nsource: {kind: wireserver}").unwrap();
        assert_eq!(one.cni.network, "blue", "a name that is served");
        for text in ["unix:///run/containerd/containerd.sock", "/run/containerd/containerd.sock"] {
            let config = Config::parse(&format!("runtime: {text}\nsource: {{kind: wireserver}}")).unwrap();
            assert_eq!(config.cni.runtime.as_deref(), Some(Path::new("/run/containerd/containerd.sock")));
        }
    }

    #[test]
    fn a_name_that_no_runtime_would_read_is_refused() {
        for (line, named) in [
            ("cniConflist: 10-dotfour.conf", "ends with .conflist"),
            ("cniConflist: /etc/10-dotfour.conflist", "file name"),
            ("cniConflist: .conflist", "file name"),
            ("cniConfDir: net.d", "cniConfDir"),
            ("cniBinDir: bin", "cniBinDir"),
            ("runtime: containerd.sock", "runtime"),
            ("runtime: tcp://127.0.0.1:1", "runtime"),
            ("networks: [blue]\ncniNetwork: azure", "networks"),
        ] {
            let reason = Config::parse(&format!("{line}\nsource: {{kind: wireserver}}")).unwrap_err();
            assert!(reason.contains(named), "{line} was refused with {reason:?}");
        }
    }
}
