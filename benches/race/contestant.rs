//! Who takes part: one table, and a node for each, so that nobody's links are in another's way.

use std::path::Path;
use std::time::Duration;

use dotfour_rig::daemon::socket_path;
use dotfour_rig::{Daemon, DaemonConfig, Network, Node, NodeConfig, Place, Vnet, VnetConfig};
use serde_json::json;

use crate::cpu;
use crate::error::RaceError;
use crate::options::{Options, Other};
use crate::programs::{GLIBC, NoOp, SMALLEST};
use crate::stand_in;

/// Pod addresses of a node that Dotfour serves: enough for every pod of the race, with those that rest. Those that talk to another
/// node need addresses of their own: the table's Dotfour has the first, and the builds of the command line the others, of which a
/// third shares with the first.
fn dotfour_addresses(number: usize) -> String {
    let first = [16, 192, 224].get(number % 3).copied().unwrap_or_default();
    format!("kind: static\nsubnet: 10.240.0.0/16\naddresses: [10.240.{first}.4-10.240.{}.250]\n", first + 31)
}

/// What host-local gives out to ptp's pods, and to those of bridge: addresses of the VNet, which can be put on a NIC.
const PTP_ADDRESSES: [u8; 4] = [10, 240, 64, 0];
const BRIDGE_ADDRESSES: [u8; 4] = [10, 240, 128, 0];
/// Enough for every pod of the race.
const HOST_LOCAL_PREFIX: u8 = 18;

/// What to do where a program of ours is missing.
const MAKE: &str = "`make build` makes it, --bin-dir and --build say where to look";

/// One line of the table.
struct Entry {
    name: &'static str,
    about: &'static str,
    kind: Kind,
    program: Program,
}

/// What a contestant does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing for a pod: a process starts and ends.
    NoOp,
    /// The least that wires a pod: the smallest process, and then the kernel work, done by the caller itself.
    Floor,
    /// All of it.
    Plugin,
}

/// What is run for a contestant.
enum Program {
    Compiled(&'static NoOp),
    Alone,
    Dotfour,
    Ptp,
    Bridge,
}

/// The contestants that are always there, in the order of the tables. Others come by `--plugin`.
const TABLE: [Entry; 7] = [
    Entry {
        name: NO_OP,
        about: "the smallest process: static, no libc, ends at once",
        kind: Kind::NoOp,
        program: Program::Compiled(&SMALLEST),
    },
    Entry {
        name: GLIBC_NO_OP,
        about: "a C program that does nothing, linked statically",
        kind: Kind::NoOp,
        program: Program::Compiled(&GLIBC),
    },
    Entry {
        name: ALONE,
        about: "dotfour's plugin without its daemon: its peer knows the answer and does nothing for it",
        kind: Kind::NoOp,
        program: Program::Alone,
    },
    Entry {
        name: FLOOR,
        about: "the smallest process, then a pod's kernel work done at once by a process that is warm",
        kind: Kind::Floor,
        program: Program::Compiled(&SMALLEST),
    },
    Entry { name: DOTFOUR, about: "the plugin and its daemon", kind: Kind::Plugin, program: Program::Dotfour },
    Entry {
        name: PTP,
        about: "the reference plugins ptp and host-local, from Debian",
        kind: Kind::Plugin,
        program: Program::Ptp,
    },
    Entry {
        name: BRIDGE,
        about: "the reference plugins bridge and host-local, from Debian",
        kind: Kind::Plugin,
        program: Program::Bridge,
    },
];

/// Names that budgets and races ask for.
pub(crate) const FLOOR: &str = "floor";
/// As above.
pub(crate) const DOTFOUR: &str = "dotfour";
/// As above.
pub(crate) const PTP: &str = "ptp";
/// As above.
pub(crate) const BRIDGE: &str = "bridge";
/// As above.
pub(crate) const NO_OP: &str = "no-op";
/// As above.
pub(crate) const GLIBC_NO_OP: &str = "no-op, glibc";
/// As above.
pub(crate) const ALONE: &str = "plugin alone";

/// One who takes part.
#[derive(Debug)]
pub(crate) struct Contestant {
    /// What it is called.
    pub(crate) name: &'static str,
    /// What it is, in a few words.
    pub(crate) about: String,
    /// What it does.
    pub(crate) kind: Kind,
    /// What is called.
    pub(crate) network: Network,
    /// Its daemon's process id, if it has a daemon.
    pub(crate) daemon: Option<u32>,
    /// Where it is called.
    pub(crate) node: Node,
    // Ends with the contestant.
    _daemon: Option<Daemon>,
}

/// Everybody who takes part, on one VNet.
#[derive(Debug)]
pub(crate) struct Field<'o> {
    /// In the order of the tables.
    pub(crate) contestants: Vec<Contestant>,
    options: &'o Options,
    // Dropped after the nodes on it.
    vnet: Vnet,
}

