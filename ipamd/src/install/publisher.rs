//! Keeps our network configuration in its directory while the daemon serves: it is a node's promise that pods can be wired.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use super::conflist::{self, Found, Owner};
use super::directory::Held;
use super::reference::{self, Reference};
use super::runtime::{self, Network};
use super::{InstallError, PLUGIN, has_content};
use crate::client;
use crate::config::Config;
use crate::errors::with_source;

/// Nobody but the runtime has to read it, and others keep passwords in such files.
const MODE: u32 = 0o600;

/// How long an `uninstall` may be at work in the directory. The next look comes soon.
const PATIENCE: Duration = Duration::from_millis(100);

/// After how many questions that the runtime answered with no the list is written again.
const WRITE_AGAIN: u32 = 3;

/// How a file was when it was last looked into: length and time of the last change.
type Stamp = Option<(u64, SystemTime)>;

/// Keeps the list in place, look by look.
#[derive(Debug)]
pub struct Publisher<'c> {
    config: &'c Config,
    directory: PathBuf,
    /// What portmap said of itself, and what its file was like then.
    portmap: (Stamp, Option<Vec<String>>),
    /// Whether the daemon has answered a question of its own.
    tested: bool,
    /// Whether the list has been in place.
    published: bool,
    /// How often the runtime was asked about the list as it is; `None` once it sees it.
    asked: Option<u32>,
    /// What was said last of each matter, so that what lasts is told once.
    told: Vec<String>,
}

impl<'c> Publisher<'c> {
    /// A publisher, if the configuration asks for one.
    pub fn new(config: &'c Config) -> Option<Self> {
        let directory = config.cni.conf_dir.clone()?;
        Some(Publisher {
            config,
            directory,
            portmap: (None, None),
            tested: false,
            published: false,
            asked: Some(0),
            told: Vec::new(),
        })
    }

    /// Whether the list has been in place once, so that the node's promise is given.
    pub fn has_published(&self) -> bool {
        self.published
    }

    /// One look: writes the list if it is not there or is another, once the daemon answers on its own socket. What cannot be
    /// done is told, and tried again at the next look.
    pub async fn look(&mut self) {
        let mut complaints = Vec::new();
        if self.may_promise(&mut complaints).await {
            match self.keep(&mut complaints).await {
                Ok(text) => {
                    self.published = true;
                    self.ask_runtime(&text, &mut complaints).await;
                }
                Err(e) => complaints.push(with_source(&e)),
            }
        }
        for complaint in complaints.iter().filter(|complaint| !self.told.contains(complaint)) {
            warn!("{complaint}");
        }
        self.told = complaints;
    }

    /// The self-test: a list without its plugin, or with a daemon that does not answer, would fail every pod.
    async fn may_promise(&mut self, complaints: &mut Vec<String>) -> bool {
        let plugin = self.config.cni.bin_dir.join(PLUGIN);
        if !reference::is_program(&plugin) {
            complaints.push(format!(
                "no network configuration is written while the plugin {} is missing; run dotfour-ipamd install",
                plugin.display()
            ));
            return false;
        }
        if !self.tested {
            let socket = self.config.socket.clone();
            match aside(move || client::ready(&socket).map_err(|e| with_source(&e))).await {
                Ok(()) => self.tested = true,
                Err(e) => complaints.push(format!("no network configuration is written: {e}")),
            }
        }
        self.tested
    }

    /// Asks until the runtime sees the list, and writes it again now and then: a runtime that was not told of it the first
    /// time is told once more.
    async fn ask_runtime(&mut self, text: &str, complaints: &mut Vec<String>) {
        let (Some(asked), Some(socket)) = (self.asked, &self.config.cni.runtime) else { return };
        let answer = runtime::network(socket).await;
        self.asked = Some(asked + 1);
        match answer {
            Ok(Network::Ready) => {
                info!("the container runtime sees the network");
                self.asked = None;
            }
            // It is told of the list while we ask.
            Ok(Network::NotReady(_)) if asked == 0 => {}
            Ok(Network::NotReady(said)) => {
                complaints.push(format!("the container runtime does not see the network yet: {said}"));
                if asked % WRITE_AGAIN == 0
                    && let Err(e) = self.write(text)
                {
                    complaints.push(with_source(&e));
                }
            }
            Err(e) => complaints.push(with_source(&e)),
        }
    }

