//! The messages: what a plugin or `dotfourctl` asks, and what the daemon answers.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{AttachmentKey, CniVersion, Failure, PodName};

/// What is asked of the daemon. The envelope stays readable over versions; see [`crate::frame::decode_request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`crate::VERSION`] of the sender.
    pub version: u16,
    /// The call itself.
    pub call: Call,
}

impl Request {
    /// A request of this crate's version.
    pub fn new(call: Call) -> Self {
        Request { version: crate::VERSION, call }
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// Attach a pod. Exactly one descriptor, the pod's network namespace, comes with it.
    Add(Add),
    /// Assign addresses to a pod that another plugin wires, which delegates to `dotfour-ipam` (SPEC.md 1.1.0, section 4).
    /// No descriptor comes with it. A daemon from before this call refuses it as one that it does not know.
    Assign(Add),
    /// Detach a pod, whoever has wired it.
    Del(Del),
    /// Compare a pod with what ADD made of it. Exactly one descriptor, the pod's network namespace, comes with it; none
    /// for a pod that another plugin has wired.
    Check(Check),
    /// Detach every attachment of a network that the runtime does not know.
    Gc(Gc),
    /// Say whether an ADD could be served (CNI STATUS).
    Ready,
    /// Report the daemon's state, for `dotfourctl`.
    Status(Status),
}

/// CNI ADD. Repeating it for a live key gives the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Add {
    /// Whose attachment it is.
    pub key: AttachmentKey,
    /// The pod's name, where the runtime gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// When the plugin was started, in nanoseconds of `CLOCK_MONOTONIC`. A DEL ends every ADD that was started before it,
    /// so this tells an ADD that was overtaken from a new one. Absent from plugins that do not say: the moment counts at
    /// which the daemon reads the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ns: Option<u64>,
    /// The addresses that it must be, at most one of each family; whichever the pool has where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<IpAddr>,
    /// Answer with the CNI result in this format, as [`Reply::Printed`]; with [`Reply::Attached`] or [`Reply::Assigned`]
    /// where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub print: Option<ResultFormat>,
}

/// What the daemon must know to write a CNI result, beside what it knows. `dns` is not among it: the plugin writes that
/// in, because it may be longer than any message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultFormat {
    /// The version of the specification whose result it is.
    pub version: CniVersion,
    /// `CNI_NETNS` as the runtime wrote it, which the result repeats. Absent where the result has no interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

/// CNI DEL. Repeating it, or asking for a key that nobody knows, succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Del {
    /// Whose attachment it is.
    pub key: AttachmentKey,
    /// When the plugin was started, as in [`Add`]: an ADD that was started later is not this call's to end, whichever of
    /// the two is served first. Absent from plugins that do not say: the moment counts at which the daemon reads the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ns: Option<u64>,
}

/// CNI CHECK. It changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Whose attachment it is.
    pub key: AttachmentKey,
    /// The addresses that `prevResult` names.
    pub addresses: Vec<IpAddr>,
    /// Whether the caller is `dotfour-ipam`: then only the lease is looked at.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub delegated: bool,
}

/// CNI GC. Attachments that are younger than a minute are spared: the runtime may have made its list before it added
/// them. Repeating it does no harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gc {
    /// The network's name; attachments of others are none of this call's business.
    pub network: String,
    /// The attachments that live: all others end.
    pub valid: Vec<ValidAttachment>,
}

/// One attachment that the runtime knows (`cni.dev/valid-attachments`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ValidAttachment {
    /// `containerID`.
    pub container_id: String,
    /// `ifname`.
    pub ifname: String,
}

/// A DEL that found no daemon, as the plugin leaves it in the spool directory: one file each, written under a name that
/// begins with a dot and then renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpooledDel {
    /// [`crate::VERSION`] of the plugin.
    pub version: u16,
    /// Whose attachment it was.
    pub key: AttachmentKey,
    /// When the plugin was started, in nanoseconds of `CLOCK_MONOTONIC`. For the cancellation of an ADD, when that ADD was.
    pub at_ns: u64,
}

