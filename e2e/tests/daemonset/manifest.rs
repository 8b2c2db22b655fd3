//! The manifests as typed objects.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dotfour_e2e::NewContainer;
use dotfour_e2e::program::{Failure, output};
use dotfour_ipamd::config::{Config, MetricsTarget};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde_json::Value;

use crate::image::repository;
use crate::{Outcome, chart};

/// The overlays there are.
const OVERLAYS: [&str; 3] = ["azure", "calico", "cilium"];

/// Objects of a file, or of what a program printed.
pub(crate) fn objects(text: &str) -> Result<Vec<Value>, Failure> {
    Ok(serde_saphyr::from_multiple(text)?)
}

pub(crate) fn file(path: &str) -> Result<Vec<Value>, Failure> {
    objects(&fs::read_to_string(repository().join("manifests").join(path))?)
}

/// An object as its type, which must hold every field of it: one that is misspelt, or where it does not belong, is missing
/// when the typed object is written again.
fn read<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Result<T, Failure> {
    let typed: T = serde_json::from_value(object.clone())?;
    let again = serde_json::to_value(&typed)?;
    if &again == object {
        return Ok(typed);
    }
    Err(format!("some field is not Kubernetes':\n{object:#}\nis read as\n{again:#}").into())
}

pub(crate) fn check(object: &Value) -> Outcome {
    match object.get("kind").and_then(Value::as_str) {
        Some("DaemonSet") => read::<DaemonSet>(object).map(drop),
        Some("ConfigMap") => read::<ConfigMap>(object).map(drop),
        Some("ServiceAccount") => read::<ServiceAccount>(object).map(drop),
        Some("ClusterRole") => read::<ClusterRole>(object).map(drop),
        Some("ClusterRoleBinding") => read::<ClusterRoleBinding>(object).map(drop),
        other => Err(format!("nobody knows the kind {other:?}").into()),
    }
}

/// The one object of a file of `manifests/`.
pub(crate) fn daemon_set(path: &str) -> Result<DaemonSet, Failure> {
    read(file(path)?.first().ok_or("an empty file")?)
}

/// The files of the ConfigMap.
pub(crate) fn config_files() -> Result<BTreeMap<String, String>, Failure> {
    let map: ConfigMap = read(file("base/configmap.yaml")?.first().ok_or("an empty file")?)?;
    Ok(map.data.into_iter().flatten().collect())
}

/// The pod of a DaemonSet.
pub(crate) fn pod(set: &DaemonSet) -> Result<&PodSpec, Failure> {
    Ok(set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).ok_or("no pod")?)
}

/// What a kubelet asks a runtime for, for a container of this pod: the node's files are where `place` says.
pub(crate) fn container(
    pod: &PodSpec,
    container: &Container,
    image: &str,
    place: impl Fn(&str) -> PathBuf,
    config: &Path,
) -> Result<NewContainer, Failure> {
    let security = container.security_context.as_ref().ok_or("no security context")?;
    assert_ne!(security.privileged, Some(true));
    let capabilities = security.capabilities.as_ref().ok_or("no capabilities")?;
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let mut volumes = pod.volumes.iter().flatten();
        let volume = volumes.find(|volume| volume.name == mount.name).ok_or("a mount of no volume")?;
        let host = match (&volume.host_path, &volume.config_map) {
            (Some(host), _) => place(&host.path),
            (_, Some(_)) => config.to_owned(),
            _ => return Err(format!("volume {} is of no kind that this test knows", volume.name).into()),
        };
        mounts.push((mount.mount_path.clone(), host, mount.read_only == Some(true)));
    }
    Ok(NewContainer {
        name: container.name.clone(),
        image: image.to_owned(),
        args: container.args.iter().flatten().cloned().collect(),
        mounts,
        add: capabilities.add.iter().flatten().cloned().collect(),
        drop: capabilities.drop.iter().flatten().cloned().collect(),
        read_only_root: security.read_only_root_filesystem == Some(true),
        no_new_privileges: security.allow_privilege_escalation == Some(false),
        user: security.run_as_user.unwrap_or_default(),
    })
}

pub(crate) fn typed() -> Outcome {
    for path in ["base/serviceaccount.yaml", "base/configmap.yaml", "base/daemonset.yaml", "uninstall/daemonset.yaml"] {
        let objects = file(path)?;
        assert_eq!(objects.len(), 1, "{path}");
        objects.iter().try_for_each(check).map_err(|e| format!("{path}: {e}"))?;
    }
    // What is wrong is seen.
    let mut wrong = file("base/daemonset.yaml")?.remove(0);
    let spec = wrong.pointer_mut("/spec/template/spec").and_then(Value::as_object_mut).ok_or("no pod")?;
    spec.insert("hostNetworks".into(), true.into());
    assert!(check(&wrong).is_err(), "a field that Kubernetes does not know was let through");
    Ok(())
}

