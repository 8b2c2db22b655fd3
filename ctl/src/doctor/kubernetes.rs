//! What Kubernetes' own components on this node are set to, as far as that concerns pods' addresses: read from their
//! command lines, and from the files that these name.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::flags::Flags;
use super::process::{self, Process};

/// What the kubelet takes for `maxPods` if nobody says.
pub(crate) const DEFAULT_MAX_PODS: i64 = 110;

/// Those that are seen, each as often as it runs.
#[derive(Debug, Default)]
pub(crate) struct Kubernetes {
    pub(crate) kubelets: Vec<Result<Kubelet, String>>,
    pub(crate) proxies: Vec<Result<Proxy, String>>,
    pub(crate) managers: Vec<Manager>,
    /// Why there may be some that are not seen.
    pub(crate) hidden: Option<String>,
}

/// The kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kubelet {
    pub(crate) max_pods: i64,
    /// Where that is said.
    pub(crate) said: String,
    /// That many pods for each processor, if that is fewer; 0 for no such limit.
    pub(crate) pods_per_core: i64,
}

/// kube-proxy. Texts are empty where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// Where all this is said.
    pub(crate) said: String,
    pub(crate) mode: String,
    pub(crate) detect_local: String,
    /// The networks of pods, with commas between them.
    pub(crate) cluster_cidr: String,
    pub(crate) interface_prefix: String,
    /// Whether everything that goes to a service gets the node's address.
    pub(crate) masquerade_all: bool,
}

/// A controller manager, Kubernetes' own or the cloud's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manager {
    pub(crate) name: String,
    /// Whether it writes routes for nodes' pod CIDRs into Azure's route table.
    pub(crate) routes: bool,
}

const KUBELET: &str = "kubelet";
const PROXY: &str = "kube-proxy";
const KUBE_MANAGER: &str = "kube-controller-manager";
const CLOUD_MANAGER: &str = "cloud-controller-manager";

/// Looks at the processes of this network namespace.
pub(crate) fn look() -> Kubernetes {
    let processes = match process::find(&[KUBELET, PROXY, KUBE_MANAGER, CLOUD_MANAGER]) {
        Ok(processes) => processes,
        Err(e) => return Kubernetes { hidden: Some(format!("/proc cannot be read: {e}")), ..Kubernetes::default() },
    };
    let mut seen = Kubernetes::default();
    for process in &processes {
        match process.name.as_str() {
            KUBELET => seen.kubelets.push(kubelet(process)),
            PROXY => seen.proxies.push(proxy(process)),
            name => seen.managers.push(manager(name, Flags(&process.arguments))),
        }
    }
    if seen.kubelets.is_empty() && process::are_hidden() {
        let why = "no kubelet is among the processes that are seen from this container; run the doctor on the node";
        seen.hidden = Some(why.into());
    }
    seen
}

/// The kubelet's files count in the order in which it reads them, and its flags most.
fn kubelet(process: &Process) -> Result<Kubelet, String> {
    let flags = Flags(&process.arguments);
    let mut files: Vec<String> = flags.value("config").map(str::to_owned).into_iter().collect();
    if let Some(directory) = flags.value("config-dir").filter(|directory| !directory.is_empty()) {
        let names = process.list(directory).map_err(|e| format!("{directory} cannot be read: {e}"))?;
        files.extend(names.iter().filter(|name| name.ends_with(".conf")).map(|name| format!("{directory}/{name}")));
    }
    let mut texts = Vec::new();
    for file in files.into_iter().filter(|file| !file.is_empty()) {
        let read: KubeletFile = parse(&file, process.read(&file))?;
        texts.push((file, read));
    }
    merge_kubelet(flags, texts)
}