impl<'o> Field<'o> {
    /// Builds a node for everybody, and starts what has to run before the first call.
    pub(crate) fn build(place: &Place, options: &'o Options) -> Result<Self, RaceError> {
        let subnet = ipnet::Ipv4Net::new_assert([10, 240, 0, 0].into(), 16);
        let vnet = Vnet::build(VnetConfig { subnet: subnet.into(), place: place.clone() })?;
        let mut field = Field { contestants: Vec::new(), options, vnet };
        for entry in &TABLE {
            let contestant = field.enter(entry, entry.name)?;
            field.contestants.push(contestant);
        }
        for (number, (name, directory)) in options.builds.iter().enumerate() {
            let node = field.node(name)?;
            let (network, daemon) = dotfour(&node, directory, dotfour_addresses(number + 1))?;
            field.contestants.push(Contestant {
                name: long_lived(name),
                about: format!("the build in {}, from the command line", directory.display()),
                kind: Kind::Plugin,
                network,
                daemon: Some(daemon.pid()),
                node,
                _daemon: Some(daemon),
            });
        }
        for other in &options.others {
            let node = field.node(&other.name)?;
            field.contestants.push(Contestant {
                name: long_lived(&other.name),
                about: format!("{}, from the command line", other.conflist.display()),
                kind: Kind::Plugin,
                network: other.network()?,
                daemon: None,
                node,
                _daemon: None,
            });
        }
        Ok(field)
    }

    /// One of the table once more, on a node of its own, with a daemon of its own. `None` if the table has no such name.
    pub(crate) fn another(&self, name: &str, suffix: &str) -> Result<Option<Contestant>, RaceError> {
        let entry = TABLE.iter().find(|entry| entry.name == name);
        entry.map(|entry| self.enter(entry, &format!("{name}-{suffix}"))).transpose()
    }

    fn enter(&self, entry: &Entry, node: &str) -> Result<Contestant, RaceError> {
        let node = self.node(node)?;
        let (network, daemon) = entry.program.set_up(&node, self.options)?;
        Ok(Contestant {
            name: entry.name,
            about: entry.about.to_owned(),
            kind: entry.kind,
            network,
            daemon: daemon.as_ref().map(Daemon::pid),
            node,
            _daemon: daemon,
        })
    }

    /// A node named after who is on it.
    pub(crate) fn node(&self, name: &str) -> Result<Node, RaceError> {
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        Ok(self.vnet.add_node(&NodeConfig::new(format!("on-{name}"), 0))?)
    }

    /// What all nodes are on.
    pub(crate) fn vnet(&self) -> &Vnet {
        &self.vnet
    }

    /// Processor time of the contestants' daemons so far.
    pub(crate) fn cpu_of_daemons(&self) -> Duration {
        self.contestants.iter().filter_map(|contestant| contestant.daemon).map(cpu::of_process).sum()
    }

