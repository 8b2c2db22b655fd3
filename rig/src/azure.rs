//! Azure's side: what is on which NIC ([`nics`]) and the services that tell a node about it.

pub(crate) mod balancer;
pub mod document;
pub mod fault;
pub mod metadata;
pub mod nics;
mod server;
pub mod subnet;
pub mod wireserver;

use std::net::{Ipv4Addr, Ipv6Addr};

pub use self::balancer::ProbeAnswer;
pub use self::fault::Fault;
pub use self::metadata::Metadata;
pub use self::subnet::Subnet;
pub use self::wireserver::Wireserver;

/// Azure's platform address, the same everywhere: wireserver, DNS, load-balancer probes.
pub const WIRESERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// The instance metadata service's address.
pub const INSTANCE_METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The gateway of every NIC with IPv6, and the source of the load balancer's IPv6 probes.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x1234, 0x5678, 0x9abc);
