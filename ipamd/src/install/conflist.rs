//! The network configuration list: what stands in ours, and whose the files in a directory are.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{DELEGATE, PLUGIN};
use crate::config::Config;

/// The endings of the files that runtimes read, as libcni's ConfFiles has them.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// The longest file that is looked into, in bytes.
const LONGEST: u64 = 1 << 20;

/// What a list says that has no plugin but ours in it. containerd 1.6 refuses later ones.
const VERSION: &str = "1.0.0";

/// What it offers besides, to runtimes that read `cniVersions` (CNI 1.1). Those take the highest that they know; others
/// ignore the key.
const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The text of our list. `portmap` has the versions that the portmap plugin supports; `None` leaves it out. One version is
/// spoken with all plugins of a list, so none is offered that portmap does not speak.
pub fn text(config: &Config, portmap: Option<&[String]>) -> String {
    let spoken = |version: &str| portmap.is_none_or(|versions| versions.iter().any(|known| known == version));
    let offered: Vec<&str> = VERSIONS.into_iter().filter(|version| spoken(version)).collect();
    // With a plugin that speaks none of them, nothing works; it is to be seen in the runtime's error.
    let version = offered.iter().rfind(|version| **version <= VERSION).unwrap_or(&VERSION);
    // A runtime passes on what was asked for (`runtimeConfig.ips`) only to a plugin that says so.
    let capabilities = json!({"ips": true});
    let mut ours = Map::from_iter([("type".to_owned(), json!(PLUGIN)), ("capabilities".to_owned(), capabilities)]);
    if config.socket != Path::new(dotfour_protocol::DEFAULT_SOCKET) {
        ours.insert("socket".into(), json!(config.socket));
    }
    if config.spool_dir != config.socket.with_file_name(dotfour_protocol::SPOOL_NAME) {
        ours.insert("spoolDir".into(), json!(config.spool_dir));
    }
    let mut plugins = vec![Value::Object(ours)];
    if portmap.is_some() {
        plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}));
    }
    let list = json!({
        "cniVersion": version,
        "cniVersions": offered,
        "name": config.cni.network,
        "plugins": plugins,
    });
    format!("{list:#}\n")
}

/// Whose a network configuration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A plugin of type `dotfour` is in it.
    Ours,
    /// A plugin of somebody else's wires pods, with addresses from `dotfour-ipam`. It is its author's: not made here, and not
    /// removed.
    Delegating,
    /// Multus, which comes first on purpose and asks the one behind it.
    Multus,
    /// Somebody else.
    Other,
    /// It cannot be read or is no network configuration. containerd stops at such a file and looks no further.
    Unreadable,
}

/// One network configuration of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its file name.
    pub name: String,
    /// Whose it is.
    pub owner: Owner,
}

/// The network configurations of a directory, in the order in which runtimes prefer them. None where there is no such
/// directory.
///
/// # Errors
/// The directory cannot be read.
pub fn look(directory: &Path) -> io::Result<Vec<Found>> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if ENDINGS.contains(&ending) && !path.is_dir() {
            let name = entry.file_name().to_string_lossy().into_owned();
            found.push(Found { name, owner: owner(&path) });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// The one of others' that a runtime takes instead of `ours`, because it comes first.
pub fn first_foreign<'f>(found: &'f [Found], ours: &str) -> Option<&'f Found> {
    let first = found.iter().find(|file| matches!(file.owner, Owner::Other | Owner::Unreadable))?;
    (first.name.as_str() < ours).then_some(first)
}

fn owner(path: &Path) -> Owner {
    let short = fs::metadata(path).is_ok_and(|file| file.len() <= LONGEST);
    let text = if short { fs::read(path).unwrap_or_default() } else { Vec::new() };
    whose(&text)
}

