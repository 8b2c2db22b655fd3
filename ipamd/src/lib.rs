//! Dotfour's node daemon: it owns the node's pod addresses and is the only writer of its pod networking.
//!
//! A tour, in the order in which a pod meets the parts:
//!
//! - [`config`] is the YAML file, checked; [`daemon`] is the life of the process from start to end.
//! - [`source`] says which addresses the NIC carries; [`kernel`] says what the node looks like; [`nic`] matches the two.
//! - [`pool`] is pure: which address is in which state, and whose. [`lease`] puts its changes on record, and restores it
//!   from kernel and record after a restart; [`takeover`] finds who else uses its addresses.
//! - [`refill`] looks at source and node again and again, and lets the pool follow.
//! - [`server`] takes calls from the plugin, each a [`caller`]; [`verbs`] has one file for each; [`wiring`] makes and unmakes
//!   a pod's links. [`client`] is the other end, for `dotfourctl` and tests. [`aftermath`] is what can wait until a caller
//!   has its answer.
//! - [`keeper`] ends what ended without telling: links that vanished ([`watch`]), DELs that found no daemon ([`spool`]).
//!   [`sweeper`] removes the connections of released addresses.
//! - [`rules`] decide which source address the world sees of a pod, and what a pod may not do; kept in one nftables table.
//! - [`forwarding`] lets the node forward, by way of [`sysctl`].
//! - [`metrics`] counts and times all that, and serves it to Prometheus.
//! - [`install`] gets plugin and network configuration onto a node, and everything off it again.
//! - [`startup_taint`] takes a taint off the node, by way of [`kubernetes`]' API server; no pod needs either.
//! - [`errors`] turns what went wrong into what an operator reads; [`output`] says it, to whoever listens.
//!
//! Invariants: the pool is never locked over IO or a kernel call; an assigned address never leaves the pool; one call at a
//! time works on an attachment; only [`wiring`] changes pod networking, and only [`rules`] nftables.

pub mod aftermath;
pub mod caller;
pub mod client;
pub mod config;
pub mod daemon;
pub mod errors;
pub mod forwarding;
pub mod install;
pub mod keeper;
pub mod kernel;
pub mod kubernetes;
pub mod lease;
pub mod metrics;
pub mod nic;
pub mod output;
pub mod pool;
pub mod program;
pub mod refill;
pub mod rules;
pub mod server;
pub mod source;
pub mod spool;
pub mod startup_taint;
pub mod sweeper;
pub mod sysctl;
pub mod takeover;
pub mod verbs;
pub mod watch;
pub mod wiring;