fn merge_kubelet(flags: Flags<'_>, files: Vec<(String, KubeletFile)>) -> Result<Kubelet, String> {
    let mut kubelet = Kubelet { max_pods: DEFAULT_MAX_PODS, said: "Kubernetes' default".into(), pods_per_core: 0 };
    for (said, KubeletFile { max_pods, pods_per_core }) in files {
        // Nought is what a file without the key is for the kubelet.
        if let Some(max_pods) = max_pods.filter(|max_pods| *max_pods != 0) {
            (kubelet.max_pods, kubelet.said) = (max_pods, said);
        }
        kubelet.pods_per_core = pods_per_core.unwrap_or(kubelet.pods_per_core);
    }
    let number = |name| {
        let read = |text: &str| text.parse().map_err(|_| format!("--{name} {text} is no number"));
        flags.value(name).map(read).transpose()
    };
    if let Some(max_pods) = number("max-pods")? {
        (kubelet.max_pods, kubelet.said) = (max_pods, "its flag --max-pods".into());
    }
    kubelet.pods_per_core = number("pods-per-core")?.unwrap_or(kubelet.pods_per_core);
    Ok(kubelet)
}

/// Unlike the kubelet, kube-proxy forgets its flags if it has a file.
fn proxy(process: &Process) -> Result<Proxy, String> {
    let flags = Flags(&process.arguments);
    match flags.value("config").filter(|file| !file.is_empty()) {
        Some(file) => Ok(proxy_of_file(file, parse(file, process.read(file))?)),
        None => Ok(proxy_of_flags(flags)),
    }
}

fn proxy_of_file(said: &str, file: ProxyFile) -> Proxy {
    let mode = file.mode.unwrap_or_default();
    let rules = if mode == "nftables" { file.nftables } else { file.iptables };
    Proxy {
        said: said.into(),
        mode,
        detect_local: file.detect_local_mode.unwrap_or_default(),
        cluster_cidr: file.cluster_cidr.unwrap_or_default(),
        interface_prefix: file.detect_local.and_then(|detect| detect.interface_name_prefix).unwrap_or_default(),
        masquerade_all: rules.and_then(|rules| rules.masquerade_all).unwrap_or(false),
    }
}

fn proxy_of_flags(flags: Flags<'_>) -> Proxy {
    let text = |name| flags.value(name).unwrap_or_default().to_owned();
    Proxy {
        said: "its flags".into(),
        mode: text("proxy-mode"),
        detect_local: text("detect-local-mode"),
        cluster_cidr: text("cluster-cidr"),
        interface_prefix: text("pod-interface-name-prefix"),
        masquerade_all: flags.switch("masquerade-all") == Some(true),
    }
}

/// Routes are written where node CIDRs are given out and a cloud is known, unless that is turned off.
fn manager(name: &str, flags: Flags<'_>) -> Manager {
    let in_tree = flags.value("cloud-provider").is_some_and(|cloud| !matches!(cloud, "" | "external"));
    let on = |name, default| flags.switch(name).unwrap_or(default);
    Manager {
        name: name.into(),
        routes: (name == CLOUD_MANAGER || in_tree)
            && on("allocate-node-cidrs", false)
            && on("configure-cloud-routes", true),
    }
}

/// The error says nothing of the file's contents.
fn parse<T: DeserializeOwned>(file: &str, text: std::io::Result<String>) -> Result<T, String> {
    let text = text.map_err(|e| format!("{file} cannot be read: {e}"))?;
    serde_saphyr::from_str(&text).map_err(|e| format!("{file}: {}", e.without_snippet()))
}

/// KubeletConfiguration, `kubelet.config.k8s.io/v1beta1`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KubeletFile {
    max_pods: Option<i64>,
    pods_per_core: Option<i64>,
}

