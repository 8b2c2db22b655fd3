//! Removing the cgroups that a container runtime leaves behind.
//!
//! Namespaces hide and end everything else of a test, but a cgroup is a directory of the machine's own that stays until
//! it is removed. Who could do that after the test was killed? A process that is not part of it: the *keeper*, which
//! waits for the end of a pipe.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Tells a process that it is the keeper, and of which cgroup.
const KEEPER: &str = "DOTFOUR_E2E_KEEPER";
/// Where cgroups are mounted: version 2 here or in `unified`, the controllers of version 1 each in a directory.
const MOUNTED: &str = "/sys/fs/cgroup";
/// How long the killed processes of a cgroup may take to leave it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Removes a cgroup, with all below it, once this process is gone, however it ends.
#[derive(Debug)]
pub struct Keeper(Child);

impl Keeper {
    /// Starts the keeper of a cgroup that is to be made directly below the root of every hierarchy. The calling program
    /// must begin its `main` with [`serve_as_keeper`].
    ///
    /// # Errors
    /// If the program cannot be started again.
    pub fn start(name: &str) -> io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .env(KEEPER, name)
            .stdin(Stdio::piped())
            // Ctrl-C in a terminal goes to a whole process group, and this one has work to do after it.
            .process_group(0)
            .spawn()?;
        Ok(Keeper(child))
    }

    /// Lets the keeper do its work now and waits for it. True if nothing of the cgroup is left.
    pub fn finish(mut self) -> bool {
        // `wait` closes the pipe first.
        self.0.wait().is_ok_and(|status| status.success())
    }
}

/// Does the keeper's work, if this process is meant to be one. `None`: go on.
pub fn serve_as_keeper() -> Option<ExitCode> {
    let name = std::env::var_os(KEEPER)?;
    // Ends when the last writer does; whatever the reason, it is time.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if remove(&name) {
            return Some(ExitCode::SUCCESS);
        }
        sleep(Duration::from_millis(20));
    }
    eprintln!("cgroups that cannot be removed: {:?}", find(&name));
    Some(ExitCode::FAILURE)
}

/// The cgroup's directories, one per hierarchy that has it.
pub fn find(name: &OsStr) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir(MOUNTED).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> =
        hierarchies.chain([MOUNTED.into()]).map(|top| top.join(name)).filter(|path| path.is_dir()).collect();
    // `cpu` and `cpuacct` may be links to one hierarchy.
    found.sort();
    found
}

/// True once nothing is left.
fn remove(name: &OsStr) -> bool {
    find(name).iter().for_each(|directory| remove_below(directory));
    find(name).is_empty()
}

/// What still holds a process is busy, and left for the next round.
fn remove_below(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        // The files in a cgroup are the kernel's and go with it.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}
