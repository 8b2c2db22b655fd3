//! What every input from outside must come to: one function for each fuzz target.
//!
//! An entry takes any bytes, hands them to the code that meets such bytes on a node, and panics if a promise is broken. It
//! returns whether the input was taken, which is no matter of right or wrong: it tells a run that tries the depths from
//! one that is turned away at the door. An entry changes nothing outside of itself and needs no daemon.
//!
//! They are run in two ways: from the seeds in `fuzz/corpus`, changed at random, by `tests/short_run.rs` on every
//! toolchain; and with coverage as the guide by cargo-fuzz, from `fuzz/fuzz_targets`. On a stable toolchain, from the
//! project's directory: `RUSTC_BOOTSTRAP=1 cargo fuzz run wireserver`.

#![allow(clippy::expect_used, reason = "a panic is how an entry reports")]

mod alias;
mod configuration;
mod frames;
mod journal;
mod plugin;
mod wireserver;

pub use alias::alias;
pub use configuration::configuration;
pub use frames::{reply_frame, request_frame};
pub use journal::{journal, records};
pub use plugin::{plugin_environment, plugin_stdin};
pub use wireserver::wireserver;

/// An entry.
pub type Entry = fn(&[u8]) -> bool;

/// Every entry, by the name of its target and of its directory of seeds.
pub const TARGETS: &[(&str, Entry)] = &[
    ("plugin_stdin", plugin_stdin),
    ("plugin_environment", plugin_environment),
    ("request_frame", request_frame),
    ("reply_frame", reply_frame),
    ("journal", journal),
    ("records", records),
    ("wireserver", wireserver),
    ("alias", alias),
    ("configuration", configuration),
];
