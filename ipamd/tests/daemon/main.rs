//! The real daemon in a real kernel, each test in network namespaces of its own.

// Clippy allows these in test functions only, not in what test functions share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod delegated;
mod families;
mod interfaces;
mod leases;
mod log;
mod metrics;
mod pods;
mod rules;
mod start;
mod support;
mod verbs;