pub(crate) fn modest() -> Outcome {
    let set = daemon_set("base/daemonset.yaml")?;
    let pod = pod(&set)?;
    assert_eq!(pod.priority_class_name.as_deref(), Some("system-node-critical"));
    assert_eq!((pod.host_network, pod.host_pid, pod.host_ipc), (Some(true), None, None));
    let profile = pod.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    assert_eq!(profile.map(|profile| profile.type_.as_str()), Some("RuntimeDefault"));
    let tolerations = pod.tolerations.iter().flatten();
    assert!(tolerations.clone().any(|t| t.key.is_none() && t.operator.as_deref() == Some("Exists")), "all taints");
    let containers = pod.init_containers.iter().flatten().chain(&pod.containers);
    for container in containers {
        let security = container.security_context.as_ref().ok_or("no security context")?;
        assert_eq!(security.read_only_root_filesystem, Some(true), "{}", container.name);
        assert_eq!(security.allow_privilege_escalation, Some(false), "{}", container.name);
        assert_ne!(security.privileged, Some(true), "{}", container.name);
        let capabilities = security.capabilities.as_ref().ok_or("no capabilities")?;
        assert_eq!(capabilities.drop.iter().flatten().collect::<Vec<_>>(), ["ALL"]);
        let wanted: &[&str] = if container.name == "ipamd" { &["NET_ADMIN", "SYS_ADMIN"] } else { &[] };
        assert_eq!(capabilities.add.iter().flatten().collect::<Vec<_>>(), wanted, "{}", container.name);
        for probe in [&container.startup_probe, &container.liveness_probe].into_iter().flatten() {
            assert!(probe.exec.is_none(), "a probe starts a process");
            let asked = probe.http_get.as_ref().ok_or("a probe that asks nobody")?;
            // The kubelet asks the daemon itself, and where the configuration says that it listens.
            assert_eq!(asked.host.as_deref(), Some("127.0.0.1"));
            let config = Config::parse(config_files()?.get("ipamd.yaml").ok_or("no ipamd.yaml")?)?;
            let MetricsTarget::Tcp(address) = config.metrics else { panic!("no port for the probes") };
            let port = serde_json::to_value(&asked.port)?;
            assert_eq!(port, Value::from(address.port()));
        }
    }
    let account: ServiceAccount = read(file("base/serviceaccount.yaml")?.first().ok_or("an empty file")?)?;
    assert_eq!(account.automount_service_account_token, Some(false), "no token reaches the node");
    Ok(())
}

/// Whether kubectl is one that renders overlays as they are written today. Debian 12 has 1.20, whose kustomize is version 2
/// and takes no directory as a resource; it says so once, and its test is ignored.
pub(crate) fn can_be_rendered() -> bool {
    const OLDEST: u64 = 21;
    let said = output(Command::new("kubectl").args(["version", "--client", "-o", "json"])).unwrap_or_default();
    let said: Value = serde_json::from_str(&said).unwrap_or_default();
    let minor = said.pointer("/clientVersion/minor").and_then(Value::as_str).unwrap_or_default();
    let new_enough = minor.trim_end_matches('+').parse().is_ok_and(|minor: u64| minor >= OLDEST);
    if !new_enough {
        eprintln!("NOT RUN: the overlays are rendered by kubectl 1.{OLDEST} or later, and here is 1.{minor:?}");
    }
    new_enough
}

pub(crate) fn overlays() -> Outcome {
    let rendered = |directory: &str| -> Result<Vec<Value>, Failure> {
        let path = repository().join("manifests").join(directory);
        let objects = objects(&output(Command::new("kubectl").arg("kustomize").arg(&path))?)?;
        objects.iter().try_for_each(check).map_err(|e| format!("{directory}: {e}"))?;
        let image = |object: &Value| object.pointer("/spec/template/spec/initContainers/0/image").cloned();
        let images: Vec<Value> = objects.iter().filter_map(image).collect();
        assert_eq!(images, ["registry.example.com/dotfour:0.1.0"], "{directory}: one image, from where it is said");
        Ok(objects)
    };
    rendered("uninstall")?;
    for overlay in OVERLAYS {
        let objects = rendered(&format!("overlays/{overlay}"))?;
        let sets: Vec<&Value> = objects.iter().filter(|object| object["kind"] == "DaemonSet").collect();
        assert_eq!(sets.len(), 1, "{overlay}");
        let config = objects.iter().find_map(|object| object.pointer("/data/ipamd.yaml")?.as_str());
        let config = Config::parse(config.ok_or("no ipamd.yaml")?).map_err(|e| format!("{overlay}: {e}"))?;
        assert_eq!(
            config.cni.conf_dir.is_some(),
            overlay != "cilium",
            "{overlay}: who writes the network configuration"
        );
    }
    component()
}

/// The base with the component for a start-up taint is what the chart renders, but for the ConfigMap.
fn component() -> Outcome {
    let manifests = repository().join("manifests");
    // A kustomization names its parts by relative paths, so it is beside them.
    let directory = tempfile::Builder::new().prefix("overlay-").tempdir_in(&manifests)?;
    let text = "resources: [../base]\ncomponents: [../components/startup-taint]\n";
    fs::write(directory.path().join("kustomization.yaml"), text)?;
    let rendered = objects(&output(Command::new("kubectl").arg("kustomize").arg(directory.path()))?)?;
    rendered.iter().try_for_each(check)?;
    let mut chart = chart::with_taint()?;
    assert_eq!(rendered.len(), chart.len());
    // Lists whose members have names: their order is kustomize's.
    let sorted = |object: &Value| {
        let mut object = object.clone();
        for list in ["/spec/template/spec/volumes", "/spec/template/spec/containers/0/volumeMounts"] {
            let Some(list) = object.pointer_mut(list).and_then(Value::as_array_mut) else { continue };
            list.sort_by_key(|member| member["name"].to_string());
        }
        object
    };
    chart.retain(|object| object["kind"] != "ConfigMap");
    for object in &chart {
        let same = rendered.iter().any(|other| sorted(other) == sorted(object));
        assert!(same, "the chart says\n{object:#}\nand kustomize none that is the same of\n{rendered:#?}");
    }
    Ok(())
}
