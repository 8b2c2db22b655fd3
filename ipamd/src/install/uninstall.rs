//! `dotfour-ipamd uninstall`: everything that `install` and the daemon put onto the node, off it again.
//!
//! What promises goes first: the network configuration, then the programs, then what the daemon made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dotfour_datapath::{KernelError, Socket};

use super::conflist::{self, Owner};
use super::directory::{Held, UNFINISHED, unfinished};
use super::programs::PROGRAMS;
use super::settings::{self, Settings};
use super::{InstallError, has_content};
use crate::config::{Config, MetricsTarget};
use crate::errors::with_source;
use crate::lease::{Identity, journal, recover};
use crate::rules::apply::Nft;
use crate::rules::directory::REMEMBERED;
use crate::rules::table::TABLE;
use crate::wiring::Janitor;

/// How long a directory may be held by another. A daemon that was killed while it started `nft` leaves a process that holds
/// the state directory for a moment.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is to be uninstalled.
#[derive(Debug)]
pub struct Order<'o> {
    /// The daemon's configuration.
    pub config: &'o Config,
    /// Where the programs are.
    pub bin_dir: &'o Path,
    /// Where the network configuration is.
    pub conf_dir: &'o Path,
    /// The plugin of this release: only what is equal to it is removed.
    pub plugin: &'o Path,
    /// Whatever the version, and whatever pods there are.
    pub force: bool,
}

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// A daemon runs.
    #[error("a dotfour-ipamd runs with stateDir {}; stop it first, and whatever starts it again", path.display())]
    DaemonRuns {
        /// Its state directory.
        path: PathBuf,
    },
    /// Pods are wired, or have addresses that another plugin has wired.
    #[error(
        "{count} pods are wired still, and could not be unwired without the plugin; \
         drain the node first, or say --force to leave them as they are"
    )]
    PodsWired {
        /// How many.
        count: usize,
    },
    /// The installed program is another release's.
    #[error(
        "{} is not this release's, so a later installation may be in use; uninstall with that release's dotfour-ipamd, \
         or say --force", program.display()
    )]
    OtherRelease {
        /// The installed program.
        program: PathBuf,
    },
    /// The node's links cannot be read.
    #[error("cannot see whether pods are wired")]
    Links(#[source] io::Error),
    /// The kernel refused to list them.
    #[error("cannot see whether pods are wired")]
    Kernel(#[from] KernelError),
    /// A file or directory.
    #[error(transparent)]
    Install(#[from] InstallError),
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// One sentence for each thing that was removed or put back.
    pub done: Vec<String>,
    /// One sentence for each thing that could not be.
    pub problems: Vec<String>,
}

impl Report {
    fn note(&mut self, what: impl std::fmt::Display, outcome: io::Result<bool>) {
        match outcome {
            Ok(true) => self.done.push(format!("removed {what}")),
            Ok(false) => {}
            Err(e) => self.problems.push(format!("{what} stays: {e}")),
        }
    }
}

/// Uninstalls, in the calling thread's network namespace. Repeating it does no harm, and goes on where an earlier one ended.
///
/// # Errors
/// Nothing was removed. What could not be removed among other things is in the report.
pub fn uninstall(order: &Order<'_>) -> Result<Report, UninstallError> {
    let config = order.config;
    // Held to the end, so that no daemon starts meanwhile.
    let state = match Held::new(&config.state_dir, PATIENCE) {
        Ok(held) => Some(held),
        Err(InstallError::Busy { path, .. }) => return Err(UninstallError::DaemonRuns { path }),
        Err(InstallError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e.into()),
    };
    let mut socket = Socket::open().map_err(UninstallError::Links)?;
    let found = recover::find(&socket.links()?);
    if !order.force {
        refuse_where_in_use(order, found.pods.len() + delegated_leases(config)?)?;
    }
    let mut report = Report::default();
    remove_lists(order, &mut report)?;
    remove_programs(order, &mut report)?;
    if !found.condemned_groups.is_empty() {
        let count = found.condemned_groups.len();
        match bury(socket, found.condemned_groups) {
            Ok(()) => report.done.push(format!("removed the links of ended pods, in {count} groups")),
            Err(e) => report.problems.push(format!("links of ended pods stay: {e}")),
        }
    }
    match Nft::find().and_then(|nft| nft.remove()) {
        Ok(true) => report.done.push(format!("removed the table inet {TABLE}")),
        Ok(false) => {}
        Err(e) => report.problems.push(format!("the table inet {TABLE} may be in force still: {}", with_source(&e))),
    }
    if state.is_some() {
        match Settings::new(&config.state_dir).and_then(|settings| settings.restore()) {
            Ok(done) => report.done.extend(done),
            Err(e) => report.problems.push(format!("kernel settings stay as {} says: {e}", settings::FILE)),
        }
    }
    remove_state(config, &mut report);
    Ok(report)
}

/// How many pods have addresses that another plugin has wired: that plugin wants `dotfour-ipam` for their DEL.
fn delegated_leases(config: &Config) -> Result<usize, UninstallError> {
    let identity = Identity::of_this_machine().map_err(InstallError::file("read", journal::BOOT_ID))?;
    let leases = recover::replay(&journal::remember(&config.state_dir, &identity).records).leases;
    Ok(leases.values().filter(|lease| lease.delegated).count())
}

fn refuse_where_in_use(order: &Order<'_>, pods: usize) -> Result<(), UninstallError> {
    if pods > 0 {
        return Err(UninstallError::PodsWired { count: pods });
    }
    for name in PROGRAMS {
        let program = order.bin_dir.join(name);
        if program.exists() {
            let shipped = fs::read(order.plugin).map_err(InstallError::file("read", order.plugin))?;
            if !has_content(&program, &shipped).map_err(InstallError::file("read", &program))? {
                return Err(UninstallError::OtherRelease { program });
            }
        }
    }
    Ok(())
}

fn remove_lists(order: &Order<'_>, report: &mut Report) -> Result<(), InstallError> {
    let failed = || InstallError::file("look into", order.conf_dir);
    if !order.conf_dir.exists() {
        return Ok(());
    }
    let held = Held::new(order.conf_dir, PATIENCE)?;
    for file in conflist::look(order.conf_dir).map_err(failed())?.iter().filter(|file| file.owner == Owner::Ours) {
        report.note(order.conf_dir.join(&file.name).display(), held.remove(&file.name));
    }
    report.note(format_args!("{UNFINISHED}* in {}", held.path().display()), held.sweep().map(|count| count > 0));
    Ok(())
}

fn remove_programs(order: &Order<'_>, report: &mut Report) -> Result<(), InstallError> {
    if !order.bin_dir.exists() {
        return Ok(());
    }
    let held = Held::new(order.bin_dir, PATIENCE)?;
    for name in PROGRAMS {
        report.note(order.bin_dir.join(name).display(), held.remove(name));
    }
    report.note(format_args!("{UNFINISHED}* in {}", held.path().display()), held.sweep().map(|count| count > 0));
    Ok(())
}

fn bury(socket: Socket, groups: impl IntoIterator<Item = u32>) -> io::Result<()> {
    let (janitor, thread) = Janitor::start(socket)?;
    groups.into_iter().for_each(|group| janitor.bury(group));
    drop(janitor);
    thread.join().map_err(|_| io::Error::other("the thread that deletes them had panicked"))
}

/// The files that a daemon leaves, by their names: the directories may be others' too.
fn remove_state(config: &Config, report: &mut Report) {
    let state = &config.state_dir;
    let journal = state.join(journal::FILE);
    let mut files = vec![config.socket.clone(), journal.with_extension("new"), journal];
    for name in [settings::FILE, REMEMBERED] {
        let path = state.join(name);
        files.extend([unfinished(&path), path]);
    }
    if let MetricsTarget::Unix(path) = &config.metrics {
        files.push(path.clone());
    }
    files.extend(named(&config.spool_dir, is_spooled));
    files.extend(named(&config.spool_dir.join("bad"), is_spooled));
    files.extend(config.socket.parent().into_iter().flat_map(|beside| {
        let begins = config.socket.with_extension("new-");
        named(beside, move |name| begins.file_name().is_some_and(|begins| name.starts_with(&*begins.to_string_lossy())))
    }));
    for path in files {
        report.note(path.display(), absent_is_fine(fs::remove_file(&path)));
    }
    // Those that are empty now.
    let directories = [&config.spool_dir.join("bad"), &config.spool_dir, state];
    for emptied in directories {
        let removed = match fs::remove_dir(emptied) {
            Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy) => Ok(false),
            other => absent_is_fine(other),
        };
        report.note(emptied.display(), removed);
    }
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn named(directory: &Path, fits: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| fits(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

/// As the plugin names what it spools: the moment in hex, the container, the interface; with a dot before it while it is
/// written.
fn is_spooled(name: &str) -> bool {
    let mut parts = name.strip_prefix('.').unwrap_or(name).splitn(2, '-');
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.next().is_some_and(hex) && parts.next().is_some_and(|rest| rest.contains('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_as_the_plugin_does_is_taken_for_spooled() {
        for (name, expected) in [
            ("1f4a-c0ffee-eth0", true),
            (".1f4a-c0ffee-eth0", true),
            ("1f4a-c0ffee", false),
            ("notes-of-mine", false),
            ("passwd", false),
            ("-c0ffee-eth0", false),
        ] {
            assert_eq!(is_spooled(name), expected, "{name}");
        }
    }
}
