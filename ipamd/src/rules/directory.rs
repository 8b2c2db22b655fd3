//! The directory of the ip-masq-agent's files: read when it has changed, and what was good remembered.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::agent_files::{AgentSettings, Merged, PREFIX, merge};
use crate::install::directory::replace;

/// Where the last good settings are kept, in the state directory.
pub const REMEMBERED: &str = "ip-masq.json";

/// What a file looked like: name, and what changes with every way to change it, a symlink's swap among them.
type Stamp = Vec<(String, [u64; 3], [i64; 4])>;

/// What a look at the directory shows.
type Seen = Result<Stamp, io::ErrorKind>;

/// A directory that is looked at again and again.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Where the last good settings are kept, for a start that finds a bad file.
    remembered: PathBuf,
    /// How it looked when it was last read, and at the last look if that was different.
    read: Option<Seen>,
    pending: Option<Seen>,
}

impl Directory {
    /// The directory `path`, which need not be there. Good settings are remembered in `state_dir`.
    pub fn new(path: &Path, state_dir: &Path) -> Self {
        Directory { path: path.to_owned(), remembered: state_dir.join(REMEMBERED), read: None, pending: None }
    }

    /// What the files say, if they have changed since they were last read, and not since the last look: a file that is being
    /// written, as the azure-ip-masq-merger does in place, must not count as an empty one.
    pub fn look(&mut self) -> Option<Merged> {
        let seen = Some(see(&self.path));
        if seen == self.read {
            self.pending = None;
            return None;
        }
        if seen != self.pending {
            self.pending = seen;
            return None;
        }
        Some(self.read())
    }

    /// What the files say now. A directory that is not there holds none.
    pub fn read(&mut self) -> Merged {
        self.pending = None;
        let seen = see(&self.path);
        let mut unreadable = Vec::new();
        if let Err(e) = &seen {
            unreadable.push(format!("{}: cannot be listed: {e}", self.path.display()));
        }
        let mut contents = Vec::new();
        for (name, ..) in seen.iter().flatten() {
            match fs::read(self.path.join(name)) {
                Ok(bytes) => contents.push((name.as_str(), bytes)),
                Err(e) => unreadable.push(format!("{name}: cannot be read: {e}")),
            }
        }
        let mut merged = merge(contents.iter().map(|(name, bytes)| (*name, bytes.as_slice())));
        merged.bad.extend(unreadable);
        self.read = Some(seen);
        merged
    }

    /// Keeps good settings for a later start; `None` where there were no files.
    pub fn remember(&self, settings: Option<&AgentSettings>) -> io::Result<()> {
        let Some(settings) = settings else {
            return match fs::remove_file(&self.remembered) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            };
        };
        replace(&self.remembered, &serde_json::to_vec(settings)?)
    }

    /// The last good settings, of whichever daemon on this node since it booted.
    pub fn recall(&self) -> Option<AgentSettings> {
        serde_json::from_slice(&fs::read(&self.remembered).ok()?).ok()
    }
}

fn see(directory: &Path) -> Seen {
    stamp(directory).map_err(|e| e.kind())
}