fn whose(text: &[u8]) -> Owner {
    let Ok(configuration) = serde_json::from_slice::<Value>(text) else { return Owner::Unreadable };
    let plugins = match configuration.get("plugins").and_then(Value::as_array) {
        Some(plugins) => plugins.as_slice(),
        None => std::slice::from_ref(&configuration),
    };
    let at = |pointer: &str| plugins.iter().filter_map(|plugin| plugin.pointer(pointer)?.as_str()).collect::<Vec<_>>();
    let kinds = at("/type");
    match kinds.first() {
        None => Owner::Unreadable,
        Some(_) if kinds.contains(&PLUGIN) => Owner::Ours,
        Some(first) if first.starts_with("multus") => Owner::Multus,
        Some(_) if at("/ipam/type").contains(&DELEGATE) => Owner::Delegating,
        Some(_) => Owner::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        Config::parse(&format!("{more}\nsource: {{kind: wireserver}}\n")).unwrap()
    }

    fn list(config: &Config, portmap: Option<&[&str]>) -> Value {
        let portmap: Option<Vec<String>> = portmap.map(|versions| versions.iter().map(ToString::to_string).collect());
        serde_json::from_str(&text(config, portmap.as_deref())).unwrap()
    }

    #[test]
    fn the_list_has_portmap_behind_ours_and_no_version_that_portmap_does_not_speak() {
        let plain = config("");
        assert_eq!(
            list(&plain, Some(&["0.1.0", "0.3.1", "0.4.0", "1.0.0"])),
            json!({
                "cniVersion": "1.0.0", "cniVersions": ["0.3.1", "0.4.0", "1.0.0"], "name": "azure",
                "plugins": [
                    {"type": "dotfour", "capabilities": {"ips": true}},
                    {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
                ],
            })
        );
        let newest = list(&plain, Some(&["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
        assert_eq!(newest["cniVersion"], "1.0.0", "containerd 1.6 refuses 1.1.0");
        assert_eq!(newest["cniVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
        assert_eq!(list(&plain, Some(&["0.3.1", "0.4.0"]))["cniVersion"], "0.4.0");
        let alone = list(&plain, None);
        assert_eq!(alone["plugins"], json!([{"type": "dotfour", "capabilities": {"ips": true}}]));
        assert_eq!(alone["cniVersions"], json!(VERSIONS));
    }

    #[test]
    fn the_plugin_is_told_what_is_not_at_its_usual_place() {
        let moved = config("socket: /run/two/ipamd.sock\nspoolDir: /run/spool2\ncniNetwork: blue");
        let moved = list(&moved, None);
        assert_eq!(moved["plugins"][0]["socket"], "/run/two/ipamd.sock");
        assert_eq!(moved["plugins"][0]["spoolDir"], "/run/spool2");
        assert_eq!(moved["name"], "blue");
        let beside = list(&config("socket: /run/two/ipamd.sock"), None);
        assert_eq!(beside["plugins"][0].get("spoolDir"), None);
    }

    #[test]
    fn a_configuration_belongs_to_whoever_s_plugin_is_in_it() {
        for (text, owner) in [
            (r#"{"plugins": [{"type": "dotfour"}, {"type": "portmap"}]}"#, Owner::Ours),
            (r#"{"plugins": [{"type": "ptp"}, {"type": "dotfour"}]}"#, Owner::Ours),
            (r#"{"type": "dotfour"}"#, Owner::Ours),
            (r#"{"type": "ptp", "ipam": {"type": "dotfour-ipam"}}"#, Owner::Delegating),
            (
                r#"{"plugins": [{"type": "bridge", "ipam": {"type": "dotfour-ipam"}}, {"type": "portmap"}]}"#,
                Owner::Delegating,
            ),
            (r#"{"plugins": [{"type": "ptp", "ipam": {"type": "host-local"}}]}"#, Owner::Other),
            (r#"{"ipam": {"type": "dotfour-ipam"}}"#, Owner::Unreadable),
            (r#"{"type": "multus-shim", "delegates": [{"type": "dotfour"}]}"#, Owner::Multus),
            (r#"{"plugins": [{"type": "azure-vnet"}]}"#, Owner::Other),
            (r#"{"type": "bridge"}"#, Owner::Other),
            (r#"{"plugins": []}"#, Owner::Unreadable),
            (r#"{"name": "dotfour"}"#, Owner::Unreadable),
            ("", Owner::Unreadable),
            ("half a li", Owner::Unreadable),
        ] {
            assert_eq!(whose(text.as_bytes()), owner, "{text}");
        }
    }

    #[test]
    fn what_comes_first_is_what_the_runtime_takes() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        let first = || {
            let found = look(directory.path()).unwrap();
            first_foreign(&found, "10-dotfour.conflist").map(|file| file.name.clone())
        };
        assert_eq!(first(), None);
        put("10-dotfour.conflist", r#"{"plugins": [{"type": "dotfour"}]}"#);
        put("00-multus.conf", r#"{"type": "multus-shim"}"#);
        put("87-podman.conflist", r#"{"plugins": [{"type": "bridge"}]}"#);
        put("05-cilium.conflist.cilium_bak", r#"{"plugins": [{"type": "cilium-cni"}]}"#);
        put(".dotfour-unfinished-1", "");
        assert_eq!(first(), None);
        put("10-azure.conflist", r#"{"plugins": [{"type": "azure-vnet"}]}"#);
        assert_eq!(first().as_deref(), Some("10-azure.conflist"));
        fs::remove_file(directory.path().join("10-azure.conflist")).unwrap();
        put("07-ptp.conf", r#"{"type": "ptp", "ipam": {"type": "dotfour-ipam"}}"#);
        assert_eq!(first(), None, "its pods have Dotfour's addresses");
        fs::remove_file(directory.path().join("07-ptp.conf")).unwrap();
        put("10-azure.conflist", r#"{"plugins": [{"type": "azure-vnet"}]}"#);
        put("05-broken.json", "{");
        assert_eq!(first().as_deref(), Some("05-broken.json"));
        let names: Vec<_> = look(directory.path()).unwrap().into_iter().map(|file| file.name).collect();
        assert_eq!(
            names,
            ["00-multus.conf", "05-broken.json", "10-azure.conflist", "10-dotfour.conflist", "87-podman.conflist"]
        );
        assert!(look(&directory.path().join("missing")).unwrap().is_empty());
    }
}
