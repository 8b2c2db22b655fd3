//! Why a call failed: the one table from causes to CNI error codes.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

/// A stable reason for a failure. Its name is what operators search for; it never changes once released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The configuration's `cniVersion` is not one the plugin speaks.
    IncompatibleCniVersion,
    /// CHECK for a container that has no attachment.
    UnknownContainer,
    /// An environment variable of the CNI call is missing or not usable.
    InvalidEnvironment,
    /// `CNI_NETNS` cannot be opened or is not a network namespace.
    InvalidNamespace,
    /// Reading standard input, or another file, failed.
    Io,
    /// Standard input is not the JSON that was expected.
    InvalidJson,
    /// The network configuration is JSON but says something that cannot be done.
    InvalidNetworkConfig,
    /// `CNI_IFNAME` exists in the pod's namespace already.
    InterfaceTaken,
    /// The key has a live attachment already, and it is not in this namespace.
    AttachmentConflict,
    /// A DEL that came after this ADD was started has ended it.
    OvertakenByDel,
    /// The lease cannot be recorded.
    NotRecorded,
    /// No pod address is free now.
    PoolExhausted,
    /// The address that was asked for is not free now.
    AddressTaken,
    /// The address that was asked for is none of the node's pod addresses.
    AddressUnknown,
    /// The node daemon does not answer on its socket.
    DaemonUnavailable,
    /// The node daemon did not answer before the deadline.
    DeadlineExceeded,
    /// The daemon does not serve the network named in the configuration.
    UnknownNetwork,
    /// CHECK has found something that is not as ADD made it.
    AttachmentDiffers,
    /// No ADD can be served now, because of the node.
    NotReady,
    /// The kernel refused a step of the wiring.
    KernelRefused,
    /// Plugin and daemon do not understand each other's messages.
    ProtocolMismatch,
    /// The caller may not use the daemon's socket.
    PermissionDenied,
    /// A defect in Dotfour itself.
    Internal,
}

impl Cause {
    /// Every cause, for tests and documentation.
    pub const ALL: &[Cause] = &[
        Cause::IncompatibleCniVersion,
        Cause::UnknownContainer,
        Cause::InvalidEnvironment,
        Cause::InvalidNamespace,
        Cause::Io,
        Cause::InvalidJson,
        Cause::InvalidNetworkConfig,
        Cause::InterfaceTaken,
        Cause::AttachmentConflict,
        Cause::OvertakenByDel,
        Cause::NotRecorded,
        Cause::PoolExhausted,
        Cause::AddressTaken,
        Cause::AddressUnknown,
        Cause::DaemonUnavailable,
        Cause::DeadlineExceeded,
        Cause::UnknownNetwork,
        Cause::AttachmentDiffers,
        Cause::NotReady,
        Cause::KernelRefused,
        Cause::ProtocolMismatch,
        Cause::PermissionDenied,
        Cause::Internal,
    ];

    /// The stable name and the CNI error code (CNI specification 1.1, "Error": 1 to 99 are the specification's,
    /// 100 and above the plugin's own; 11 asks the runtime to try again later; 50 is STATUS's).
    const fn row(self) -> (&'static str, u32) {
        match self {
            Cause::IncompatibleCniVersion => ("incompatible-cni-version", 1),
            Cause::UnknownContainer => ("unknown-container", 3),
            Cause::InvalidEnvironment => ("invalid-environment", 4),
            Cause::InvalidNamespace => ("invalid-namespace", 4),
            Cause::InterfaceTaken => ("interface-taken", 4),
            Cause::Io => ("io", 5),
            Cause::InvalidJson => ("invalid-json", 6),
            Cause::InvalidNetworkConfig => ("invalid-network-config", 7),
            Cause::UnknownNetwork => ("unknown-network", 7),
            Cause::AddressUnknown => ("address-unknown", 7),
            Cause::PoolExhausted => ("pool-exhausted", 11),
            Cause::AddressTaken => ("address-taken", 11),
            Cause::DaemonUnavailable => ("daemon-unavailable", 11),
            Cause::DeadlineExceeded => ("deadline-exceeded", 11),
            Cause::NotReady => ("not-ready", 50),
            Cause::AttachmentConflict => ("attachment-conflict", 100),
            Cause::OvertakenByDel => ("overtaken-by-del", 104),
            Cause::NotRecorded => ("not-recorded", 105),
            Cause::KernelRefused => ("kernel-refused", 101),
            Cause::ProtocolMismatch => ("protocol-mismatch", 102),
            Cause::PermissionDenied => ("permission-denied", 103),
            Cause::AttachmentDiffers => ("attachment-differs", 106),
            Cause::Internal => ("internal", 999),
        }
    }

    /// The stable name, as it begins the CNI error's `msg`.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The CNI error code.
    pub const fn cni_code(self) -> u32 {
        self.row().1
    }
}

/// A failed call as it crosses the socket and ends up in the CNI error object: a code, a cause with its numbers, and
/// what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The CNI error code, sent as a number so that an older plugin can print a cause it has never heard of.
    pub code: u32,
    /// [`Cause::name`].
    pub cause: String,
    /// What happened, with names and numbers, for an operator.
    pub message: String,
    /// What to do about it.
    pub next_step: String,
}

impl Failure {
    /// A failure of a known cause.
    pub fn new(cause: Cause, message: impl Into<String>, next_step: impl Into<String>) -> Self {
        Failure {
            code: cause.cni_code(),
            cause: cause.name().into(),
            message: message.into(),
            next_step: next_step.into(),
        }
    }

    /// What cannot happen, and has. A panic would say less.
    pub fn defect(message: impl Into<String>) -> Self {
        Failure::new(Cause::Internal, message, "this is a defect in Dotfour: please report it with the daemon's log")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.cause, self.message, self.next_step)
    }
}

impl core::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn names_are_unique_and_codes_stay_in_their_ranges() {
        for (i, cause) in Cause::ALL.iter().enumerate() {
            assert!(Cause::ALL[..i].iter().all(|other| other.name() != cause.name()), "{cause:?} repeats a name");
            let code = cause.cni_code();
            assert!(matches!(code, 1..=11 | 50 | 51 | 100..), "{cause:?} has code {code}");
        }
    }

    #[test]
    fn the_document_has_a_row_for_each_cause_and_no_other() {
        let document = include_str!("../../docs/errors.md");
        let mut rows: Vec<&str> =
            document.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
        for cause in Cause::ALL {
            let begins = format!("| {} | `{}` |", cause.cni_code(), cause.name());
            let before = rows.len();
            rows.retain(|row| !row.starts_with(&begins));
            assert_eq!(rows.len() + 1, before, "docs/errors.md needs one row: {begins}");
        }
        assert_eq!(rows, Vec::<&str>::new());
    }
}
