//! The start-up taint: whoever makes nodes gives them a taint that keeps pods away, and the daemon takes it off when pods can
//! be wired.

use std::time::Duration;

use serde_json::{Value, json};
use tracing::{info, warn};

use crate::errors::with_source;
use crate::kubernetes::{ApiError, ApiServer, variable};

/// Named by the pod's specification, from the downward API.
const NODE_NAME: &str = "NODE_NAME";

/// The pauses between attempts: the first, and the longest, which a server that is gone is asked in.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A right that is missing appears when a person gives it.
const FORBIDDEN_PAUSE: Duration = Duration::from_secs(300);

/// A node that was changed between question and patch is asked anew at once, but never as fast as that could be.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);

/// So many attempts in a row that a node changes under: from there on it is a failure like others.
const MOST_CONFLICTS: u32 = 10;

/// Removes every taint with this key from the node of this pod, whatever its value and effect, and tries until that is done.
/// Each kind of failure is told once.
pub async fn remove(key: String) {
    let (server, name) = match ApiServer::of_this_pod().and_then(|server| Ok((server, variable(NODE_NAME)?))) {
        Ok(found) => found,
        Err(e) => return warn!("startupTaint: {key} is not removed: {e}"),
    };
    let (mut pause, mut conflicts, mut told) = (FIRST_PAUSE, 0, String::new());
    loop {
        let failed = match remove_once(&server, &name, &key).await {
            Ok(true) => return info!("took the taint {key} off the node {name}"),
            Ok(false) => return info!("the node {name} has no taint {key}"),
            Err(failed) => failed,
        };
        conflicts = if matches!(failed, ApiError::Conflict(_)) { conflicts + 1 } else { 0 };
        if (1..MOST_CONFLICTS).contains(&conflicts) {
            tokio::time::sleep(CONFLICT_PAUSE).await;
            continue;
        }
        let now = with_source(&failed);
        if now != told {
            warn!("the taint {key} is still on the node {name}, and will be tried again; pods are served: {now}");
            told = now;
        }
        let forbidden = matches!(failed, ApiError::Forbidden { .. });
        tokio::time::sleep(if forbidden { FORBIDDEN_PAUSE } else { pause }).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// One look and, if the taint is there, one patch. Whether it was there.
async fn remove_once(server: &ApiServer, name: &str, key: &str) -> Result<bool, ApiError> {
    match patch(&server.node(name).await?, key) {
        Some(patch) => server.patch_node(name, &patch).await.map(|()| true),
        None => Ok(false),
    }
}

/// What removes the taints, and nothing else: each is named by its place, and is still to be what it was there. Others' taints
/// that come or go meanwhile make the patch fail, or are not touched by it.
fn patch(node: &Value, key: &str) -> Option<Value> {
    let taints = node.pointer("/spec/taints")?.as_array()?;
    let ours = taints.iter().enumerate().filter(|(_, taint)| taint.get("key").and_then(Value::as_str) == Some(key));
    // From the last on, so that the places before it stay right.
    let steps: Vec<Value> = ours
        .rev()
        .flat_map(|(place, taint)| {
            let path = format!("/spec/taints/{place}");
            [json!({ "op": "test", "path": path, "value": taint }), json!({ "op": "remove", "path": path })]
        })
        .collect();
    (!steps.is_empty()).then(|| steps.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "node.dotfour.io/not-ready";

    fn taint(key: &str, effect: &str) -> Value {
        json!({ "key": key, "effect": effect })
    }

    fn patched(taints: &[Value], meanwhile: &[Value]) -> Option<Result<Value, json_patch::PatchError>> {
        let patch = patch(&json!({ "spec": { "taints": taints } }), KEY)?;
        let mut node = json!({ "spec": { "taints": meanwhile } });
        let steps: json_patch::Patch = serde_json::from_value(patch).unwrap();
        Some(json_patch::patch(&mut node, &steps).map(|()| node["spec"]["taints"].clone()))
    }

    #[test]
    fn every_taint_of_the_key_goes_and_all_others_stay() {
        let other = taint("node.cloudprovider.kubernetes.io/uninitialized", "NoSchedule");
        let taints = [taint(KEY, "NoSchedule"), other.clone(), taint(KEY, "NoExecute")];
        assert_eq!(patched(&taints, &taints).unwrap().unwrap(), json!([other]));
        assert!(patched(std::slice::from_ref(&other), &[]).is_none());
        assert_eq!(patch(&json!({ "spec": {} }), KEY), None);
    }

    #[test]
    fn a_node_whose_taints_have_moved_is_not_changed() {
        let (ours, other) = (taint(KEY, "NoSchedule"), taint("disk", "NoSchedule"));
        assert!(patched(std::slice::from_ref(&ours), &[other.clone(), ours.clone()]).unwrap().is_err());
        let kept = patched(std::slice::from_ref(&ours), &[ours.clone(), other.clone()]).unwrap().unwrap();
        assert_eq!(kept, json!([other]), "one that came behind it is no matter");
    }
}
