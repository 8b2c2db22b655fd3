//! Why there is no race.

use std::io;
use std::path::PathBuf;

use dotfour_ipamd::wiring::WireError;
use dotfour_rig::RigError;
use dotfour_rig::daemon::DaemonError;
use dotfour_rig::runtime::CallError;

use crate::forwarding::Path;

/// What stopped the race.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RaceError {
    /// A contestant's program is missing.
    #[error("{} is not there; {remedy}", .program.display())]
    Missing {
        /// Which program.
        program: PathBuf,
        /// Where it comes from.
        remedy: &'static str,
    },
    /// A no-op cannot be compiled.
    #[error("cannot compile the no-op {name} with cc: {reason}")]
    Compile {
        /// Which.
        name: &'static str,
        /// What the compiler said.
        reason: String,
    },
    /// A configuration list given with --plugin.
    #[error("--plugin {name}: {reason}")]
    Plugin {
        /// The contestant's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A file cannot be written.
    #[error("cannot write {}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The nodes cannot be built.
    #[error(transparent)]
    Rig(#[from] RigError),
    /// Dotfour's daemon does not run.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A contestant failed where it must not.
    #[error("{name}")]
    Call {
        /// Which.
        name: &'static str,
        /// How.
        source: CallError,
    },
    /// A node is not as full as it should be.
    #[error("{name} refused {refused} of {count} pods")]
    Refused {
        /// Which.
        name: &'static str,
        /// So many pods.
        refused: usize,
        /// Of so many.
        count: usize,
    },
    /// A contestant gave a pod no IPv4 address.
    #[error("{name} gave a pod no IPv4 address")]
    NoAddress {
        /// Which.
        name: &'static str,
    },
    /// Two pods cannot talk.
    #[error("{name}, {path}")]
    Forwarding {
        /// Whose pods.
        name: &'static str,
        /// Which way.
        path: Path,
        /// Why not.
        source: io::Error,
    },
    /// The bare kernel work was refused.
    #[error("the bare kernel work")]
    Kernel(#[from] WireError),
    /// A thread or a namespace of the race's own.
    #[error("cannot {step}")]
    System {
        /// What was being done.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl RaceError {
    /// Makes an error of a step of the race's own.
    pub(crate) fn system(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| RaceError::System { step, source }
    }
}
