//! What can go wrong when a VNet is built or changed.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use dotfour_datapath::KernelError;
use ipnet::IpNet;

use crate::azure::Subnet;

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
    /// The instance metadata service cannot listen or be served.
    #[error("the instance metadata service cannot be served")]
    InstanceMetadata(#[source] io::Error),
    /// A responder cannot listen.
    #[error("the responder of {subject} cannot listen")]
    Responder {
        /// The host it is for.
        subject: String,
        /// Why.
        source: io::Error,
    },
    /// The load balancer cannot send its probe.
    #[error("the load balancer's probe cannot be sent")]
    Probe(#[source] io::Error),
    /// The fabric's router advertisements and neighbour discovery cannot be served.
    #[error("neighbour discovery cannot be served")]
    Discovery(#[source] io::Error),
    /// A node made no default route of the fabric's router advertisements.
    #[error("{0} took no default route from the router advertisements")]
    NoRouter(String),
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
        address: IpAddr,
        /// The subnet.
        subnet: Subnet,
    },
    /// One of the subnet's first four or its last.
    #[error("{address} is one of the five addresses that Azure keeps of {subnet}")]
    Reserved {
        /// The address.
        address: IpAddr,
        /// The subnet.
        subnet: IpNet,
    },
    /// Another ipConfiguration has it.
    #[error("{0} is on a NIC already")]
    Taken(IpAddr),
    /// It is not on the NIC.
    #[error("{0} is not on the NIC")]
    NotAttached(IpAddr),
    /// A NIC's first ipConfiguration cannot be removed.
    #[error("{0} is the NIC's primary address")]
    Primary(IpAddr),
    /// A NIC carries no more.
    #[error("a NIC carries at most {MAX_ADDRESSES_PER_NIC} addresses")]
    NicFull,
    /// The subnet has no more.
    #[error("the subnet {subnet} has {free} free addresses, {wanted} are wanted")]
    SubnetFull {
        /// The subnet.
        subnet: IpNet,
        /// How many it has left.
        free: usize,
        /// How many were asked for.
        wanted: usize,
    },
    /// No NIC has it.
    #[error("{0} is on no NIC")]
    OnNoNic(IpAddr),
    /// A route's next hop has no address of the route's family.
    #[error("the next hop for {0} has no address of that family")]
    NextHop(IpNet),
    /// The subnet has no IPv6 range.
    #[error("the subnet has no IPv6 range")]
    NoIpv6,
    /// There is no such NIC (any more).
    #[error("there is no such NIC")]
    NoNic,
}

/// Azure's limit of private addresses per NIC.
pub const MAX_ADDRESSES_PER_NIC: usize = 256;
