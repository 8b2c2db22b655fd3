//! Programs of the system that the rig runs.

use std::path::PathBuf;

use crate::RigError;

/// Finds a program where root's PATH has it: an ordinary user's lacks the sbin directories on Debian.
pub(crate) fn find(name: &'static str, package: &'static str) -> Result<PathBuf, RigError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or(RigError::MissingProgram { name, package })
}
