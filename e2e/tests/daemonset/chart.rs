//! The Helm chart renders what kustomize's base is.
//!
//! Helm is in no Debian release, so a renderer of our own stands in for it. It knows the few words that the templates use
//! and refuses all others, so that a template cannot become cleverer than this test.

use std::fs;

use dotfour_e2e::program::Failure;
use dotfour_ipamd::config::Config;
use serde_json::{Value, json};

use crate::Outcome;
use crate::image::repository;
use crate::manifest::{check, file, objects};

const TEMPLATES: [&str; 4] = ["serviceaccount.yaml", "configmap.yaml", "daemonset.yaml", "startup-taint.yaml"];

const TAINT: &str = "node.dotfour.io/not-ready";

pub(crate) fn equal() -> Outcome {
    let rendered = render(&values()?)?;
    let mut base = Vec::new();
    for path in ["base/serviceaccount.yaml", "base/configmap.yaml", "base/daemonset.yaml"] {
        base.extend(file(path)?);
    }
    assert_eq!(rendered.len(), base.len());
    for (chart, base) in rendered.iter().zip(&base) {
        assert!(chart == base, "the chart says\n{chart:#}\nand the base\n{base:#}");
    }
    Ok(())
}

/// What the chart renders for a start-up taint.
pub(crate) fn with_taint() -> Result<Vec<Value>, Failure> {
    let mut values = values()?;
    *values.get_mut("startupTaint").ok_or("no startupTaint")? = TAINT.into();
    render(&values)
}

pub(crate) fn taint() -> Outcome {
    let rendered = with_taint()?;
    rendered.iter().try_for_each(check)?;
    let (of_base, of_taint) = rendered.split_at(3);
    let role = file("components/startup-taint/role.yaml")?;
    assert!(of_taint == role, "the chart says\n{of_taint:#?}\nand the component\n{role:#?}");
    let rules = role.first().and_then(|role| role.pointer("/rules"));
    assert_eq!(rules, Some(&json!([{ "apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"] }])));
    let [_, map, set] = of_base else { return Err("not the base's objects".into()) };
    let text = map.pointer("/data/ipamd.yaml").and_then(Value::as_str).ok_or("no ipamd.yaml")?;
    assert_eq!(Config::parse(text)?.startup_taint.as_deref(), Some(TAINT));
    // Only what the component adds, and to the daemon's container alone.
    let patch = file("components/startup-taint/daemonset.yaml")?.remove(0);
    let mut expected = file("base/daemonset.yaml")?.remove(0);
    for list in ["/spec/template/spec/containers/0/volumeMounts", "/spec/template/spec/volumes"] {
        let added = patch.pointer(list).and_then(Value::as_array).ok_or("no list in the component")?;
        expected.pointer_mut(list).and_then(Value::as_array_mut).ok_or("no list in the base")?.extend(added.clone());
    }
    let container = expected.pointer_mut("/spec/template/spec/containers/0").ok_or("no container")?;
    let environment = patch.pointer("/spec/template/spec/containers/0/env").ok_or("no environment")?;
    container.as_object_mut().ok_or("no container")?.insert("env".into(), environment.clone());
    assert!(*set == expected, "the chart says\n{set:#}\nand the base with the component\n{expected:#}");
    Ok(())
}

pub(crate) fn pools() -> Outcome {
    let mut values = values()?;
    let pools = values.get_mut("nodePools").and_then(Value::as_array_mut).ok_or("no pools")?;
    pools.push(json!({
        "name": "dotfour-gpu",
        "nodeSelector": { "agentpool": "gpu" },
        "port": 61445,
        "config": "metrics: 127.0.0.1:61445\nmaxPods: 100\nsource:\n  kind: wireserver\n",
    }));
    let objects = render(&values)?;
    objects.iter().try_for_each(check)?;
    let named = |kind: &str, name: &str| {
        objects.iter().find(|object| object["kind"] == kind && object.pointer("/metadata/name") == Some(&name.into()))
    };
    let set = named("DaemonSet", "dotfour-gpu").ok_or("no DaemonSet for the second pool")?;
    assert_eq!(set.pointer("/spec/template/spec/nodeSelector"), Some(&json!({ "agentpool": "gpu" })));
    assert_eq!(set.pointer("/spec/template/spec/volumes/0/configMap/name"), Some(&"dotfour-gpu".into()));
    let probe = set.pointer("/spec/template/spec/containers/0/livenessProbe/httpGet/port");
    assert_eq!(probe, Some(&61445.into()));
    let map = named("ConfigMap", "dotfour-gpu").and_then(|map| map.pointer("/data/ipamd.yaml")?.as_str());
    assert!(map.is_some_and(|text| text.contains("maxPods: 100")), "{map:?}");
    // Each pool's DaemonSet knows its own pods.
    let other = named("DaemonSet", "dotfour-ipamd").ok_or("no DaemonSet for the first pool")?;
    assert_ne!(set.pointer("/spec/selector"), other.pointer("/spec/selector"));
    assert!(render(&json!({ "nodePools": [{}] })).is_err(), "a value that is missing is an error");
    Ok(())
}

