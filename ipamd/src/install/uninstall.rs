//! `dotfour-ipamd uninstall`: everything that `install` and the daemon put onto the node, off it again.
//!
//! What promises goes first: the network configuration, then the programs, then what the daemon made.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dotfour_datapath::{KernelError, Socket};

use super::conflist::{self, Found, Owner};
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
    /// One sentence for each thing that was removed or put back, or kept for pods.
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
/// With `force`, pods keep their network: the links of those that live, the table, kernel settings, and the records that a
/// later call needs.
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
    let pods = found.pods.len() + delegated_leases(config)?;
    if !order.force {
        refuse_where_in_use(order, pods)?;
    }
    // All that may be refused as a whole comes before the first thing that is removed.
    let lists = Lists::look(order.conf_dir)?;
    let programs = held_if_there(order.bin_dir)?;
    let mut report = Report::default();
    lists.remove(&mut report);
    remove_programs(programs, &mut report);
    if !found.condemned_groups.is_empty() {
        let count = found.condemned_groups.len();
        match bury(socket, &found.condemned_groups) {
            Ok(()) => report.done.push(format!("removed the links of ended pods, in {count} groups")),
            Err(e) => report.problems.push(format!("links of ended pods stay: {e}")),
        }
    }
    if pods > 0 {
        report.done.push(format!(
            "kept the table inet {TABLE}, kernel settings and their record for {pods} pods; \
             uninstall again when they have ended, or reboot the node"
        ));
    } else {
        put_back(config, state.is_some(), &mut report);
    }
    remove_state(config, pods > 0, &mut report);
    Ok(report)
}

/// The rules and the kernel's settings, without which pods have no network.
fn put_back(config: &Config, has_state: bool, report: &mut Report) {
    match Nft::find().and_then(|nft| nft.remove()) {
        Ok(true) => report.done.push(format!("removed the table inet {TABLE}")),
        Ok(false) => {}
        Err(e) => report.problems.push(format!("the table inet {TABLE} may be in force still: {}", with_source(&e))),
    }
    if has_state {
        match Settings::new(&config.state_dir).and_then(|settings| settings.restore()) {
            Ok(done) => report.done.extend(done),
            Err(e) => report.problems.push(format!("kernel settings stay as {} says: {e}", settings::FILE)),
        }
    }
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

/// A directory, held; `None` where there is none.
fn held_if_there(directory: &Path) -> Result<Option<Held>, InstallError> {
    match Held::new(directory, PATIENCE) {
        Ok(held) => Ok(Some(held)),
        Err(InstallError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Our network configurations, in a directory that is held.
struct Lists(Option<(Held, Vec<Found>)>);

impl Lists {
    fn look(directory: &Path) -> Result<Self, InstallError> {
        let Some(held) = held_if_there(directory)? else { return Ok(Lists(None)) };
        let mut ours = conflist::look(directory).map_err(InstallError::file("look into", directory))?;
        ours.retain(|file| file.owner == Owner::Ours);
        Ok(Lists(Some((held, ours))))
    }

    fn remove(self, report: &mut Report) {
        let Some((held, ours)) = self.0 else { return };
        for file in ours {
            report.note(held.path().join(&file.name).display(), held.remove(&file.name));
        }
        sweep(&held, report);
    }
}

fn remove_programs(held: Option<Held>, report: &mut Report) {
    let Some(held) = held else { return };
    for name in PROGRAMS {
        report.note(held.path().join(name).display(), held.remove(name));
    }
    sweep(&held, report);
}

fn sweep(held: &Held, report: &mut Report) {
    report.note(format_args!("{UNFINISHED}* in {}", held.path().display()), held.sweep().map(|count| count > 0));
}

/// Has the links of these groups deleted, and looks whether they are.
fn bury(socket: Socket, groups: &BTreeSet<u32>) -> io::Result<()> {
    let (janitor, thread) = Janitor::start(socket)?;
    groups.iter().for_each(|group| janitor.bury(*group));
    drop(janitor);
    thread.join().map_err(|_| io::Error::other("the thread that deletes them had panicked"))?;
    // The janitor tells what the kernel refuses in the log alone.
    let links = Socket::open()?.links().map_err(io::Error::other)?;
    match recover::find(&links).condemned_groups.intersection(groups).count() {
        0 => Ok(()),
        left => Err(io::Error::other(format!("the kernel has not deleted those of {left} groups"))),
    }
}

/// The files that a daemon leaves, by their names: the directories may be others' too. The record of kernel settings goes when
/// they are put back, and with nothing else. With pods, that of their leases stays: another plugin's pods have no other.
fn remove_state(config: &Config, with_pods: bool, report: &mut Report) {
    let state = &config.state_dir;
    let (journal, remembered) = (state.join(journal::FILE), state.join(REMEMBERED));
    let mut files = vec![config.socket.clone(), journal.with_extension("new"), unfinished(&state.join(settings::FILE))];
    files.extend([unfinished(&remembered), remembered]);
    if !with_pods {
        files.push(journal);
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