    /// Those of the contestants that do what is asked for.
    pub(crate) fn those(&self, wanted: impl Fn(&Contestant) -> bool) -> Vec<&Contestant> {
        self.contestants.iter().filter(|contestant| wanted(contestant)).collect()
    }
}

impl Contestant {
    /// Whether it drops what pods send from addresses that are not theirs. Dotfour's daemon does, of whatever build.
    pub(crate) fn checks_senders(&self) -> bool {
        self.daemon.is_some()
    }
}

impl Program {
    fn set_up(&self, node: &Node, options: &Options) -> Result<(Network, Option<Daemon>), RaceError> {
        match self {
            Program::Compiled(no_op) => {
                no_op.compile(node.state_dir())?;
                let conf = json!({ "type": no_op.name });
                Ok((Network::single("no-op", "1.1.0", &conf, vec![node.state_dir().to_owned()]), None))
            }
            Program::Alone => {
                present(&options.bin_dir, "dotfour", MAKE)?;
                let socket = node.state_dir().join("stand-in.sock");
                stand_in::start(&socket).map_err(RaceError::system("stand in for a daemon"))?;
                Ok((Network::dotfour(&options.bin_dir, &socket), None))
            }
            Program::Dotfour => {
                let (network, daemon) = dotfour(node, &options.bin_dir, dotfour_addresses(0))?;
                Ok((network, Some(daemon)))
            }
            Program::Ptp => {
                reference(options, "ptp")?;
                let subnet = ipnet::Ipv4Net::new_assert(PTP_ADDRESSES.into(), HOST_LOCAL_PREFIX);
                Ok((Network::ptp(&options.cni_dir, subnet, &node.state_dir().join("host-local")), None))
            }
            Program::Bridge => {
                reference(options, "bridge")?;
                let subnet = ipnet::Ipv4Net::new_assert(BRIDGE_ADDRESSES.into(), HOST_LOCAL_PREFIX);
                let conf = json!({
                    "type": "bridge",
                    "bridge": "cni0",
                    "isDefaultGateway": true,
                    "ipMasq": false,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": node.state_dir().join("host-local"),
                        "ranges": [[{ "subnet": subnet }]],
                    },
                });
                Ok((Network::single("bridge", "1.0.0", &conf, vec![options.cni_dir.clone()]), None))
            }
        }
    }
}

/// Dotfour as it is built in a directory, with its daemon running.
fn dotfour(node: &Node, directory: &Path, source: String) -> Result<(Network, Daemon), RaceError> {
    let ipamd = present(directory, "dotfour-ipamd", MAKE)?;
    present(directory, "dotfour", MAKE)?;
    let mut config = DaemonConfig::new(ipamd);
    config.max_pods = 250;
    config.source = source;
    let daemon = node.start_daemon(&config)?;
    Ok((Network::dotfour(directory, &socket_path(node)), daemon))
}

/// As long-lived as the program; there are a handful of names.
fn long_lived(name: &str) -> &'static str {
    Box::leak(name.to_owned().into_boxed_str())
}

fn reference(options: &Options, name: &str) -> Result<(), RaceError> {
    let remedy = "Debian's containernetworking-plugins has it, --cni-dir says where to look";
    present(&options.cni_dir, "host-local", remedy)?;
    present(&options.cni_dir, name, remedy).map(|_| ())
}

fn present(directory: &Path, name: &str, remedy: &'static str) -> Result<std::path::PathBuf, RaceError> {
    let program = directory.join(name);
    if program.is_file() { Ok(program) } else { Err(RaceError::Missing { program, remedy }) }
}

impl Other {
    fn network(&self) -> Result<Network, RaceError> {
        let refused = |reason: String| RaceError::Plugin { name: self.name.clone(), reason };
        let text = std::fs::read_to_string(&self.conflist)
            .map_err(|e| refused(format!("cannot read {}: {e}", self.conflist.display())))?;
        Network::from_list(&text, self.cni_path.clone()).map_err(|e| refused(e.to_string()))
    }
}
