//! A virtual Azure VNet on one machine: a fabric that obeys Azure's rules, nodes with NICs, and a container runtime's
//! calls, all in namespaces that vanish with the program.
//!
//! The parts, from the outside in:
//!
//! - [`sandbox`] puts a program into user, mount, network and process namespaces of its own, so that nothing it makes
//!   can touch the machine or outlive it. A program that uses the rig calls [`sandbox::enter`] first thing in `main`.
//! - [`place`] says where in there files and named namespaces go.
//! - [`vnet`] is the VNet: which address of either family is on which NIC, the subnet's route table, the load balancer's
//!   probes. It keeps the [`fabric`], which moves packets, and the
//!   [`azure`] services, which answer the nodes, in step.
//! - [`node`] is a virtual machine with a NIC, [`daemon`] runs `dotfour-ipamd` on it, [`pod`] is a pod's namespace, and
//!   [`runtime`] calls CNI plugins for it exactly as libcni does.
//! - [`outside`] is what a VNet talks to: hosts in a peered VNet, on-prem and on the internet, which say whom they see.
//! - [`probe`] sends packets from inside any namespace and says what came back.
//!
//! ```no_run
//! use dotfour_rig::sandbox::{self, Entered};
//! use dotfour_rig::{DaemonConfig, Network, NodeConfig, Pod, Runtime, Vnet, VnetConfig};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let Entered::Inside(sandbox) = sandbox::enter()? else { return Ok(()) };
//!     let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: sandbox.place() })?;
//!     let node = vnet.add_node(&NodeConfig::new("node-1", 30))?;
//!     let daemon = node.start_daemon(&DaemonConfig::new("target/release/dotfour-ipamd"))?;
//!     let network = Network::dotfour("target/release".as_ref(), daemon.socket());
//!     let pod = Pod::create(&node, "default", "web-0")?;
//!     let answer = Runtime::new(&node, &network).add(&pod)?;
//!     println!("{:?} after {:?}", answer.ipv4(), answer.took);
//!     Ok(())
//! }
//! ```
//!
//! A VNet with the subnet `"10.240.0.0/16,fd00:10:240::/64"` is dual-stack, and so is a node of
//! [`NodeConfig::dual_stack`] on it.
//!
//! Nothing here ships to a node, and the rig knows nothing of Dotfour's insides: what Azure would refuse, it refuses
//! to whoever asks.

pub mod azure;
pub mod daemon;
pub mod demo;
pub mod error;
pub mod fabric;
pub mod node;
pub mod outside;
pub mod place;
pub mod pod;
pub mod probe;
mod program;
pub mod runtime;
pub mod sandbox;
pub mod up;
pub mod vnet;

pub use azure::Subnet;
pub use daemon::{Daemon, DaemonConfig};
pub use error::RigError;
pub use node::{Node, NodeConfig};
pub use outside::{Outside, OutsideConfig, UserRoute, Where};
pub use place::Place;
pub use pod::Pod;
pub use runtime::{Network, Runtime};
pub use vnet::{Vnet, VnetConfig};
