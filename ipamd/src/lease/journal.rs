//! The journal's file: append, and now and then write anew.
//!
//! The file lies on a tmpfs and is never synced: what ends it is a reboot, which ends the pods too, and the boot id in its
//! header says so should the file survive all the same.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::record::{self, Contents, Record, SCHEMA};

/// The file's name in the state directory.
pub const FILE: &str = "leases.log";

/// Below this size a file is not worth writing anew, in bytes.
const COMPACT_FROM: u64 = 256 * 1024;

/// A file is written anew when it has grown to this many times what a fresh one had.
const COMPACT_FACTOR: u64 = 4;

/// Where the kernel says which boot this is.
pub const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Which boot this is.
///
/// # Errors
/// The kernel does not say.
pub fn boot_id() -> std::io::Result<String> {
    Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

/// Which machine this is, and since when: records of another one are of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The kernel's ([`BOOT_ID`]). Only it tells a reboot: clocks jump, boot ids do not.
    pub boot_id: String,
    /// The VM's unique id as its firmware tells it; empty where it does not.
    pub machine_id: String,
}

impl Identity {
    /// This machine's.
    pub fn of_this_machine() -> std::io::Result<Self> {
        let boot_id = boot_id()?;
        let machine_id = fs::read_to_string("/sys/class/dmi/id/product_uuid").unwrap_or_default().trim().to_owned();
        Ok(Identity { boot_id, machine_id })
    }

    /// Whether records of this boot and machine are ours. A machine id that could not be read, then or now, says nothing.
    fn is_of(&self, boot_id: &str, machine_id: &str) -> bool {
        let unknown = machine_id.is_empty() || self.machine_id.is_empty();
        boot_id == self.boot_id && (unknown || machine_id == self.machine_id)
    }

    fn header(&self) -> Record {
        Record::Header {
            schema: SCHEMA,
            oldest_reader: SCHEMA,
            boot_id: self.boot_id.clone(),
            machine_id: self.machine_id.clone(),
        }
    }
}

/// What the journal of an earlier daemon says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Its records, without the header. Empty if they are of another boot or machine.
    pub records: Vec<Record>,
    /// Whether something may be missing that was recorded in this boot.
    pub incomplete: bool,
    /// One sentence for each thing that was dropped.
    pub findings: Vec<String>,
}

/// Reads the journal of an earlier daemon. No state of the file is an error.
pub fn remember(directory: &Path, identity: &Identity) -> Remembered {
    let path = directory.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => judge(record::read(&bytes), identity),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Remembered { incomplete: true, ..Remembered::default() },
        Err(e) => Remembered {
            incomplete: true,
            findings: vec![format!("the journal {} cannot be read: {e}; rebuilding from the links", path.display())],
            ..Remembered::default()
        },
    }
}

/// Decides what of a file's contents to believe. Pure.
pub fn judge(contents: Contents, identity: &Identity) -> Remembered {
    let mut remembered = Remembered::default();
    let mut records = contents.records.into_iter();
    match records.next() {
        Some(Record::Header { boot_id, machine_id, .. }) if !identity.is_of(&boot_id, &machine_id) => {
            remembered.findings.push("the journal is of another boot or another machine; dropped".into());
            return remembered;
        }
        Some(Record::Header { oldest_reader, .. }) if oldest_reader <= SCHEMA => remembered.records.extend(records),
        Some(Record::Header { schema, .. }) => {
            remembered.incomplete = true;
            remembered.findings.push(format!(
                "the journal is of schema {schema}, which this version ({SCHEMA}) cannot read; rebuilding from the links"
            ));
        }
        _ => {
            remembered.incomplete = true;
            remembered.findings.push("the journal has no header; rebuilding from the links".into());
        }
    }
    if let Some(damage) = contents.damage {
        remembered.incomplete = true;
        remembered.findings.push(format!(
            "the journal is damaged at byte {}; the last {} bytes are dropped",
            damage.offset, damage.dropped
        ));
    }
    if contents.unknown > 0 {
        remembered
            .findings
            .push(format!("{} records of the journal are of a later version; skipped", contents.unknown));
    }
    remembered
}

