//! From what went wrong to what an operator reads: cause, numbers, next step. The CNI codes are the causes' own
//! ([`Cause::cni_code`]).

use std::error::Error;
use std::net::IpAddr;

use dotfour_datapath::KernelError;
use dotfour_protocol::{Cause, Failure, PoolCounts};

use crate::lease::ledger::NotRecorded;
use crate::wiring::WireError;

const WIRED_BY_OTHERS: &str = "with addresses that dotfour-ipam assigned for another plugin to wire";
const MAKE_ROOM: &str = "see the daemon's log; make room on the file system of stateDir";
const WIRED_BY_US: &str = "wired by dotfour itself";

/// Why an ADD failed. The pool and the kernel are as before.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The configuration restricts the networks, and this is none of them.
    #[error("the network {network:?} is not among those this node serves")]
    UnknownNetwork {
        /// The network's name.
        network: String,
        /// The names that are served.
        served: Vec<String>,
    },
    /// No descriptor came with the message.
    #[error("no network namespace came with the ADD")]
    NoNamespace,
    /// Nobody waits for the answer any more. There is nobody to read this, either.
    #[error("the caller of the ADD is gone")]
    CallerGone,
    /// A DEL came first.
    #[error("a DEL that came after this ADD was started has ended it already")]
    Overtaken,
    /// An address that was asked for is not the node's.
    #[error("{0}, which was asked for, is none of this node's pod addresses")]
    AskedUnknown(IpAddr),
    /// An address that was asked for is somebody's, or rests.
    #[error("{0}, which was asked for, is not free")]
    AskedTaken(IpAddr),
    /// The pod has other addresses already.
    #[error("{0} was asked for, and the attachment has another address already")]
    AskedOther(IpAddr),
    /// The attachment exists, and somebody else has wired it.
    #[error("the attachment exists already, {}", if *delegated { WIRED_BY_OTHERS } else { WIRED_BY_US })]
    HeldOtherwise {
        /// Whether the one that exists is wired by another plugin.
        delegated: bool,
    },
    /// The lease is not on record.
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
    /// Every address is taken.
    #[error("no pod address is free")]
    Exhausted(PoolCounts),
    /// The wiring failed.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Why an attachment did not end. Its lease stays, and the call can be repeated.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The end of a delegated lease is not on record.
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
}

impl EndError {
    /// Its cause, and what to do.
    pub fn remedy(&self) -> (Cause, &'static str) {
        match self {
            EndError::Kernel(_) => {
                (Cause::KernelRefused, "see the daemon's log and the node's kernel log; the runtime will try again")
            }
            EndError::NotRecorded(_) => (Cause::NotRecorded, MAKE_ROOM),
        }
    }
}

impl From<EndError> for Failure {
    fn from(error: EndError) -> Self {
        let (cause, next_step) = error.remedy();
        Failure::new(cause, with_source(&error), next_step)
    }
}

impl From<AddError> for Failure {
    fn from(error: AddError) -> Self {
        let (cause, next_step) = match &error {
            AddError::UnknownNetwork { served, .. } => (
                Cause::UnknownNetwork,
                format!("use one of {} as the configuration's name, or add it to networks:", served.join(", ")),
            ),
            AddError::NoNamespace => {
                (Cause::ProtocolMismatch, "install the plugin and the daemon from the same release".into())
            }
            AddError::CallerGone | AddError::Overtaken => {
                (Cause::OvertakenByDel, "none: the runtime has given this sandbox up".into())
            }
            AddError::AskedUnknown(_) => (
                Cause::AddressUnknown,
                "ask for an address that is an ipConfiguration of this node's NIC, or for none".into(),
            ),
            AddError::AskedTaken(_) => {
                (Cause::AddressTaken, "wait until it is free, ask for another address, or for none".into())
            }
            AddError::AskedOther(_) => {
                (Cause::AttachmentConflict, "DEL the container before it is added with another address".into())
            }
            AddError::HeldOtherwise { .. } => (
                Cause::AttachmentConflict,
                "DEL the container with the network configuration that it was added with".into(),
            ),
            AddError::NotRecorded(_) => (Cause::NotRecorded, MAKE_ROOM.into()),
            AddError::Exhausted(_) => (
                Cause::PoolExhausted,
                "wait for pods to end or addresses to cool down, or give the NIC more ipConfigurations".into(),
            ),
            AddError::Wire(WireError::NotANamespace(_)) => {
                (Cause::InvalidNamespace, "pass the path of a network namespace in CNI_NETNS".into())
            }
            AddError::Wire(WireError::InterfaceTaken { .. }) => (
                Cause::InterfaceTaken,
                "choose another CNI_IFNAME, or remove the interface that another plugin or an earlier ADD left".into(),
            ),
            AddError::Wire(WireError::OtherNamespace { .. }) => {
                (Cause::AttachmentConflict, "DEL the container before it is added in another namespace".into())
            }
            AddError::Wire(WireError::Ipv6Disabled(_)) => (
                Cause::KernelRefused,
                "let the runtime leave net.ipv6.conf.all.disable_ipv6 of pods at 0, or set ipFamilies: [IPv4]".into(),
            ),
            AddError::Wire(WireError::KeyTooLong) => (Cause::InvalidNetworkConfig, "shorten the network's name".into()),
            AddError::Wire(WireError::Kernel(_)) => (
                Cause::KernelRefused,
                "see the daemon's log and the node's kernel log; the runtime will try again".into(),
            ),
        };
        let message = match &error {
            AddError::Exhausted(counts) => format!("{error}: {}", counts_in_words(counts)),
            _ => with_source(&error),
        };
        Failure::new(cause, message, next_step)
    }
}

/// The pool's state as an operator reads it.
pub fn counts_in_words(counts: &PoolCounts) -> String {
    let PoolCounts { total, free, assigned, cooling, reserved, releasing, quarantined } = counts;
    format!(
        "{total} addresses, of which {free} free, {assigned} assigned, {cooling} cooling, {reserved} reserved, \
         {releasing} releasing, {quarantined} quarantined"
    )
}

/// An error and its causes in one line.
pub fn with_source(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhausted_pool_is_told_with_its_numbers_and_asks_to_try_again() {
        let counts = PoolCounts { total: 30, assigned: 28, cooling: 2, ..PoolCounts::default() };
        let failure = Failure::from(AddError::Exhausted(counts));
        assert_eq!(failure.code, 11);
        assert!(failure.message.contains("30 addresses") && failure.message.contains("28 assigned"), "{failure}");
    }

    #[test]
    fn a_cause_is_told_once_with_its_source() {
        let source = std::io::Error::from_raw_os_error(22);
        let failure = Failure::from(AddError::Wire(WireError::NotANamespace(source)));
        assert_eq!(failure.code, 4);
        assert_eq!(failure.message.matches("Invalid argument").count(), 1, "{failure}");
        assert!(failure.message.contains("CNI_NETNS"), "{failure}");
    }
}
