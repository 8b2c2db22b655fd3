//! Whole files in directories that others read at any moment.
//!
//! A file is written under a name that nobody looks for, synced, and renamed; then the directory is synced. Whoever does
//! this holds the directory by a kernel lock, which ends with its process however that ends: so what lies there
//! unfinished while one holds it is of somebody who was killed, and is removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::InstallError;
use super::label::Label;

/// How unfinished files are called. Hidden, and without one of the endings (.conf, .conflist, .json) that runtimes read.
pub const UNFINISHED: &str = ".dotfour-unfinished-";

/// How long to wait between two attempts to hold a directory.
const PAUSE: Duration = Duration::from_millis(10);

/// A directory that no other installer works in.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    handle: File,
}

impl Held {
    /// Holds a directory, which must exist, until this value is dropped. Waits for another holder no longer than `patience`.
    pub fn new(path: &Path, patience: Duration) -> Result<Self, InstallError> {
        let handle = File::open(path).map_err(InstallError::file("open", path))?;
        let begun = Instant::now();
        loop {
            match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Held { path: path.to_owned(), handle }),
                Err(Errno::WOULDBLOCK) if begun.elapsed() < patience => std::thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => return Err(InstallError::Busy { path: path.to_owned(), patience }),
                Err(e) => return Err(InstallError::file("lock", path)(e.into())),
            }
        }
    }

    /// The same, with the directory made where it is missing.
    pub fn made(path: &Path, patience: Duration) -> Result<Self, InstallError> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o755).create(path).map_err(InstallError::file("make", path))?;
        Held::new(path, patience)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what killed holders left. Returns how many files that were.
    ///
    /// # Errors
    /// The directory cannot be read, or a file not removed.
    pub fn sweep(&self) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Puts a file there, or a new one in its place: readers see the old one or the new one, and whoever runs the old one
    /// goes on running it.
    ///
    /// # Errors
    /// The old one is there still, and nothing else.
    pub fn put(&self, name: &str, content: &[u8], mode: u32, label: Option<&Label>) -> io::Result<()> {
        let unfinished = self.path.join(unfinished_name());
        let done =
            write(&unfinished, content, mode, label).and_then(|()| fs::rename(&unfinished, self.path.join(name)));
        if done.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        done?;
        self.handle.sync_all()
    }

    /// Gives a file another name in the same directory.
    ///
    /// # Errors
    /// The file has its name still.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))?;
        self.handle.sync_all()
    }

    /// Removes a file. False if there was none.
    ///
    /// # Errors
    /// The file is there still.
    pub fn remove(&self, name: &str) -> io::Result<bool> {
        match fs::remove_file(self.path.join(name)) {
            Ok(()) => self.handle.sync_all().map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// Where [`replace`] writes: the file's name with an end of its own.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Puts a file in the place of another in one step, in a directory of one writer that a reboot may take away: nothing is
/// synced, and no lock is held.
///
/// # Errors
/// The old one is there still.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = unfinished(path);
    fs::write(&unfinished, content)?;
    fs::rename(&unfinished, path)
}

/// The writing descriptor is closed when this returns: the kernel refuses to run a file that somebody writes to.
fn write(path: &Path, content: &[u8], mode: u32, label: Option<&Label>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    // Whatever the umask is.
    file.set_permissions(PermissionsExt::from_mode(mode))?;
    if let Some(label) = label {
        label.give(&file)?;
    }
    file.sync_all()
}

/// Unlike any other: in two containers two installers may have the same process id.
fn unfinished_name() -> String {
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{UNFINISHED}{}-{moment}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(directory: &tempfile::TempDir) -> Held {
        // A parallel test's child has the lock too, between fork and exec.
        Held::new(directory.path(), Duration::from_secs(5)).unwrap()
    }

    #[test]
    fn a_file_has_its_mode_whatever_was_there_and_nothing_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        let held = held(&directory);
        held.put("one", b"first", 0o600, None).unwrap();
        held.put("one", b"second", 0o755, None).unwrap();
        assert_eq!(fs::read(directory.path().join("one")).unwrap(), b"second");
        assert_eq!(directory.path().join("one").metadata().unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_replaced_whole_or_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("one.json");
        replace(&path, b"first").unwrap();
        replace(&path, b"second").unwrap();
        fs::create_dir(unfinished(&path)).unwrap();
        replace(&path, b"third").unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(unfinished(&path), directory.path().join("one.json.new"));
    }

    #[test]
    fn a_failure_leaves_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let held = held(&directory);
        fs::create_dir(directory.path().join("one")).unwrap();
        fs::write(directory.path().join("one/inside"), "").unwrap();
        held.put("one", b"new", 0o600, None).unwrap_err();
        assert!(directory.path().join("one/inside").exists());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "an unfinished file stays");
    }

    #[test]
    fn one_holds_a_directory_and_the_next_is_told_who_is_in_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let first = held(&directory);
        let e = Held::new(directory.path(), Duration::from_millis(20)).unwrap_err();
        assert!(e.to_string().contains("another installer"), "{e}");
        drop(first);
        held(&directory);
    }

    #[test]
    fn what_a_killed_one_left_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        for name in [".dotfour-unfinished-7-1", ".dotfour-other", "dotfour", ".hidden"] {
            fs::write(directory.path().join(name), "x").unwrap();
        }
        assert_eq!(held(&directory).sweep().unwrap(), 1);
        assert!(!directory.path().join(".dotfour-unfinished-7-1").exists());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    }
}
