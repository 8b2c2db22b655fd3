//! DELs that found no daemon.
//!
//! The plugin leaves them as files beside the socket, so that a DEL never has to fail because the daemon is away. They are
//! applied before the daemon serves, and while it serves, for a plugin that had no answer in time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dotfour_protocol::SpooledDel;
use dotfour_protocol::frame::decode_spooled;
use tracing::{info, warn};

use crate::errors::with_source;
use crate::metrics::Spooled;
use crate::verbs::{Ended, Node, Reason, now};
use crate::wiring::Wirer;

/// Where files go that are no DELs, for somebody to look at.
const BAD: &str = "bad";

/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// The spool directory.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
}

impl Spool {
    /// The spool in a directory, which is made where it is absent, for root alone.
    pub fn open(directory: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        Ok(Spool { directory: directory.to_owned() })
    }

    /// Applies all that is there. A file is removed only after what it asks for is done.
    pub fn apply(&self, node: &Node, wirer: &mut Wirer) {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(e) => {
                warn!("the spool {} cannot be read: {e}", self.directory.display());
                return;
            }
        };
        for entry in entries.flatten() {
            let hidden = entry.file_name().as_encoded_bytes().first() == Some(&b'.');
            // A name that begins with a dot is a file that is still being written.
            if !hidden && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                self.apply_file(&entry.path(), node, wirer);
            }
        }
    }

    fn apply_file(&self, path: &Path, node: &Node, wirer: &mut Wirer) {
        let del = match read(path) {
            Ok(del) => del,
            // Of the machine, and not of what the file says: it may be a DEL all the same.
            Err(Unread::Io(e)) => {
                warn!("{} has to wait: it cannot be read: {e}", path.display());
                return;
            }
            Err(Unread::NoDel(reason)) => {
                warn!("{} is set aside: {reason}", path.display());
                self.set_aside(path);
                node.metrics.spooled(Spooled::SetAside);
                return;
            }
        };
        let key = Arc::new(del.key);
        // None was written later than now, unless before a boot, where time began anew.
        let at = Duration::from_nanos(del.at_ns).min(now());
        let outcome = match node.end(&key, at, Reason::Spooled, wirer) {
            Ok(Ended::Released(_)) => Spooled::Released,
            Ok(Ended::AddedSince) => {
                info!(%key, "a spooled DEL is void: the pod was added again since");
                Spooled::AddedSince
            }
            Ok(Ended::Unknown) => {
                info!(%key, "a spooled DEL found nothing to end");
                Spooled::Unknown
            }
            Err(e) => {
                warn!(%key, "a spooled DEL has to wait: {}", with_source(&e));
                return;
            }
        };
        node.metrics.spooled(outcome);
        if let Err(e) = fs::remove_file(path) {
            warn!("{} is done and cannot be removed: {e}", path.display());
        }
    }

    fn set_aside(&self, path: &Path) {
        let bad = self.directory.join(BAD);
        let moved =
            fs::create_dir_all(&bad).and_then(|()| fs::rename(path, bad.join(path.file_name().unwrap_or_default())));
        if let Err(e) = moved {
            warn!("{} cannot be set aside: {e}", path.display());
        }
    }
}

/// Why a file gave no DEL.
#[derive(Debug)]
enum Unread {
    /// It could not be read.
    Io(io::Error),
    /// It is none.
    NoDel(String),
}

fn read(path: &Path) -> Result<SpooledDel, Unread> {
    let length = fs::metadata(path).map_err(Unread::Io)?.len();
    if length > MAX_FILE {
        return Err(Unread::NoDel(format!("it has {length} bytes; a spooled DEL has at most {MAX_FILE}")));
    }
    let bytes = fs::read(path).map_err(Unread::Io)?;
    decode_spooled(&bytes).map_err(|failure| Unread::NoDel(failure.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_from_what_is_no_del() {
        let place = tempfile::tempdir().unwrap();
        // A directory opens and does not read, for root too.
        assert!(matches!(read(place.path()), Err(Unread::Io(_))));
        assert!(matches!(read(&place.path().join("gone")), Err(Unread::Io(_))));
        let file = place.path().join("file");
        fs::write(&file, "no DEL").unwrap();
        assert!(matches!(read(&file), Err(Unread::NoDel(_))));
        fs::write(&file, vec![b' '; 65 * 1024]).unwrap();
        assert!(matches!(read(&file), Err(Unread::NoDel(_))));
    }
}
