//! What is left to do of a call that is answered.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use dotfour_datapath::Socket;
use dotfour_protocol::{AttachmentKey, PodName};
use tracing::info;

use super::{Reason, Released};
use crate::pool::PodAddresses;
use crate::wiring::Janitor;

/// What can wait until its caller has its answer.
#[derive(Debug)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// Of an ADD that wired a pod.
    Added {
        /// What is new.
        new: New,
        /// The name of its link on the node.
        link: String,
        /// What is to be closed.
        held: Held,
    },
    /// Of an ADD that assigned addresses to a pod that another plugin wires.
    Assigned(New),
    /// Of an attachment that has ended.
    Released {
        /// Which one.
        key: Arc<AttachmentKey>,
        /// What became of it.
        released: Released,
        /// Why it has ended.
        reason: Reason,
    },
}

/// An attachment that was made just now.
#[derive(Debug)]
pub struct New {
    pub(super) key: Arc<AttachmentKey>,
    pub(super) pod: Option<Arc<PodName>>,
    pub(super) addresses: PodAddresses,
    pub(super) took: Duration,
    /// The index of its host link, if it was wired.
    pub(super) index: Option<u32>,
}

/// A pod's namespace and a socket in it. To close them takes time; while they are open, they keep the namespace alive.
#[derive(Debug)]
pub struct Held {
    pub(super) _netns: OwnedFd,
    pub(super) _inside: Socket,
}

impl Left {
    /// The index of a host link that was just made.
    pub fn new_link(&self) -> Option<u32> {
        match self {
            Left::Added { new, .. } | Left::Assigned(new) => new.index,
            Left::Nothing | Left::Released { .. } => None,
        }
    }

    /// Does it.
    pub fn settle(self, janitor: &Janitor) {
        match self {
            Left::Nothing => {}
            Left::Added { new: New { key, pod, addresses, took, index: _ }, link, held: _ } => {
                info!(%key, pod = pod.map(|pod| pod.to_string()), addresses = words(addresses), link, ?took, "added");
            }
            Left::Assigned(New { key, pod, addresses, took, index: _ }) => {
                info!(%key, pod = pod.map(|pod| pod.to_string()), addresses = words(addresses), ?took, "assigned");
            }
            Left::Released { key, released, reason } => released.close(&key, reason, janitor),
        }
    }
}

/// A pod's addresses for the log.
pub(super) fn words(addresses: PodAddresses) -> String {
    addresses.iter().map(|address| address.to_string()).collect::<Vec<_>>().join(",")
}
