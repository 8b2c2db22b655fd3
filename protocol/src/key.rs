//! Who an address belongs to.

use alloc::string::String;
use core::fmt;
use core::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

/// The identity of one attachment, which is what the CNI specification makes unique: a container's interface on a
/// network. Every lease, link alias and log record carries it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachmentKey {
    /// The network's `name` in the CNI configuration.
    pub network: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`, the interface's name inside the pod.
    pub ifname: String,
}

/// By the container alone: few have a second interface, and every verb looks a key up several times.
impl Hash for AttachmentKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.container_id.hash(state);
    }
}

impl fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container_id, self.ifname)
    }
}

/// The pod's Kubernetes name, where the runtime passed it in `CNI_ARGS`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodName {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