    /// Returns the list's text.
    async fn keep(&mut self, complaints: &mut Vec<String>) -> Result<String, InstallError> {
        for plugin in reference::missing(&self.config.cni.bin_dir) {
            let (name, without) = (plugin.name(), plugin.without());
            let bin_dir = self.config.cni.bin_dir.display();
            complaints.push(format!("{bin_dir} has no {name}: {without}; {}", reference::REMEDY));
        }
        let text = conflist::text(self.config, self.portmap(complaints).await.as_deref());
        let name = &self.config.cni.conflist;
        let found = self.found()?;
        let in_place = has_content(&self.directory.join(name), text.as_bytes()).unwrap_or(false);
        if !in_place || others_of_ours(&found, name).next().is_some() {
            self.write(&text)?;
            self.asked = Some(0);
        }
        if let Some(first) = conflist::first_foreign(&found, name) {
            complaints.push(format!(
                "{} sorts before {name}, so that the runtime takes it and pods are not Dotfour's; \
                 remove it, or give cniConflist a name that comes first",
                self.directory.join(&first.name).display()
            ));
        }
        Ok(text)
    }

    fn found(&self) -> Result<Vec<Found>, InstallError> {
        conflist::look(&self.directory).map_err(InstallError::file("look into", &self.directory))
    }

    fn write(&self, text: &str) -> Result<(), InstallError> {
        let name = self.config.cni.conflist.as_str();
        let path = self.directory.join(name);
        let failed = || InstallError::file("write the network configuration", &path);
        let held = Held::made(&self.directory, PATIENCE)?;
        let found = self.found()?;
        let mut others: Vec<&str> = others_of_ours(&found, name).collect();
        // Another name than before. The old list gets it first, so that at no moment there are two of ours, or none.
        if !path.exists()
            && let Some(place) = others.iter().position(|other| is_list(other))
        {
            held.rename(others.remove(place), name).map_err(failed())?;
        }
        if let Err(e) = held.sweep() {
            warn!("unfinished files stay in {}: {e}", self.directory.display());
        }
        held.put(name, text.as_bytes(), MODE, None).map_err(failed())?;
        info!("wrote {}", path.display());
        for other in others {
            held.remove(other).map_err(InstallError::file("remove", self.directory.join(other)))?;
            info!("removed {}, an older network configuration of Dotfour's", self.directory.join(other).display());
        }
        Ok(())
    }

    /// The versions that portmap speaks, if it is there. It is asked when it has changed.
    async fn portmap(&mut self, complaints: &mut Vec<String>) -> Option<Vec<String>> {
        let bin_dir = &self.config.cni.bin_dir;
        if !Reference::Portmap.is_in(bin_dir) {
            return None;
        }
        let program = bin_dir.join(Reference::Portmap.name());
        let stamp = stamp(&program);
        if stamp.is_none() || self.portmap.0 != stamp {
            let asked = program.clone();
            let versions = aside(move || reference::versions(&asked).map_err(|e| e.to_string())).await;
            self.portmap = (stamp, versions.ok());
        }
        Some(self.portmap.1.clone().unwrap_or_else(|| {
            complaints.push(format!(
                "{} does not say which versions it speaks; taken for one of CNI 1.0.0",
                program.display()
            ));
            ["0.3.1", "0.4.0", "1.0.0"].map(str::to_owned).into()
        }))
    }
}

/// Does what blocks where nobody else has to wait for it: the calling thread is the only one that the source, the metrics
/// and the signals have.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(e.to_string()))
}

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.len(), file.modified().ok()?))
}

fn others_of_ours<'f>(found: &'f [Found], name: &str) -> impl Iterator<Item = &'f str> {
    found.iter().filter(move |file| file.owner == Owner::Ours && file.name != name).map(|file| file.name.as_str())
}

fn is_list(name: &str) -> bool {
    name.ends_with(".conflist")
}
