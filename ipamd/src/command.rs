//! The command line.

use std::path::{Path, PathBuf};

use dotfour_ipamd::config::{Config, ConfigError, DEFAULT_CONF_DIR, DEFAULT_PATH};
use dotfour_ipamd::install::shipped_plugin;
use lexopt::prelude::*;

pub(crate) const USAGE: &str = "\
dotfour-ipamd: gives pods VNet addresses and wires them

Usage:
  dotfour-ipamd run [--config FILE]         serve this node until SIGTERM
  dotfour-ipamd install [PLACES]            put the plugin where the container runtime looks for it
  dotfour-ipamd uninstall [PLACES] [--force]
                                            remove everything that install and run have put onto the node
  dotfour-ipamd --version
  dotfour-ipamd --help

  --config FILE       configuration in YAML (default /etc/dotfour/ipamd.yaml; install and uninstall can do without)
  --force             also while pods are wired, which stay as they are, and whatever release is installed
PLACES:
  --cni-bin-dir DIR   plugins (default: cniBinDir of the configuration, /opt/cni/bin)
  --cni-conf-dir DIR  network configurations (default: cniConfDir of the configuration, /etc/cni/net.d)
  --plugin FILE       this release's plugin (default: dotfour beside this program)
";

/// What to do.
pub(crate) enum Command {
    Run(Option<PathBuf>),
    Install(Written),
    Uninstall(Written),
    Print(String),
}

/// Where things are.
pub(crate) struct Places {
    pub(crate) config: Config,
    pub(crate) bin_dir: PathBuf,
    pub(crate) conf_dir: PathBuf,
    pub(crate) plugin: PathBuf,
    pub(crate) force: bool,
}

/// What was written on the command line.
#[derive(Default)]
pub(crate) struct Written {
    config: Option<PathBuf>,
    bin_dir: Option<PathBuf>,
    conf_dir: Option<PathBuf>,
    plugin: Option<PathBuf>,
    force: bool,
}

/// Reads the command line.
pub(crate) fn parse(mut arguments: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut written = Written::default();
    let mut verb: Option<String> = None;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Command::Print(USAGE.into())),
            Long("version") | Short('V') => {
                return Ok(Command::Print(format!("dotfour-ipamd {}\n", env!("CARGO_PKG_VERSION"))));
            }
            Long("config") => written.config = Some(arguments.value()?.into()),
            Long("cni-bin-dir") => written.bin_dir = Some(arguments.value()?.into()),
            Long("cni-conf-dir") => written.conf_dir = Some(arguments.value()?.into()),
            Long("plugin") => written.plugin = Some(arguments.value()?.into()),
            Long("force") => written.force = true,
            Value(word) if verb.is_none() && (word == "run" || word == "install" || word == "uninstall") => {
                verb = word.into_string().ok();
            }
            other => return Err(other.unexpected()),
        }
    }
    let verb = verb.ok_or("say what to do, such as: run")?;
    let Written { bin_dir, conf_dir, plugin, force, .. } = &written;
    if *force && verb != "uninstall" {
        return Err("--force belongs to uninstall".into());
    }
    if verb == "run" && (bin_dir.is_some() || conf_dir.is_some() || plugin.is_some()) {
        return Err("run has its places from the configuration: cniBinDir, cniConfDir".into());
    }
    match verb.as_str() {
        "run" => Ok(Command::Run(written.config)),
        "install" => Ok(Command::Install(written)),
        _ => Ok(Command::Uninstall(written)),
    }
}

impl Written {
    /// The same with the configuration and its defaults.
    pub(crate) fn places(self) -> Result<Places, Box<dyn std::error::Error>> {
        let config = match &self.config {
            None if !Path::new(DEFAULT_PATH).exists() => Config::without_file()?,
            path => config(path.as_deref())?,
        };
        Ok(Places {
            bin_dir: self.bin_dir.unwrap_or_else(|| config.cni.bin_dir.clone()),
            conf_dir: self.conf_dir.or_else(|| config.cni.conf_dir.clone()).unwrap_or_else(|| DEFAULT_CONF_DIR.into()),
            plugin: self.plugin.map_or_else(shipped_plugin, Ok)?,
            config,
            force: self.force,
        })
    }
}

/// The configuration at this place, or at the usual one.
pub(crate) fn config(path: Option<&Path>) -> Result<Config, ConfigError> {
    Config::load(path.unwrap_or(DEFAULT_PATH.as_ref()))
}
