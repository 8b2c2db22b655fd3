//! Leases that outlive the daemon: what is recorded, how, and what is made of it after a restart.
//!
//! The kernel is the first record: a pod's host link carries its key and addresses, and exists exactly as long as the pod.
//! The [`journal`] holds what links cannot: pods' names, cooling addresses, DELs that came before their ADD. It lies on a
//! tmpfs; losing it costs names and cool-downs, and no lease of a pod that the daemon has wired. It is all there is of a
//! delegated lease, whose pod another plugin has wired.

#[cfg(test)]
mod interleavings;
pub mod journal;
pub mod ledger;
pub mod record;
pub mod recover;

pub use journal::{Identity, Journal, JournalError};
pub use ledger::Ledger;
pub use record::Record;
