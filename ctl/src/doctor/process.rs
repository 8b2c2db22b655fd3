//! Processes of this node, and the files as they see them.
//!
//! A component of Kubernetes that is this node's works in the network namespace in which the doctor looks, also from a
//! container of its own. One that does not is another node's that runs inside of this one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, openat2};

/// Far more than any configuration file has.
const LONGEST_FILE: u64 = 1 << 20;

/// The first process namespace's number (`PROC_PID_INIT_INO` of the kernel).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// A process in this network namespace.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its directory below `/proc`.
    directory: PathBuf,
    /// The program, as it calls itself, without its directory.
    pub(crate) name: String,
    /// What follows the program's name.
    pub(crate) arguments: Vec<String>,
}

/// The processes of these names in the calling thread's network namespace. One that ends meanwhile is left out.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn find(names: &[&str]) -> io::Result<Vec<Process>> {
    let here = fs::read_link("/proc/thread-self/ns/net")?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let directory = entry?.path();
        let Some((name, arguments)) = command_line(&directory) else { continue };
        // The name first: there are many processes, and few that matter.
        if names.contains(&name.as_str()) && fs::read_link(directory.join("ns/net")).is_ok_and(|net| net == here) {
            found.push(Process { directory, name, arguments });
        }
    }
    Ok(found)
}

/// Whether processes of the node may be hidden from this one.
pub(crate) fn are_hidden() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace != Path::new(FIRST_NAMESPACE))
}

fn command_line(directory: &Path) -> Option<(String, Vec<String>)> {
    let bytes = fs::read(directory.join("cmdline")).ok()?;
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    let mut words = bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let program = words.next()?;
    let name = program.rsplit('/').next()?.to_owned();
    Some((name, words.collect()))
}

impl Process {
    /// A file as the process sees it, in its own root and from its own working directory.
    pub(crate) fn read(&self, path: &str) -> io::Result<String> {
        let mut text = String::new();
        File::from(self.open(path, OFlags::empty())?).take(LONGEST_FILE).read_to_string(&mut text)?;
        Ok(text)
    }

    /// The names of the files in a directory as the process sees it, in the order of the alphabet.
    pub(crate) fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(self.open(path, OFlags::DIRECTORY)?)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Every symbolic link leads to where it leads the process, and none out of its root.
    fn open(&self, path: &str, flags: OFlags) -> io::Result<rustix::fd::OwnedFd> {
        let root = File::open(self.directory.join("root"))?;
        let path = match path.starts_with('/') {
            true => PathBuf::from(path),
            false => fs::read_link(self.directory.join("cwd"))?.join(path),
        };
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?)
    }
}
