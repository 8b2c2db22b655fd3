//! The spool: where a DEL goes that finds no daemon, and the cancellation of an ADD that was given up.
//!
//! One file for each, complete under its name or not there at all: it is written under a name that begins with a dot,
//! synced, and renamed. The daemon applies them when it starts, and while it serves. What counts as older or newer is
//! said by the monotonic clock, which plugin and daemon share.

use alloc::format;
use alloc::string::String;
use core::cmp::min;

use dotfour_protocol::{AttachmentKey, Cause, Failure, SpooledDel, VERSION, frame};
use rustix::fs::{self, Mode, OFlags};
use rustix::io::{self, Errno};

use crate::call::ErrnoText;
use crate::quoted::Quoted;

/// What a file name may have of a container id: a name holds 255 bytes.
const ID_IN_NAME: usize = 160;

/// Leaves the order to end what an ADD of this key, started at `at_ns` or before, has made. Where the directory is
/// missing it is made, for root alone: a DEL may come before the daemon was ever started.
///
/// # Errors
/// `io`, if there is now no file. Repeating it leaves a second one, which does no harm.
pub(crate) fn leave(directory: &str, key: AttachmentKey, at_ns: u64) -> Result<(), Failure> {
    let end = min(key.container_id.len(), ID_IN_NAME);
    let name = format!("{at_ns:x}-{}-{}", key.container_id.get(..end).unwrap_or_default(), key.ifname);
    let content = frame::encode_spooled(&SpooledDel { version: VERSION, key, at_ns })?;
    let unfinished = format!("{directory}/.{name}");
    write(directory, &unfinished, &content)
        .and_then(|()| fs::rename(&unfinished, format!("{directory}/{name}")))
        .map_err(|errno| {
            // Or each try would take more of a file system that is full.
            let _ = fs::unlink(&unfinished);
            Failure::new(
                Cause::Io,
                format!("the spool {} cannot be written: {}", Quoted(directory), ErrnoText(errno)),
                "make room on its file system, or start dotfour-ipamd; the runtime will try again",
            )
        })
}

fn write(directory: &str, path: &str, content: &[u8]) -> io::Result<()> {
    let create = || {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        fs::open(path, flags, Mode::RUSR | Mode::WUSR)
    };
    let file = match create() {
        Err(Errno::NOENT) => {
            make(directory)?;
            create()?
        }
        other => other?,
    };
    let mut rest = content;
    while !rest.is_empty() {
        match io::write(&file, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    // What is acknowledged is not lost, on whatever file system the directory was put.
    fs::fsync(&file)
}

/// Makes the directory and the one it is in.
fn make(directory: &str) -> io::Result<()> {
    let parent = String::from(directory.rsplit_once('/').map_or("", |(parent, _)| parent));
    for path in [parent.as_str(), directory] {
        match fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            // Without its parent the second one says what is wrong.
            Err(Errno::NOENT) if path != directory => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key() -> AttachmentKey {
        AttachmentKey { network: "azure".into(), container_id: "c".repeat(300), ifname: "eth0".into() }
    }

    #[test]
    fn what_is_left_is_one_whole_file_for_root_alone() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("run/spool");
        leave(directory.to_str().unwrap(), key(), 77).unwrap();
        leave(directory.to_str().unwrap(), key(), 77).unwrap();
        let files: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(files.len(), 1);
        assert!(!files[0].file_name().to_str().unwrap().starts_with('.'));
        assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let del = frame::decode_spooled(&std::fs::read(files[0].path()).unwrap()).unwrap();
        assert_eq!(del, SpooledDel { version: VERSION, key: key(), at_ns: 77 });
    }

    #[test]
    fn what_cannot_be_finished_is_not_left_behind() {
        let place = tempfile::tempdir().unwrap();
        // In the way of the rename.
        let end = format!("{:x}-{}-eth0", 77, &key().container_id[..ID_IN_NAME]);
        std::fs::create_dir(place.path().join(end)).unwrap();
        leave(place.path().to_str().unwrap(), key(), 77).unwrap_err();
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_spool_that_cannot_be_written_is_named() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        std::fs::write(&file, "").unwrap();
        for directory in [file, "/proc/spool".into(), place.path().join("a/b/c")] {
            let failure = leave(directory.to_str().unwrap(), key(), 1).unwrap_err();
            assert_eq!(failure.cause, "io");
            assert!(failure.message.contains(directory.to_str().unwrap()), "{failure}");
        }
    }
}
