//! One execution of the plugin with whatever a caller passes, and what it said, in a few words.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::process::{Command, Output, Stdio};

use dotfour_e2e::program::{Failure, shipped};
use dotfour_rig::daemon::socket_path;
use dotfour_rig::{Node, Pod};
use serde_json::{Map, Value, json};

/// The versions of the specification that VERSION must list, in its order.
pub(crate) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// An execution to be.
#[derive(Clone)]
pub(crate) struct Call {
    version: String,
    environment: BTreeMap<&'static str, String>,
    conf: Map<String, Value>,
}

/// What an execution said.
pub(crate) struct Said {
    version: String,
    output: Output,
}

impl Call {
    /// The least that the specification wants for a verb.
    pub(crate) fn new(verb: &str, version: &str, node: &Node) -> Self {
        let environment = BTreeMap::from([("CNI_COMMAND", verb.to_owned()), ("CNI_PATH", "/opt/cni/bin".to_owned())]);
        let conf = json!({ "cniVersion": version, "name": "azure", "type": "dotfour", "socket": socket_path(node) });
        let conf = if let Value::Object(conf) = conf { conf } else { Map::new() };
        Call { version: version.to_owned(), environment, conf }
    }

    pub(crate) fn of(self, pod: &Pod) -> Self {
        let netns = pod.netns_path().display().to_string();
        self.set("CNI_CONTAINERID", &pod.container_id).set("CNI_IFNAME", &pod.ifname).set("CNI_NETNS", &netns)
    }

    pub(crate) fn set(mut self, name: &'static str, value: &str) -> Self {
        self.environment.insert(name, value.to_owned());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// A key of the configuration.
    pub(crate) fn conf(mut self, key: &str, value: Value) -> Self {
        self.conf.insert(key.to_owned(), value);
        self
    }

    pub(crate) fn run(&self) -> Result<Said, Failure> {
        let mut child = Command::new(shipped("dotfour")?)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let conf = Value::Object(self.conf.clone()).to_string();
        match child.stdin.take().map(|mut stdin| stdin.write_all(conf.as_bytes())) {
            // It may refuse a call before it has read its input.
            Some(Err(e)) if e.kind() != ErrorKind::BrokenPipe => return Err(e.into()),
            _ => {}
        }
        Ok(Said { version: self.version.clone(), output: child.wait_with_output()? })
    }
}

impl Said {
    /// What was printed, if it is JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.output.stdout).unwrap_or_default()
    }

    /// The exit status, and the kind of output: `0 nothing`, `0 result`, `0 versions`, or a failure's code and cause. Whatever
    /// is not exactly as the specification has it is shown as it is.
    pub(crate) fn cell(&self) -> String {
        let Said { output, .. } = self;
        let printed = self.json();
        let shape = match output.status.code() {
            _ if !output.stderr.is_empty() => None,
            Some(0) if output.stdout.is_empty() => Some("nothing".to_owned()),
            Some(0) if self.is_result(&printed) => Some("result".to_owned()),
            Some(0) if self.is_versions(&printed) => Some("versions".to_owned()),
            Some(1) => self.error(&printed),
            _ => None,
        };
        match (shape, output.status.code()) {
            (Some(shape), Some(status)) => format!("{status} {shape}"),
            _ => format!(
                "{}, {}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout).trim(),
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        }
    }

    /// SPEC.md, "Result Types", of the version asked for: what each version added and dropped included.
    fn is_result(&self, printed: &Value) -> bool {
        let mtu = self.version == "1.1.0";
        let family = self.version.starts_with("0.");
        let interface = |interface: &Value, sandboxed: bool| {
            let mut wanted = vec!["mac", "name"];
            wanted.extend(mtu.then_some("mtu"));
            wanted.extend(sandboxed.then_some("sandbox"));
            has_exactly(interface, &wanted)
        };
        let ip = |ip: &Value| {
            let mut wanted = vec!["address", "gateway", "interface"];
            wanted.extend(family.then_some("version"));
            let whole = ip["address"].as_str().is_some_and(|address| address.ends_with("/32"));
            has_exactly(ip, &wanted) && whole && ip["interface"] == 1 && (!family || ip["version"] == "4")
        };
        has_exactly(printed, &["cniVersion", "dns", "interfaces", "ips", "routes"])
            && printed["cniVersion"] == self.version.as_str()
            && matches!(printed["interfaces"].as_array().map(Vec::as_slice),
                Some([node, pod]) if interface(node, false) && interface(pod, true))
            && matches!(printed["ips"].as_array().map(Vec::as_slice), Some([only]) if ip(only))
            && printed["routes"].as_array().is_some_and(|routes| routes.iter().all(|route| route["dst"].is_string()))
    }

    fn is_versions(&self, printed: &Value) -> bool {
        let supported = printed["supportedVersions"].as_array().map(Vec::as_slice).unwrap_or_default();
        has_exactly(printed, &["cniVersion", "supportedVersions"])
            && printed["cniVersion"] == self.version.as_str()
            && supported == VERSIONS
    }

    /// SPEC.md, "Error".
    fn error(&self, printed: &Value) -> Option<String> {
        let well_formed = has_exactly(printed, &["cniVersion", "code", "details", "msg"])
            && printed["cniVersion"] == self.version.as_str()
            && printed["details"].as_str().is_some_and(|details| !details.is_empty());
        let (cause, message) = printed["msg"].as_str()?.split_once(": ")?;
        (well_formed && !message.is_empty()).then(|| format!("{} {cause}", printed["code"]))
    }
}

/// Whether an object has these keys, sorted, and no others.
fn has_exactly(object: &Value, keys: &[&str]) -> bool {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    let mut found: Vec<&str> = object.as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
    found.sort_unstable();
    found == keys
}