/// The journal cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the journal {} cannot be written", path.display())]
pub struct JournalError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// The journal of this daemon, open for writing.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    identity: Identity,
    file: Option<File>,
    length: u64,
    compact_at: u64,
}

impl Journal {
    /// A journal that has yet to be written by [`Journal::rewrite`].
    pub fn new(directory: &Path, identity: Identity) -> Self {
        Journal { path: directory.join(FILE), identity, file: None, length: 0, compact_at: 0 }
    }

    /// Whether the file should be written anew: it has grown, or a write failed and left it in doubt.
    pub fn wants_rewrite(&self) -> bool {
        self.file.is_none() || self.length >= self.compact_at
    }

    /// Appends frames, all of them. After an error [`Journal::wants_rewrite`] is true until a rewrite succeeds; what did get
    /// into the file of them is taken out of it, if the file system lets itself be asked.
    pub fn append(&mut self, frames: &[u8]) -> Result<(), JournalError> {
        let written = match &mut self.file {
            Some(file) => file.write_all(frames),
            None => Err(std::io::ErrorKind::NotConnected.into()),
        };
        match written {
            Ok(()) => {
                self.length += u64::try_from(frames.len()).unwrap_or_default();
                Ok(())
            }
            Err(source) => {
                // Those calls fail: a start must not find what they asked for.
                let _ = self.file.take().map(|file| file.set_len(self.length));
                Err(self.failed(source))
            }
        }
    }

