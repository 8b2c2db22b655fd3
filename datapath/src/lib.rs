//! Kernel networking as Dotfour's daemon and rig need it: batched netlink, veth links, addresses, routes, neighbours
//! and network namespaces.
//!
//! A [`Batch`] collects messages and a [`Socket`] sends them in one system call; what goes into a batch is said in
//! [`link`], [`address`], [`route`] and [`neighbour`]. [`departures`] tells of links that vanish, [`conntrack`] removes
//! what the kernel remembers of an address's connections. The crate knows no policy: not which address is whose, nor what
//! a pod should look like. Everything here blocks, and none of it reads the clock.

pub mod address;
mod attributes;
pub mod batch;
mod channel;
pub mod conntrack;
pub mod departures;
pub mod link;
pub mod listener;
pub mod mac;
pub mod neighbour;
pub mod netns;
mod request;
pub mod route;
pub mod rule;
pub mod socket;

pub use batch::Batch;
pub use channel::Memory;
pub use conntrack::Conntrack;
pub use departures::{Departure, Departures};
pub use mac::Mac;
pub use netns::Netns;
pub use socket::{KernelError, Socket};
