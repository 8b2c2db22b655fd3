//! The CNI project's reference plugins, which are not ours and which a node needs all the same.

use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use serde::Deserialize;

/// How long a plugin may take to say its versions.
const PATIENCE: Duration = Duration::from_secs(2);

/// How much it may say, in bytes.
const LONGEST: usize = 64 * 1024;

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
    let mut child = Command::new(program)
        .env_clear()
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read it may still answer.
        let _ = stdin.write_all(br#"{"cniVersion":"1.0.0"}"#);
    }
    let said =
        child.stdout.take().map_or_else(|| Ok(Vec::new()), |stdout| read_until(stdout, Instant::now() + PATIENCE));
    // It has said all, or must not go on. One that ended by itself does not mind.
    let _ = child.kill();
    child.wait()?;
    let answer: Versions = serde_json::from_slice(&said?)?;
    Ok(answer.supported_versions)
}

/// What is said before the end, which has to come by then.
fn read_until(mut from: ChildStdout, by: Instant) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while said.len() < LONGEST {
        let left = by.saturating_duration_since(Instant::now());
        let patience = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut fds = [PollFd::new(&from, PollFlags::IN)];
        if retry_on_intr(|| poll(&mut fds, Some(&patience)))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match from.read(&mut buffer)? {
            0 => return Ok(said),
            length => said.extend(buffer.get(..length).unwrap_or_default()),
        }
    }
    Err(io::ErrorKind::FileTooLarge.into())
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