/// KubeProxyConfiguration, `kubeproxy.config.k8s.io/v1alpha1`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProxyFile {
    mode: Option<String>,
    detect_local_mode: Option<String>,
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: Option<String>,
    detect_local: Option<DetectLocal>,
    iptables: Option<ProxyRules>,
    nftables: Option<ProxyRules>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DetectLocal {
    interface_name_prefix: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProxyRules {
    masquerade_all: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn kubelet_of(line: &str, files: &[&str]) -> Result<Kubelet, String> {
        let files = files.iter().enumerate();
        let files = files.map(|(i, text)| (format!("file {i}"), parse("", Ok((*text).to_owned())).unwrap()));
        merge_kubelet(Flags(&words(line)), files.collect())
    }

    #[test]
    fn the_kubelet_s_flag_wins_over_its_files_and_a_later_file_over_an_earlier_one() {
        let max_pods = |line: &str, files: &[&str]| {
            let kubelet = kubelet_of(line, files).unwrap();
            (kubelet.max_pods, kubelet.said)
        };
        let (first, second, silent) = ("kind: KubeletConfiguration\nmaxPods: 40\n", "maxPods: 50", "maxPods: 0\nx: {}");
        assert_eq!(max_pods("--v=2", &[]), (110, "Kubernetes' default".into()));
        assert_eq!(max_pods("--v=2", &[silent]), (110, "Kubernetes' default".into()));
        assert_eq!(max_pods("--v=2", &[first, second, silent]), (50, "file 1".into()));
        assert_eq!(max_pods("--max-pods 30", &[first, second]), (30, "its flag --max-pods".into()));
        assert_eq!(kubelet_of("--v=2", &["podsPerCore: 10", "maxPods: 9"]).unwrap().pods_per_core, 10);
        assert!(kubelet_of("--max-pods=many", &[]).is_err());
    }

    #[test]
    fn kube_proxy_s_file_is_read_as_kubeadm_writes_it() {
        let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nbindAddress: 0.0.0.0\nclusterCIDR: 10.244.0.0/16\n\
                    conntrack:\n  maxPerCore: null\ndetectLocal:\n  bridgeInterface: \"\"\n  interfaceNamePrefix: \"\"\n\
                    detectLocalMode: \"\"\niptables:\n  masqueradeAll: false\n  masqueradeBit: null\n\
                    kind: KubeProxyConfiguration\nmode: \"\"\nnftables:\n  masqueradeAll: true\n";
        let of = |text: &str| proxy_of_file("file", parse("", Ok(text.to_owned())).unwrap());
        let proxy = Proxy { said: "file".into(), cluster_cidr: "10.244.0.0/16".into(), ..Proxy::default() };
        assert_eq!(of(text), proxy);
        assert!(of(&text.replace("mode: \"\"", "mode: nftables")).masquerade_all, "the section of its own mode counts");
    }

    #[test]
    fn kube_proxy_s_flags_are_read_where_it_has_no_file() {
        let words = words(
            "--proxy-mode=ipvs --detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=azv \
                           --cluster-cidr=10.0.0.0/8 --masquerade-all",
        );
        let proxy = proxy_of_flags(Flags(&words));
        assert_eq!((proxy.mode.as_str(), proxy.detect_local.as_str()), ("ipvs", "InterfaceNamePrefix"));
        assert_eq!((proxy.interface_prefix.as_str(), proxy.cluster_cidr.as_str()), ("azv", "10.0.0.0/8"));
        assert!(proxy.masquerade_all);
    }

    #[test]
    fn routes_are_written_by_whoever_knows_the_cloud_and_gives_out_cidrs() {
        for (name, line, routes) in [
            (CLOUD_MANAGER, "--allocate-node-cidrs=true", true),
            (CLOUD_MANAGER, "--allocate-node-cidrs=true --configure-cloud-routes=false", false),
            (CLOUD_MANAGER, "--configure-cloud-routes=true", false),
            (KUBE_MANAGER, "--allocate-node-cidrs --cloud-provider=azure", true),
            (KUBE_MANAGER, "--allocate-node-cidrs --cloud-provider=azure --configure-cloud-routes=false", false),
            (KUBE_MANAGER, "--allocate-node-cidrs --cloud-provider external", false),
            (KUBE_MANAGER, "--allocate-node-cidrs", false),
        ] {
            assert_eq!(manager(name, Flags(&words(line))).routes, routes, "{name} {line}");
        }
    }
}
