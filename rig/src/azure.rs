//! Azure's side: what is on which NIC ([`nics`]) and the services that tell a node about it.

pub mod document;
pub mod fault;
pub mod nics;
pub mod wireserver;

use std::net::Ipv4Addr;

pub use self::fault::Fault;
pub use self::wireserver::Wireserver;

/// Azure's platform address, the same everywhere: wireserver, DNS, load-balancer probes.
pub const WIRESERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// The instance metadata service's address.
pub const INSTANCE_METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
