//! Kernel settings that the daemon changes, on record with what they were, so that `uninstall` can put them back.
//!
//! The record is in the state directory and knows its boot, because a reboot undoes the settings too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::directory::replace;
use crate::lease::journal::boot_id;
use crate::sysctl;

/// The record's file name in the state directory.
pub const FILE: &str = "settings.json";

/// The settings that were changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    /// Which boot they were changed in.
    boot_id: String,
    /// In the order in which they were changed.
    changed: Vec<Change>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    /// Its path below the network settings.
    setting: String,
    before: String,
    now: String,
}

/// The settings of the calling thread's network namespace, and the record of those that were changed.
#[derive(Debug, Clone)]
pub struct Settings {
    kernel: PathBuf,
    record: PathBuf,
    boot_id: String,
}

impl Settings {
    /// With the record in this directory.
    ///
    /// # Errors
    /// The kernel does not say which boot this is.
    pub fn new(state_dir: &Path) -> io::Result<Self> {
        Ok(Settings::of(sysctl::directory(), state_dir, &boot_id()?))
    }

    /// With settings in files below `kernel`.
    pub(crate) fn of(kernel: &Path, state_dir: &Path, boot_id: &str) -> Self {
        Settings { kernel: kernel.into(), record: state_dir.join(FILE), boot_id: boot_id.into() }
    }

    /// Where a setting is.
    pub fn path(&self, setting: &str) -> PathBuf {
        self.kernel.join(setting)
    }

    /// A setting's value.
    ///
    /// # Errors
    /// There is no such setting.
    pub fn get(&self, setting: &str) -> io::Result<String> {
        Ok(fs::read_to_string(self.path(setting))?.trim().to_owned())
    }

    /// Gives a setting, by its path below `/proc/sys/net`, a value. What it was is on record before it is changed, and is
    /// returned; `None` if it has that value already: then it is not ours to put back, either.
    ///
    /// # Errors
    /// The record cannot be written, or the kernel refuses; the setting is as it was.
    pub fn set(&self, setting: &str, value: &str) -> io::Result<Option<String>> {
        let was = self.get(setting)?;
        if was == value {
            return Ok(None);
        }
        let mut record = self.read();
        match record.changed.iter_mut().find(|change| change.setting == setting) {
            // Somebody put it back meanwhile: what counts is how it was in the beginning.
            Some(change) => value.clone_into(&mut change.now),
            None => {
                record.changed.push(Change { setting: setting.to_owned(), before: was.clone(), now: value.to_owned() })
            }
        }
        self.write(&record)?;
        fs::write(self.path(setting), value)?;
        Ok(Some(was))
    }

    /// Puts back what still has the value that it was given, the last first, and forgets it. Returns one sentence for each
    /// setting.
    ///
    /// # Errors
    /// The first that cannot be put back; it, and those before it, stay on record.
    pub fn restore(&self) -> io::Result<Vec<String>> {
        let mut record = self.read();
        let mut done = Vec::new();
        while let Some(Change { setting, before, now }) = record.changed.pop() {
            let name = format!("net.{}", setting.replace('/', "."));
            match self.get(&setting) {
                Ok(value) if value == now => {
                    fs::write(self.path(&setting), &before)?;
                    done.push(format!("{name} is {before} again"));
                }
                Ok(value) => done.push(format!("{name} stays {value}, which somebody else gave it")),
                // Its link is gone, and the link's settings with it.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
            self.write(&record)?;
        }
        match fs::remove_file(&self.record) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(done),
        }
    }

    /// The record of this boot; an empty one where there is none or it cannot be understood.
    fn read(&self) -> Record {
        let text = fs::read(&self.record).unwrap_or_default();
        let record: Record = serde_json::from_slice(&text).unwrap_or_default();
        if record.boot_id == self.boot_id {
            record
        } else {
            Record { boot_id: self.boot_id.clone(), changed: Vec::new() }
        }
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        if let Some(directory) = self.record.parent() {
            fs::create_dir_all(directory)?;
        }
        replace(&self.record, &serde_json::to_vec(record)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORWARD: &str = "ipv4/ip_forward";

    /// Files in place of the kernel's: the daemon's own tests have the kernel.
    fn settings(directory: &tempfile::TempDir, value: &str) -> Settings {
        let kernel = directory.path().join("net");
        fs::create_dir_all(kernel.join("ipv4")).unwrap();
        fs::write(kernel.join(FORWARD), value).unwrap();
        Settings::of(&kernel, directory.path(), "this")
    }

    #[test]
    fn a_setting_is_put_back_as_it_was_in_the_beginning_and_once_only() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(&directory, "0\n");
        assert_eq!(settings.set(FORWARD, "1").unwrap().as_deref(), Some("0"));
        assert_eq!(settings.set(FORWARD, "1").unwrap(), None, "it is so already");
        assert_eq!(settings.set(FORWARD, "2").unwrap().as_deref(), Some("1"));
        assert_eq!(settings.get(FORWARD).unwrap(), "2");
        assert_eq!(settings.restore().unwrap(), ["net.ipv4.ip_forward is 0 again"]);
        assert_eq!(settings.get(FORWARD).unwrap(), "0");
        assert_eq!(settings.restore().unwrap(), Vec::<String>::new());
        assert!(!directory.path().join(FILE).exists());
    }

    #[test]
    fn what_was_changed_last_is_put_back_first() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(&directory, "0");
        fs::write(settings.path("ipv4/a"), "1").unwrap();
        settings.set(FORWARD, "1").unwrap();
        settings.set("ipv4/a", "2").unwrap();
        assert_eq!(settings.restore().unwrap(), ["net.ipv4.a is 1 again", "net.ipv4.ip_forward is 0 again"]);
    }

    #[test]
    fn what_was_so_before_or_was_changed_since_by_others_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let own = settings(&directory, "1");
        assert_eq!(own.set(FORWARD, "1").unwrap(), None);
        assert!(own.restore().unwrap().is_empty());
        fs::write(own.path(FORWARD), "0").unwrap();
        own.set(FORWARD, "1").unwrap();
        fs::write(own.path(FORWARD), "2").unwrap();
        assert_eq!(own.restore().unwrap(), ["net.ipv4.ip_forward stays 2, which somebody else gave it"]);
        assert_eq!(own.get(FORWARD).unwrap(), "2");
    }

    #[test]
    fn a_record_of_another_boot_counts_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let before = settings(&directory, "0");
        before.set(FORWARD, "1").unwrap();
        let after = Settings { boot_id: "next".into(), ..before };
        assert!(after.restore().unwrap().is_empty());
        assert_eq!(after.get(FORWARD).unwrap(), "1");
    }
}