    /// Writes the file anew, with these frames behind a header, and puts it in the place of the old one in one step.
    pub fn rewrite(&mut self, frames: &[u8]) -> Result<(), JournalError> {
        let mut bytes = Vec::with_capacity(frames.len() + 256);
        self.identity.header().append_to(&mut bytes);
        bytes.extend(frames);
        let new = self.path.with_extension("new");
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&bytes)?;
            fs::rename(&new, &self.path)?;
            Ok(file)
        });
        self.file = None;
        self.file = Some(written.map_err(|source| self.failed(source))?);
        self.length = u64::try_from(bytes.len()).unwrap_or_default();
        self.compact_at = (self.length * COMPACT_FACTOR).max(COMPACT_FROM);
        Ok(())
    }

    fn failed(&self, source: std::io::Error) -> JournalError {
        JournalError { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(boot_id: &str) -> Identity {
        Identity { boot_id: boot_id.into(), machine_id: "m".into() }
    }

    fn frames(records: &[Record]) -> Vec<u8> {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.append_to(&mut bytes));
        bytes
    }

    fn cooling(n: u8) -> Record {
        Record::Cooling { address: std::net::Ipv4Addr::new(10, 0, 0, n).into(), since: std::time::Duration::ZERO }
    }

    #[test]
    fn what_was_written_is_remembered_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(directory.path(), identity("b"));
        assert!(journal.wants_rewrite());
        journal.rewrite(&frames(&[cooling(1)])).unwrap();
        assert!(!journal.wants_rewrite());
        journal.append(&frames(&[cooling(2), cooling(3)])).unwrap();
        let remembered = remember(directory.path(), &identity("b"));
        assert_eq!(remembered.records, [cooling(1), cooling(2), cooling(3)]);
        assert!(!remembered.incomplete && remembered.findings.is_empty());
    }

    #[test]
    fn another_boot_or_machine_has_nothing_to_remember() {
        let directory = tempfile::tempdir().unwrap();
        Journal::new(directory.path(), identity("b")).rewrite(&frames(&[cooling(1)])).unwrap();
        for other in [identity("c"), Identity { machine_id: "n".into(), ..identity("b") }] {
            let remembered = remember(directory.path(), &other);
            assert!(remembered.records.is_empty() && !remembered.incomplete);
            assert_eq!(remembered.findings.len(), 1);
        }
    }

    #[test]
    fn a_machine_id_that_could_not_be_read_is_not_another_machine_s() {
        let nameless = || Identity { machine_id: String::new(), ..identity("b") };
        for (then, now) in [(nameless(), identity("b")), (identity("b"), nameless())] {
            let directory = tempfile::tempdir().unwrap();
            Journal::new(directory.path(), then).rewrite(&frames(&[cooling(1)])).unwrap();
            assert_eq!(remember(directory.path(), &now).records, [cooling(1)]);
        }
    }

    #[test]
    fn a_file_that_is_not_a_journal_is_reported_and_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        for bytes in [&b""[..], b" \n", &[0; 100], b"{\"Networks\":{}}", &frames(&[cooling(1)])] {
            fs::write(directory.path().join(FILE), bytes).unwrap();
            let remembered = remember(directory.path(), &identity("b"));
            assert!(remembered.incomplete && remembered.records.is_empty() && !remembered.findings.is_empty());
        }
        fs::remove_file(directory.path().join(FILE)).unwrap();
        fs::create_dir(directory.path().join(FILE)).unwrap();
        assert!(remember(directory.path(), &identity("b")).findings[0].contains("cannot be read"));
    }

    #[test]
    fn a_later_schema_is_read_if_it_says_so() {
        let header = |oldest_reader| Record::Header {
            schema: SCHEMA + 1,
            oldest_reader,
            boot_id: "b".into(),
            machine_id: "m".into(),
        };
        for (oldest_reader, readable) in [(SCHEMA, true), (SCHEMA + 1, false)] {
            let contents = record::read(&frames(&[header(oldest_reader), cooling(1)]));
            let remembered = judge(contents, &identity("b"));
            assert_eq!(remembered.records.len(), usize::from(readable));
            assert_eq!(remembered.incomplete, !readable);
        }
    }

    #[test]
    fn a_file_that_has_grown_wants_to_be_written_anew() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(directory.path(), identity("b"));
        journal.rewrite(&[]).unwrap();
        let records = frames(&(0..=255).map(cooling).collect::<Vec<_>>());
        let mut appended = 0;
        while !journal.wants_rewrite() {
            journal.append(&records).unwrap();
            appended += 1;
            assert!(appended < 1000);
        }
        assert!(appended > 1);
        journal.rewrite(&frames(&[cooling(9)])).unwrap();
        assert!(!journal.wants_rewrite());
        assert_eq!(remember(directory.path(), &identity("b")).records, [cooling(9)]);
    }

    #[test]
    fn a_journal_that_cannot_be_written_says_so_and_recovers() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let mut journal = Journal::new(&state, identity("b"));
        assert!(journal.rewrite(&[]).unwrap_err().to_string().contains("leases.log"));
        assert!(journal.append(&frames(&[cooling(1)])).is_err());
        assert!(journal.wants_rewrite());
        fs::create_dir(&state).unwrap();
        journal.rewrite(&frames(&[cooling(1)])).unwrap();
        assert!(!journal.wants_rewrite());
    }

    #[test]
    fn what_got_into_the_file_of_a_write_that_failed_is_taken_out_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(directory.path(), identity("b"));
        journal.rewrite(&frames(&[cooling(1)])).unwrap();
        let before = fs::read(directory.path().join(FILE)).unwrap();
        // A file that ends in the middle of the next write: it cannot grow beyond its first page.
        let memory = rustix::fs::memfd_create("journal", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
        let mut full = File::from(memory);
        full.write_all(&before).unwrap();
        full.set_len(4096).unwrap();
        rustix::fs::fcntl_add_seals(&full, rustix::fs::SealFlags::GROW).unwrap();
        journal.file = Some(full.try_clone().unwrap());
        let many = frames(&(0..=255).map(cooling).collect::<Vec<_>>());
        assert!(before.len() + many.len() > 4096);
        assert!(journal.append(&many).is_err());
        assert_eq!(full.metadata().unwrap().len(), u64::try_from(before.len()).unwrap());
        let mut left = Vec::new();
        std::os::unix::fs::FileExt::read_exact_at(
            &full,
            {
                left.resize(before.len(), 0);
                &mut left
            },
            0,
        )
        .unwrap();
        assert_eq!(left, before);
        assert!(journal.wants_rewrite());
    }
}
