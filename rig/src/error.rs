//! What can go wrong when a VNet is built or changed.

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use dotfour_datapath::KernelError;
use ipnet::Ipv4Net;

/// A step of the rig that failed.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// A network namespace cannot be made or entered.
    #[error("cannot make or enter the network namespace {name}")]
    Netns {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused a link, an address or a route.
    #[error("the kernel refused a step for {subject}")]
    Kernel {
        /// The node, pod or fabric it was for.
        subject: String,
        /// What was refused.
        source: KernelError,
    },
    /// A setting of a namespace cannot be written.
    #[error("cannot write /proc/sys/{setting}")]
    Sysctl {
        /// The setting's path under /proc/sys.
        setting: String,
        /// Why.
        source: io::Error,
    },
    /// A program the rig needs is not installed.
    #[error("the program {name} is not installed ({package} has it)")]
    MissingProgram {
        /// Its name.
        name: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program cannot be run, or failed.
    #[error("{program} failed: {reason}")]
    Program {
        /// Its name or path.
        program: String,
        /// What it or the kernel said.
        reason: String,
    },
    /// A file or directory cannot be read or written.
    #[error("cannot read or write {}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The wireserver cannot listen or be served.
    #[error("the wireserver cannot be served")]
    Wireserver(#[source] io::Error),
    /// Azure would refuse the address.
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// An error with all of its causes in one line, for people.
pub fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Why Azure would not put an address on a NIC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Outside the subnet.
    #[error("{address} is not in the subnet {subnet}")]
    NotInSubnet {
        /// The address.
        address: Ipv4Addr,
        /// The subnet.
        subnet: Ipv4Net,
    },
    /// One of the subnet's first four or its last.
    #[error("{address} is one of the five addresses that Azure keeps of {subnet}")]
    Reserved {
        /// The address.
        address: Ipv4Addr,
        /// The subnet.
        subnet: Ipv4Net,
    },
    /// Another ipConfiguration has it.
    #[error("{0} is on a NIC already")]
    Taken(Ipv4Addr),
    /// It is not on the NIC.
    #[error("{0} is not on the NIC")]
    NotAttached(Ipv4Addr),
    /// A NIC's first ipConfiguration cannot be removed.
    #[error("{0} is the NIC's primary address")]
    Primary(Ipv4Addr),
    /// A NIC carries no more.
    #[error("a NIC carries at most {MAX_ADDRESSES_PER_NIC} addresses")]
    NicFull,
    /// The subnet has no more.
    #[error("the subnet {subnet} has {free} free addresses, {wanted} are wanted")]
    SubnetFull {
        /// The subnet.
        subnet: Ipv4Net,
        /// How many it has left.
        free: usize,
        /// How many were asked for.
        wanted: usize,
    },
    /// There is no such NIC (any more).
    #[error("there is no such NIC")]
    NoNic,
}

/// Azure's limit of private addresses per NIC.
pub const MAX_ADDRESSES_PER_NIC: usize = 256;
