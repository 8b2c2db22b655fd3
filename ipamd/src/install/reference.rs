//! The CNI project's reference plugins, which are not ours and which a node needs all the same.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use crate::program::{self, Limits};

/// What a plugin is granted to say its versions.
const LIMITS: Limits = Limits { patience: Duration::from_secs(2), longest: 64 * 1024 };

/// A reference plugin that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// `loopback`, which containerd before 2.0 needs for every pod.
    Loopback,
    /// `portmap`, which stands behind Dotfour and serves `hostPort`.
    Portmap,
}

impl Reference {
    /// All of them.
    pub const ALL: [Reference; 2] = [Reference::Loopback, Reference::Portmap];

    /// The program's file name.
    pub fn name(self) -> &'static str {
        match self {
            Reference::Loopback => "loopback",
            Reference::Portmap => "portmap",
        }
    }

    /// What does not work without it.
    pub fn without(self) -> &'static str {
        match self {
            Reference::Loopback => "containerd before 2.0 starts no pod without it",
            Reference::Portmap => "pods that ask for a hostPort do not get one",
        }
    }

    /// Whether a directory has it.
    pub fn is_in(self, bin_dir: &Path) -> bool {
        is_program(&bin_dir.join(self.name()))
    }
}

/// How to get what is missing.
pub const REMEDY: &str = "install the CNI reference plugins there (Debian and Ubuntu: the package containernetworking-plugins, which has them in /usr/lib/cni)";

/// Those that a directory lacks.
pub fn missing(bin_dir: &Path) -> Vec<Reference> {
    Reference::ALL.into_iter().filter(|plugin| !plugin.is_in(bin_dir)).collect()
}

/// Whether a path leads to a file that can be run.
pub fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    supported_versions: Vec<String>,
}

/// The versions of the CNI specification that a plugin says it supports. Blocks, for two seconds at most: one that takes
/// longer is killed.
///
/// # Errors
/// It cannot be run, says something else, or nothing in time.
pub fn versions(program: &Path) -> io::Result<Vec<String>> {
    let mut command = Command::new(program);
    command.env_clear().env("CNI_COMMAND", "VERSION").stdout(Stdio::piped()).stderr(Stdio::null());
    let (_, output) = program::run(&mut command, br#"{"cniVersion":"1.0.0"}"#, LIMITS)?;
    let answer: Versions = serde_json::from_slice(&output.stdout)?;
    Ok(answer.supported_versions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_counts_when_it_is_a_file_that_can_be_run() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(missing(directory.path()), Reference::ALL);
        let loopback = directory.path().join("loopback");
        std::fs::write(&loopback, "").unwrap();
        assert_eq!(missing(directory.path()), Reference::ALL, "it cannot be run");
        std::fs::set_permissions(&loopback, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(directory.path().join("portmap")).unwrap();
        assert_eq!(missing(directory.path()), [Reference::Portmap], "a directory is no program");
    }

    #[test]
    fn a_plugin_is_asked_for_its_versions_and_what_does_not_answer_is_an_error() {
        let versions_of_debian_s = versions(Path::new("/usr/lib/cni/portmap")).unwrap();
        assert!(versions_of_debian_s.contains(&"1.0.0".into()), "{versions_of_debian_s:?}");
        versions(Path::new("/bin/true")).unwrap_err();
        versions(Path::new("/nonexistent/portmap")).unwrap_err();
        versions(Path::new("/usr/bin/yes")).unwrap_err();
    }
}
