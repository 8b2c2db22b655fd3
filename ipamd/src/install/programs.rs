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
use super::{DELEGATE, InstallError, PLUGIN, has_content};

/// The names under which the plugin is installed: it is one program, which looks at its own name.
pub const PROGRAMS: [&str; 2] = [PLUGIN, DELEGATE];

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
    let is_in_place = || problem(&target, &content).is_none();
    let failed = |source| not_replaced(program, &target, &content, source);
    // Before anything is locked or made, for a directory that is read-only.
    if is_in_place() {
        return Ok(Outcome::Present);
    }
    let held = match Held::made(bin_dir, PATIENCE) {
        Err(InstallError::File { source, .. }) => return Err(failed(source)),
        other => other?,
    };
    // The other installer may have done it.
    if is_in_place() {
        return Ok(Outcome::Present);
    }
    if let Err(e) = held.sweep() {
        warn!("unfinished files of killed installers stay in {}: {e}", bin_dir.display());
    }
    let label = Label::for_program(bin_dir, name);
    held.put(name, &content, MODE, label.as_ref()).map_err(failed)?;
    Ok(Outcome::Installed)
}

/// Why what is there will not do; `None` if it is in place. The runtime starts it as root, so nobody else may change it.
fn problem(target: &Path, content: &[u8]) -> Option<&'static str> {
    let Ok(file) = fs::metadata(target) else { return Some("the program is not there yet") };
    if !has_content(target, content).unwrap_or(false) {
        Some("the program there is another one than this release's")
    } else if !is_program(target) {
        Some("the program there cannot be run")
    } else if file.permissions().mode() & 0o022 != 0 {
        Some("group or others may write to the program there, which the runtime starts as root")
    } else {
        None
    }
}

fn not_replaced(program: &Path, target: &Path, content: &[u8], source: io::Error) -> InstallError {
    let problem = problem(target, content).unwrap_or("the program there is this release's");
    let directory = target.parent().map(PathBuf::from).unwrap_or_default();
    InstallError::NotReplaced { directory, problem, program: program.to_owned(), source }
}
