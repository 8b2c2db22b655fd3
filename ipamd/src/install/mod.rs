//! Getting onto a node and off it again: the plugin's program, the network configuration, and what is left behind.
//!
//! `docs/install.md` is what an operator reads.
//!
//! - [`directory`] puts whole files into directories that others read at any moment; [`label`] keeps SELinux content.
//! - [`programs`] is `dotfour-ipamd install`; [`reference`](mod@reference) knows the plugins that are not ours.
//! - [`conflist`] says what stands in the network configuration and in its directory; [`publisher`] keeps ours there while
//!   the daemon serves, and [`runtime`] asks whether it is seen.
//! - [`settings`] changes kernel settings so that they can be put back; [`uninstall`](mod@uninstall) puts everything back.
//!
//! Invariants: whoever looks into the two CNI directories sees whole files only; a second network configuration of ours
//! never appears; no end of the daemon removes anything, only `uninstall` does.

pub mod conflist;
pub mod directory;
pub mod label;
pub mod programs;
pub mod publisher;
pub mod reference;
pub mod runtime;
pub mod settings;
pub mod uninstall;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The plugin's file name.
pub const PLUGIN: &str = "dotfour";

/// The same program's name for plugins that wire pods themselves and let Dotfour assign their addresses.
pub const DELEGATE: &str = "dotfour-ipam";

/// Why something of an installation failed. What was there before is there still.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file or directory does not let itself be used.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody else works in the directory.
    #[error("another installer has been at work in {} for {patience:?}; try again when it has ended", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
        /// How long this one waited.
        patience: Duration,
    },
    /// The program cannot be replaced.
    #[error(
        "{} cannot be written, and {problem}; make it writable, or preinstall {} there",
        directory.display(), program.display()
    )]
    NotReplaced {
        /// The directory.
        directory: PathBuf,
        /// What is there instead.
        problem: &'static str,
        /// The program that should be there.
        program: PathBuf,
        /// Why it cannot be written.
        #[source]
        source: io::Error,
    },
}

impl InstallError {
    fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| InstallError::File { what, path, source }
    }
}

/// The plugin's program that came with this one: beside it, as in the image and after a build.
///
/// # Errors
/// This program's own place is not known.
pub fn shipped_plugin() -> Result<PathBuf, InstallError> {
    let this = std::env::current_exe().map_err(InstallError::file("find the place of", "/proc/self/exe"))?;
    Ok(this.with_file_name(PLUGIN))
}

/// Whether a file has exactly this content.
fn has_content(path: &Path, content: &[u8]) -> io::Result<bool> {
    // The length first: most files that differ need not be read.
    let length = std::fs::metadata(path)?.len();
    Ok(u64::try_from(content.len()).is_ok_and(|expected| expected == length) && std::fs::read(path)? == content)
}