fn values() -> Result<Value, Failure> {
    Ok(file("helm/dotfour/values.yaml")?.remove(0))
}

fn render(values: &Value) -> Result<Vec<Value>, Failure> {
    let root = json!({ "Values": values, "Release": { "Namespace": "kube-system" } });
    let mut all = Vec::new();
    for name in TEMPLATES {
        let text = fs::read_to_string(repository().join("manifests/helm/dotfour/templates").join(name))?;
        let lines: Vec<&str> = text.lines().collect();
        let mut rendered = String::new();
        block(&lines, &root, &root, &mut rendered).map_err(|e| format!("{name}: {e}"))?;
        all.extend(objects(&rendered)?.into_iter().filter(|object| !object.is_null()));
    }
    Ok(all)
}

/// Lines, among which whole lines `{{- range X }}`, `{{- with X }}` and `{{- end }}` make blocks.
fn block(lines: &[&str], dot: &Value, root: &Value, out: &mut String) -> Outcome {
    let mut rest = lines;
    while let Some((line, after)) = rest.split_first() {
        rest = after;
        let Some(action) = line.strip_prefix("{{- ").and_then(|line| line.strip_suffix(" }}")) else {
            out.push_str(&text(line, dot, root)?);
            out.push('\n');
            continue;
        };
        let mut depth = 1;
        let end = rest.iter().position(|line| {
            depth += i32::from(line.starts_with("{{- range ") || line.starts_with("{{- with "));
            depth -= i32::from(*line == "{{- end }}");
            depth == 0
        });
        let (inner, after) = rest.split_at(end.ok_or("a block without its end")?);
        rest = after.get(1..).unwrap_or_default();
        match action.split_once(' ') {
            Some(("range", path)) => {
                for item in value(path, dot, root)?.as_array().ok_or("range over no list")? {
                    block(inner, item, root, out)?;
                }
            }
            Some(("with", path)) => {
                let found = value(path, dot, root)?;
                let is_empty = match found {
                    Value::String(text) => text.is_empty(),
                    other => other.as_object().is_none_or(serde_json::Map::is_empty),
                };
                if !is_empty {
                    block(inner, found, root, out)?;
                }
            }
            _ => return Err(format!("{action:?} is more than this test can render").into()),
        }
    }
    Ok(())
}

/// A line with its `{{ X }}`, `{{ X | indent N }}` and `{{ toYaml . | indent N }}`.
fn text(line: &str, dot: &Value, root: &Value) -> Result<String, Failure> {
    let Some((before, rest)) = line.split_once("{{ ") else { return Ok(line.to_owned()) };
    let (action, after) = rest.split_once(" }}").ok_or("an action without its end")?;
    let (what, indent) = match action.split_once(" | indent ") {
        Some((what, indent)) => (what, indent.parse::<usize>()?),
        None => (action, 0),
    };
    let text = match what.strip_prefix("toYaml ") {
        // JSON is YAML, but for a block.
        Some(path) => {
            let object = value(path, dot, root)?.as_object().ok_or("toYaml of no object")?;
            object.iter().map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>().join("\n")
        }
        None => match value(what, dot, root)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            other => return Err(format!("{what} is {other}").into()),
        },
    };
    let pad = " ".repeat(indent);
    let lines: Vec<String> = text.lines().map(|line| format!("{pad}{line}")).collect();
    Ok(format!("{before}{}{}", lines.join("\n"), self::text(after, dot, root)?))
}

/// `.`, `.a.b` or `$.a.b`.
fn value<'v>(path: &str, dot: &'v Value, root: &'v Value) -> Result<&'v Value, Failure> {
    let (from, path) = path.strip_prefix('$').map_or((dot, path), |path| (root, path));
    let pointer = if path == "." { String::new() } else { path.replace('.', "/") };
    if !path.starts_with('.') {
        return Err(format!("{path:?} is more than this test can render").into());
    }
    from.pointer(&pointer).ok_or_else(|| format!("there is no value {path}").into())
}
