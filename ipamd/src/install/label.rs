//! SELinux labels. A new file gets the label that its process has by default, which a container's files have and which the
//! host's container runtime may not be allowed to run; so a program gets the label of what is in its directory already.
//!
//! Labels outlive SELinux on the disk. Where it does not run, nobody looks at them, and to give one takes a right that a
//! container seldom has: then a program without one does as well.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{XattrFlags, fsetxattr, getxattr};
use rustix::io::Errno;

const ATTRIBUTE: &str = "security.selinux";

/// The longest label that is read, in bytes. Real ones have some forty.
const LONGEST: usize = 4096;

/// What SELinux knows a file by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label(Vec<u8>);

impl Label {
    /// The label for a program of this name: that of the one which it replaces, or of another program there, or of the
    /// directory. `None` where there are no labels.
    pub fn for_program(directory: &Path, name: &str) -> Option<Self> {
        let neighbours = || {
            let mut files: Vec<_> = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path()).collect();
            // The order in a directory is chance.
            files.sort();
            let visible = |path: &Path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            files.iter().filter(|path| visible(path) && path.is_file()).find_map(|path| Label::of(path))
        };
        Label::of(&directory.join(name)).or_else(neighbours).or_else(|| Label::of(directory))
    }

    /// A file's label, if it has one that can be read.
    pub fn of(path: &Path) -> Option<Self> {
        let mut label = vec![0; LONGEST];
        let length = getxattr(path, ATTRIBUTE, label.as_mut_slice()).ok()?;
        label.truncate(length);
        (length > 0).then_some(Label(label))
    }

    /// Gives it to a file. Where SELinux does not run, a refusal is as good.
    ///
    /// # Errors
    /// The file system or SELinux refuses.
    pub fn give(&self, file: &File) -> io::Result<()> {
        // A file that was born with it needs no right to change it.
        let mut present = vec![0; LONGEST];
        if rustix::fs::fgetxattr(file, ATTRIBUTE, present.as_mut_slice())
            .is_ok_and(|length| present.get(..length) == Some(self.0.as_slice()))
        {
            return Ok(());
        }
        match fsetxattr(file, ATTRIBUTE, &self.0, XattrFlags::empty()) {
            Err(refusal) if is_as_good(refusal, selinux_runs()) => Ok(()),
            other => other.map_err(io::Error::from),
        }
    }
}

/// Whether a file does as well without the label. With SELinux the runtime might not be allowed to run it.
fn is_as_good(refusal: Errno, selinux_runs: bool) -> bool {
    !selinux_runs && matches!(refusal, Errno::PERM | Errno::OPNOTSUPP)
}

/// Whether the kernel was booted with SELinux: only then it knows the file system that SELinux is asked by. Unknown is yes.
fn selinux_runs() -> bool {
    fs::read_to_string("/proc/filesystems")
        .map_or(true, |known| known.lines().any(|line| line.ends_with("\tselinuxfs")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::fs::setxattr;

    use super::super::directory::Held;
    use super::*;

    /// On a file system that belongs to the namespace which the tests run in, where its root may set labels.
    fn directory() -> tempfile::TempDir {
        tempfile::tempdir_in("/run").expect("labels need root; `make test` makes user namespaces first")
    }

    fn set(path: &Path, label: &str) {
        setxattr(path, ATTRIBUTE, label.as_bytes(), XattrFlags::empty()).unwrap();
    }

    fn label(text: &str) -> Option<Label> {
        Some(Label(text.as_bytes().to_vec()))
    }

    #[test]
    fn a_program_gets_the_label_of_the_one_before_or_its_neighbour_or_the_directory() {
        let directory = directory();
        let (path, plugin) = (directory.path(), directory.path().join("dotfour"));
        let put = || {
            let held = Held::new(path, Duration::from_secs(5)).unwrap();
            held.put("dotfour", b"program", 0o755, Label::for_program(path, "dotfour").as_ref()).unwrap();
            Label::of(&plugin)
        };
        // SELinux itself, where it runs, has given each file one.
        if Label::of(path).is_none() {
            assert_eq!(put(), None, "where nothing has a label, nothing gets one");
        }
        set(path, "system_u:object_r:usr_t:s0\0");
        let _ = fs::remove_file(&plugin);
        assert_eq!(put(), label("system_u:object_r:usr_t:s0\0"));
        fs::write(path.join("loopback"), "").unwrap();
        set(&path.join("loopback"), "system_u:object_r:bin_t:s0\0");
        fs::remove_file(&plugin).unwrap();
        assert_eq!(put(), label("system_u:object_r:bin_t:s0\0"));
        set(&plugin, "system_u:object_r:container_runtime_exec_t:s0\0");
        assert_eq!(put(), label("system_u:object_r:container_runtime_exec_t:s0\0"));
    }

    #[test]
    fn where_selinux_does_not_run_a_file_without_a_label_will_do() {
        for refusal in [Errno::PERM, Errno::OPNOTSUPP] {
            assert!(is_as_good(refusal, false) && !is_as_good(refusal, true), "{refusal}");
        }
        assert!(!is_as_good(Errno::NOSPC, false));
        // A file system that has no place for labels.
        let file = File::options().write(true).open("/proc/thread-self/comm").unwrap();
        let refused = fsetxattr(&file, ATTRIBUTE, b"a", XattrFlags::empty());
        assert_eq!(label("a").unwrap().give(&file).is_ok(), refused.is_ok() || !selinux_runs(), "{refused:?}");
    }
}