fn stamp(directory: &Path) -> io::Result<Stamp> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Stamp::new()),
        entries => entries?,
    };
    let mut stamp = Stamp::new();
    for entry in entries {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if !name.starts_with(PREFIX) {
            continue;
        }
        // Through symlinks: a ConfigMap's files are two of them, and an update swaps the inner one.
        match fs::metadata(directory.join(&name)) {
            Ok(file) if file.is_dir() => {}
            Ok(file) => {
                let times = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
                stamp.push((name, [file.dev(), file.ino(), file.size()], times));
            }
            // It is there and leads nowhere: reading it will say why.
            Err(_) => stamp.push((name, [0; 3], [0; 4])),
        }
    }
    stamp.sort();
    Ok(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "nonMasqueradeCIDRs: [10.0.0.0/8]";
    const TWO: &str = "nonMasqueradeCIDRs: [10.0.0.0/8, 11.0.0.0/8]";

    fn directory() -> (tempfile::TempDir, Directory) {
        let files = tempfile::tempdir().unwrap();
        let directory = Directory::new(&files.path().join("config"), files.path());
        fs::create_dir(files.path().join("config")).unwrap();
        (files, directory)
    }

    fn count(merged: &Merged) -> usize {
        assert_eq!(merged.bad, [""; 0]);
        merged.settings.as_ref().map_or(0, |settings| settings.cidrs.len())
    }

    #[test]
    fn a_change_counts_at_the_second_look_that_sees_it_and_once() {
        let (_files, mut directory) = directory();
        assert_eq!(directory.read().settings, None);
        fs::write(directory.path.join("ip-masq-agent"), ONE).unwrap();
        assert_eq!(directory.look(), None);
        assert_eq!(directory.look().map(|merged| count(&merged)), Some(1));
        assert_eq!(directory.look(), None);
        fs::write(directory.path.join("ip-masq-agent"), "").unwrap();
        assert_eq!(directory.look(), None);
        fs::write(directory.path.join("ip-masq-agent"), TWO).unwrap();
        assert_eq!(directory.look(), None, "it changed between the looks");
        assert_eq!(directory.look().map(|merged| count(&merged)), Some(2));
        fs::remove_file(directory.path.join("ip-masq-agent")).unwrap();
        assert_eq!(directory.look(), None);
        assert_eq!(directory.look().map(|merged| merged.settings), Some(None));
        assert_eq!(directory.look(), None);
    }

    #[test]
    fn the_swap_of_a_config_map_s_symlink_is_a_change() {
        let (_files, mut directory) = directory();
        let root = directory.path.clone();
        for (version, text) in [("..1", ONE), ("..2", TWO)] {
            fs::create_dir(root.join(version)).unwrap();
            fs::write(root.join(version).join("ip-masq-agent"), text).unwrap();
        }
        std::os::unix::fs::symlink("..1", root.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/ip-masq-agent", root.join("ip-masq-agent")).unwrap();
        assert_eq!(count(&directory.read()), 1);
        std::os::unix::fs::symlink("..2", root.join("..new")).unwrap();
        fs::rename(root.join("..new"), root.join("..data")).unwrap();
        assert_eq!(directory.look(), None);
        assert_eq!(directory.look().map(|merged| count(&merged)), Some(2));
    }

    #[test]
    fn only_files_whose_name_begins_as_the_agent_s_count_and_a_dangling_one_is_bad() {
        let (_files, mut directory) = directory();
        fs::write(directory.path.join("other"), "- no").unwrap();
        fs::create_dir(directory.path.join("ip-masq-directory")).unwrap();
        assert_eq!(directory.read(), Merged::default());
        std::os::unix::fs::symlink("nowhere", directory.path.join("ip-masq-agent")).unwrap();
        assert!(directory.read().bad[0].starts_with("ip-masq-agent: cannot be read"));
    }

    #[test]
    fn a_directory_that_cannot_be_listed_is_bad_and_told_of_once() {
        let (files, _) = directory();
        fs::write(files.path().join("file"), "").unwrap();
        let mut directory = Directory::new(&files.path().join("file"), files.path());
        assert!(directory.read().bad[0].contains("cannot be listed"));
        assert_eq!(directory.look(), None);
        assert_eq!(Directory::new(&files.path().join("absent"), files.path()).read(), Merged::default());
    }

    #[test]
    fn good_settings_are_remembered_until_there_are_no_files() {
        let (files, directory) = directory();
        let settings = merge([("ip-masq", TWO.as_bytes())]).settings;
        directory.remember(settings.as_ref()).unwrap();
        let later = Directory::new(&directory.path, files.path());
        assert_eq!(later.recall(), settings);
        later.remember(None).unwrap();
        later.remember(None).unwrap();
        assert_eq!(later.recall(), None);
    }
}
