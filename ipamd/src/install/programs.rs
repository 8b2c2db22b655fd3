//! `dotfour-ipamd install`: the programs that a container runtime starts, into the directory where it looks for them.
//!
//! It may run while a runtime starts the program a thousand times a second, beside a second installer, and on a host whose
//! directory is read-only and has the program already.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::warn;

use super::directory::Held;
use super::label::Label;
use super::reference::is_program;
use super::{InstallError, PLUGIN, has_content};

/// The names under which the plugin is installed: it is one program, which looks at its own name. The second one is for
/// plugins that wire pods themselves and let Dotfour assign their addresses.
pub const PROGRAMS: [&str; 2] = [PLUGIN, "dotfour-ipam"];

/// How long another installer may take.
const PATIENCE: Duration = Duration::from_secs(30);

const MODE: u32 = 0o755;

/// What [`install`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The program was there, byte for byte; nothing was written.
    Present,
    /// It is there now.
    Installed,
}

/// Installs a program under `name`. Nobody who runs it meanwhile fails, and nothing is written if it is there already.
///
/// # Errors
/// What was there is there still.
pub fn install(program: &Path, bin_dir: &Path, name: &str) -> Result<Outcome, InstallError> {
    let content = fs::read(program).map_err(InstallError::file("read", program))?;
    let target = bin_dir.join(name);
    // Before anything is locked or made, for a directory that is read-only.
    if is_in_place(&target, &content) {
        return Ok(Outcome::Present);
    }
    let held = match Held::made(bin_dir, PATIENCE) {
        Err(InstallError::File { source, .. }) => return Err(not_replaced(program, &target, source)),
        other => other?,
    };
    // The other installer may have done it.
    if is_in_place(&target, &content) {
        return Ok(Outcome::Present);
    }
    if let Err(e) = held.sweep() {
        warn!("unfinished files of killed installers stay in {}: {e}", bin_dir.display());
    }
    let label = Label::for_program(bin_dir, name);
    held.put(name, &content, MODE, label.as_ref()).map_err(|source| not_replaced(program, &target, source))?;
    Ok(Outcome::Installed)
}

/// What is equal and cannot be run, or can be changed by everybody, is not in place.
fn is_in_place(target: &Path, content: &[u8]) -> bool {
    let mode = || fs::metadata(target).map(|file| file.permissions().mode());
    has_content(target, content).unwrap_or(false) && is_program(target) && mode().is_ok_and(|mode| mode & 0o022 == 0)
}

fn not_replaced(program: &Path, target: &Path, source: io::Error) -> InstallError {
    let problem = match target.try_exists() {
        Ok(true) => "the program there is another one than this release's",
        _ => "the program is not there yet",
    };
    let directory = target.parent().map(PathBuf::from).unwrap_or_default();
    InstallError::NotReplaced { directory, problem, program: program.to_owned(), source }
}
