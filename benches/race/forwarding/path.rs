//! Who talks to whom.

use std::fmt;

/// From the one who connects and sends to the one who accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// Both pods on one node.
    PodToPod,
    /// Out through the node's NIC and the fabric, to another node's own address.
    PodToNode,
    /// The other way.
    NodeToPod,
}

impl Path {
    /// Every one, in the order of the tables.
    pub(crate) const ALL: [Path; 3] = [Path::PodToPod, Path::PodToNode, Path::NodeToPod];
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Path::PodToPod => "pod → pod, same node",
            Path::PodToNode => "pod → other node",
            Path::NodeToPod => "other node → pod",
        })
    }
}