/// A question about the daemon's state. The list of attachments comes in pages, so that any number of pods fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// List the attachments behind this address; from the first on where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<IpAddr>,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To [`Call::Add`]: the pod is wired.
    Attached(Attachment),
    /// To [`Call::Assign`]: the addresses are the pod's until its DEL.
    Assigned(Assigned),
    /// To [`Call::Del`]: nothing of the attachment is in use any more.
    Detached,
    /// To [`Call::Check`]: everything is as ADD made it.
    Checked,
    /// To [`Call::Gc`].
    Collected,
    /// To [`Call::Ready`].
    Ready,
    /// To [`Call::Status`].
    Status(NodeStatus),
    /// To any call that failed.
    Failed(Failure),
    /// To [`Call::Add`] and [`Call::Assign`] that give a format: the result (SPEC.md 1.1.0, "Add Success"), one line with an
    /// empty `dns` at its end. It is sent as it is; see [`crate::frame::is_result`].
    #[serde(skip)]
    Printed(String),
}

/// A wired pod, with all that a CNI result says about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Name of the link on the node.
    pub host_ifname: String,
    /// MAC address of the link on the node, as colon-separated hex.
    pub host_mac: String,
    /// MAC address of the link in the pod.
    pub pod_mac: String,
    /// MTU of both links, in bytes.
    pub mtu: u32,
    /// The pod's addresses, at most one of each family.
    pub addresses: Vec<PodAddress>,
    /// The pod's routes.
    pub routes: Vec<Route>,
}

/// What a delegating plugin is to wire its pod with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    /// The pod's addresses, at most one of each family, with the prefix lengths of their subnets.
    pub addresses: Vec<PodAddress>,
}

/// One address of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodAddress {
    /// The address, with the prefix length the pod's interface has (32 or 128 in azure mode, if the daemon wires it).
    pub address: IpNet,
    /// The pod's gateway for this family.
    pub gateway: IpAddr,
}

/// One route of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; absent for a route to the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// The daemon's state, for `dotfourctl status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The daemon's own version.
    pub version: String,
    /// `azure` or `kubenet`.
    pub mode: String,
    /// The kind of the address source.
    pub source: String,
    /// The NIC that carries the pods' addresses.
    pub nic: String,
    /// The NIC's own (primary) IPv4 address.
    pub node_address: IpAddr,
    /// How many addresses are in which state.
    pub pool: PoolCounts,
    /// How many of the pool's addresses are of which family.
    #[serde(default)]
    pub totals: FamilyTotals,
    /// How many leases were released since the daemon's start without a DEL, because their pod was gone.
    #[serde(default)]
    pub collected: u64,
    /// One page of the attachments, ordered by first address.
    pub attachments: Vec<AttachmentStatus>,
    /// Whether more attachments follow behind the last of this page.
    pub more: bool,
}

/// One attachment, for `dotfourctl status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentStatus {
    /// Whose it is.
    pub key: AttachmentKey,
    /// The pod's name, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Name of its link on the node; empty where the daemon has made none.
    pub host_ifname: String,
    /// Whether another plugin has wired it, so that the daemon knows of no link.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub delegated: bool,
}

/// How many addresses the pool has of each family, where pods get one of it. Empty from a daemon that does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyTotals {
    /// IPv4 addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<usize>,
    /// IPv6 addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<usize>,
}

/// How many pod addresses are in which state. The six states always add up to `total`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolCounts {
    /// All addresses of the pool.
    pub total: usize,
    /// Free to be assigned now.
    pub free: usize,
    /// Held by a pod.
    pub assigned: usize,
    /// Released, and not to be used again before the cool-down ends.
    pub cooling: usize,
    /// Kept out on purpose.
    pub reserved: usize,
    /// On their way back to Azure.
    pub releasing: usize,
    /// Found in a state that nobody can explain; never assigned.
    pub quarantined: usize,
}
