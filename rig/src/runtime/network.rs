//! Network configurations.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// A network configuration list (CNI specification 1.1, section 1).
#[derive(Debug, Clone)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its version.
    pub cni_version: String,
    /// Its plugins, in order.
    pub plugins: Vec<Plugin>,
    /// Where programs are looked for, also by plugins that call others.
    pub cni_path: Vec<PathBuf>,
}

/// One plugin of a list.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// The program.
    pub binary: PathBuf,
    /// Its configuration, without what is injected (name, version, result of the plugin before).
    pub conf: Map<String, Value>,
}

/// A configuration that is none.
#[derive(Debug, thiserror::Error)]
#[error("this is not a network configuration list: {0}")]
pub struct ConfigError(String);

impl Network {
    /// Reads a configuration list (`.conflist`). Programs are the plugins' types, found in `cni_path`.
    pub fn from_list(text: &str, cni_path: Vec<PathBuf>) -> Result<Self, ConfigError> {
        let bad = |what: &str| ConfigError(what.to_owned());
        let list: Value = serde_json::from_str(text).map_err(|e| ConfigError(e.to_string()))?;
        let text_of = |key: &str| list.get(key).and_then(Value::as_str).map(str::to_owned);
        let plugins = list.get("plugins").and_then(Value::as_array).ok_or_else(|| bad("no plugins"))?;
        let plugins = plugins
            .iter()
            .map(|conf| Plugin::found(conf, &cni_path).ok_or_else(|| bad("a plugin without type")))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Network {
            name: text_of("name").ok_or_else(|| bad("no name"))?,
            cni_version: text_of("cniVersion").ok_or_else(|| bad("no cniVersion"))?,
            plugins,
            cni_path,
        })
    }

    /// The network that Dotfour serves, as its installer writes it.
    pub fn dotfour(plugin_dir: &Path, socket: &Path) -> Self {
        let conf = json!({ "type": "dotfour", "socket": socket });
        Network::single("azure", "1.1.0", &conf, vec![plugin_dir.to_owned()])
    }

    /// The reference plugins `ptp` and `host-local`, for comparison. `data_dir` is host-local's.
    pub fn ptp(cni_dir: &Path, subnet: ipnet::Ipv4Net, data_dir: &Path) -> Self {
        let conf = json!({
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": data_dir,
                "ranges": [[{ "subnet": subnet }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        });
        Network::single("ptp", "1.0.0", &conf, vec![cni_dir.to_owned()])
    }

    /// A network of one plugin, whose program is its type, found in `cni_path`.
    pub fn single(name: &str, cni_version: &str, conf: &Value, cni_path: Vec<PathBuf>) -> Self {
        Network {
            name: name.to_owned(),
            cni_version: cni_version.to_owned(),
            plugins: Plugin::found(conf, &cni_path).into_iter().collect(),
            cni_path,
        }
    }

    /// This network for one pod: each plugin gets, as `runtimeConfig`, those of the runtime's `arguments` that its
    /// `capabilities` name (CNI's CONVENTIONS.md, "Dynamic Plugin specific fields"). One that gets none has no such key.
    pub fn with_capability_arguments(&self, arguments: &Map<String, Value>) -> Self {
        let mut network = self.clone();
        for plugin in &mut network.plugins {
            let able = |name: &str| {
                let capability = plugin.conf.get("capabilities").and_then(|capabilities| capabilities.get(name));
                capability.and_then(Value::as_bool).unwrap_or_default()
            };
            let handed = arguments.iter().filter(|(name, _)| able(name));
            let handed: Map<String, Value> = handed.map(|(name, value)| (name.clone(), value.clone())).collect();
            if !handed.is_empty() {
                plugin.conf.insert("runtimeConfig".to_owned(), Value::Object(handed));
            }
        }
        network
    }

    /// This network for one GC, with the list of what must stay (CNI specification 1.1, "GC").
    pub(super) fn sparing(&self, valid: &[(&str, &str)]) -> Self {
        let entry = |(container_id, ifname): &(&str, &str)| json!({ "containerID": container_id, "ifname": ifname });
        let list: Value = valid.iter().map(entry).collect();
        let mut network = self.clone();
        for plugin in &mut network.plugins {
            plugin.conf.insert("cni.dev/valid-attachments".to_owned(), list.clone());
        }
        network
    }

    /// What a plugin gets on standard input: its configuration with name, version and the result of the plugin before.
    pub fn input(&self, plugin: &Plugin, previous: Option<&Value>) -> Value {
        let mut input = plugin.conf.clone();
        input.insert("name".to_owned(), self.name.clone().into());
        input.insert("cniVersion".to_owned(), self.cni_version.clone().into());
        if let Some(result) = previous {
            input.insert("prevResult".to_owned(), result.clone());
        }
        Value::Object(input)
    }
}

impl Plugin {
    /// A plugin whose program is its type, found in `cni_path`; a missing program shows when it is called.
    fn found(conf: &Value, cni_path: &[PathBuf]) -> Option<Self> {
        let kind = conf.get("type")?.as_str()?;
        let candidates = || cni_path.iter().map(|directory| directory.join(kind));
        let binary = candidates().find(|path| path.is_file()).or_else(|| candidates().next())?;
        Some(Plugin { binary, conf: conf.as_object()?.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_gets_its_own_configuration_with_name_version_and_result() {
        let text =
            r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a","x":1},{"type":"b"}],"disableCheck":true}"#;
        let network = Network::from_list(text, vec!["/opt/cni/bin".into()]).unwrap();
        assert_eq!(network.plugins[1].binary, Path::new("/opt/cni/bin/b"));
        let input = network.input(&network.plugins[0], None);
        assert_eq!(input, json!({"type": "a", "x": 1, "name": "n", "cniVersion": "1.0.0"}));
        let input = network.input(&network.plugins[1], Some(&json!({"ips": []})));
        assert_eq!(input, json!({"type": "b", "name": "n", "cniVersion": "1.0.0", "prevResult": {"ips": []}}));
    }

    #[test]
    fn a_plugin_is_handed_the_capabilities_it_names_and_no_others() {
        let text = r#"{"cniVersion":"1.0.0","name":"n","plugins":[
            {"type":"a","capabilities":{"portMappings":true,"bandwidth":false}},{"type":"b"}]}"#;
        let network = Network::from_list(text, vec!["/opt/cni/bin".into()]).unwrap();
        let arguments = json!({ "portMappings": [{ "hostPort": 80 }], "bandwidth": { "ingressRate": 1 } });
        let for_pod = network.with_capability_arguments(arguments.as_object().unwrap());
        assert_eq!(for_pod.plugins[0].conf["runtimeConfig"], json!({ "portMappings": [{ "hostPort": 80 }] }));
        assert_eq!(for_pod.plugins[1].conf, network.plugins[1].conf);
    }

    #[test]
    fn gc_tells_every_plugin_what_must_stay() {
        let text = r#"{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"a"},{"type":"b"}]}"#;
        let network =
            Network::from_list(text, vec!["/opt/cni/bin".into()]).unwrap().sparing(&[("c1", "eth0"), ("c1", "net1")]);
        for plugin in &network.plugins {
            let list = json!([{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c1", "ifname": "net1"}]);
            assert_eq!(plugin.conf["cni.dev/valid-attachments"], list);
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in
            ["", "{}", r#"{"name":"n","cniVersion":"1.0.0"}"#, r#"{"name":"n","cniVersion":"1.0.0","plugins":[{}]}"#]
        {
            assert!(Network::from_list(text, vec![]).is_err(), "{text}");
        }
    }
}
