//! How a pod is wired: links, addresses, routes and neighbours, made in two batches and undone as one.
//!
//! [`Wirer`] is the only thing that changes pod networking; each verb thread has one. [`janitor`] deletes what DEL left
//! condemned. What every object of ours can be known by is in [`names`] and [`tag`].

mod check;
mod end;
pub mod janitor;
pub mod names;
pub mod pod;
pub mod shape;
pub mod tag;
mod upkeep;

pub use check::CheckError;
pub use janitor::Janitor;
pub use pod::{PodPlan, WireError, Wired, Wirer};
