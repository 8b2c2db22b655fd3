//! A pod's sandbox as a container runtime makes it: a network namespace with only a loopback link, and names.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use dotfour_datapath::link::{Link, LinkChange, LinkId};
use dotfour_datapath::{Batch, Netns};

use crate::fabric::open_in;
use crate::place::PlacedNetns;
use crate::{Node, RigError};

/// A pod's sandbox. Its namespace ends when this is dropped and nothing runs in it.
#[derive(Debug)]
pub struct Pod {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes name.
    pub name: String,
    /// Kubernetes UID.
    pub uid: String,
    /// Id of the sandbox container: 64 hex digits.
    pub container_id: String,
    /// Name of the interface that is wanted.
    pub ifname: String,
    netns: PlacedNetns,
}

impl Pod {
    /// Makes a sandbox on a node. Its loopback link is up, which runtimes see to with a plugin of its own.
    pub fn create(node: &Node, namespace: &str, name: &str) -> Result<Self, RigError> {
        let container_id = random_hex(64);
        let netns = node.place().create_netns(&format!("cni-{}", container_id.get(..16).unwrap_or_default()))?;
        let mut batch = Batch::new();
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        batch.change_link("set up the loopback link", LinkId::Name("lo"), &up);
        let subject = format!("pod {namespace}/{name}");
        open_in(&subject, netns.netns())?.run(batch).map_err(|source| RigError::Kernel { subject, source })?;
        let h = random_hex(32);
        let part = |from: usize, to: usize| h.get(from..to).unwrap_or_default();
        Ok(Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-"),
            container_id,
            ifname: "eth0".to_owned(),
            netns,
        })
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        self.netns.netns()
    }

    /// The path of its namespace, as `CNI_NETNS` has it.
    pub fn netns_path(&self) -> &Path {
        self.netns.path()
    }

    /// The links in its namespace now.
    pub fn links(&self) -> Result<Vec<Link>, RigError> {
        let subject = format!("pod {}/{}", self.namespace, self.name);
        open_in(&subject, self.netns())?.links().map_err(|source| RigError::Kernel { subject, source })
    }
}

/// Digits that differ from run to run and from call to call.
fn random_hex(digits: usize) -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let random = RandomState::new();
    let mut text = String::with_capacity(digits.next_multiple_of(16));
    while text.len() < digits {
        text.push_str(&format!("{:016x}", random.hash_one(CALLS.fetch_add(1, Ordering::Relaxed))));
    }
    text.truncate(digits);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_length_asked_for_and_do_not_repeat() {
        let (first, second) = (random_hex(64), random_hex(64));
        assert_eq!((first.len(), second.len(), random_hex(32).len()), (64, 64, 32));
        assert_ne!(first, second);
        assert!(first.bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
