//! `dotfour-rig up`: a VNet to look around in.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::azure::subnet::SubnetError;
use crate::daemon::DaemonError;
use crate::{Daemon, DaemonConfig, Node, NodeConfig, Place, RigError, Subnet, Vnet, VnetConfig};

/// What to build and run.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// How many nodes.
    pub nodes: usize,
    /// How many addresses each NIC has beside the node's own.
    pub secondaries: usize,
    /// Whether the VNet is dual-stack, and each NIC has as many IPv6 addresses as IPv4 ones.
    pub ipv6: bool,
    /// Whether nodes have an accelerated-networking twin.
    pub accelerated_networking: bool,
    /// A `dotfour-ipamd` to run on each node.
    pub daemon: Option<PathBuf>,
    /// What to run; `$SHELL` if empty.
    pub command: Vec<OsString>,
}

impl Default for UpOptions {
    fn default() -> Self {
        UpOptions {
            nodes: 2,
            secondaries: 30,
            ipv6: false,
            accelerated_networking: false,
            daemon: None,
            command: Vec::new(),
        }
    }
}

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// There can be no such subnet.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// The VNet cannot be built.
    #[error(transparent)]
    Rig(#[from] RigError),
    /// A daemon does not run.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The command cannot be run.
    #[error("cannot run {}", .program.display())]
    Command {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Builds the VNet, runs the command, tears down. Returns the command's status.
pub fn run(place: Place, options: &UpOptions) -> Result<ExitCode, UpError> {
    let ipv4 = ipnet::Ipv4Net::new_assert([10, 240, 0, 0].into(), 16);
    let ipv6 = ipnet::Ipv6Net::new_assert([0xfd00, 0x10, 0x240, 0, 0, 0, 0, 0].into(), 64);
    let subnet = if options.ipv6 { Subnet::dual_stack(ipv4, ipv6)? } else { ipv4.into() };
    let vnet = Vnet::build(VnetConfig { subnet, place })?;
    let mut nodes = Vec::new();
    let mut daemons = Vec::new();
    for number in 1..=options.nodes {
        let node = vnet.add_node(&NodeConfig {
            name: format!("node-{number}"),
            secondaries: options.secondaries,
            ipv6_secondaries: options.ipv6.then_some(options.secondaries),
            accelerated_networking: options.accelerated_networking,
        })?;
        if let Some(program) = &options.daemon {
            daemons.push(node.start_daemon(&DaemonConfig::new(program))?);
        }
        nodes.push(node);
    }
    describe(&vnet, &nodes, &daemons)?;

    let mut command = options.command.iter();
    let shell = || std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let program = command.next().cloned().unwrap_or_else(shell);
    let status = Command::new(&program)
        .args(command)
        .status()
        .map_err(|source| UpError::Command { program: program.into(), source })?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128_i32.saturating_add(signal)));
    Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)))
}

fn describe(vnet: &Vnet, nodes: &[Node], daemons: &[Daemon]) -> Result<(), RigError> {
    println!("VNet {}", vnet.ranges());
    let fabric = vnet.fabric().netns().path();
    println!("  {:<8}  {:<42}  nsenter --net={}", "fabric", "wireserver 168.63.129.16", fabric.display());
    for node in nodes {
        let addresses = vnet.addresses(node)?;
        let range = match (addresses.get(1), addresses.last()) {
            (Some(first), Some(last)) => format!("{} + {first} to {last}", node.address()),
            _ => node.address().to_string(),
        };
        println!("  {:<8}  {range:<42}  nsenter --net={}", node.name(), node.netns_path().display());
        if let (Some(own), Some(last)) = (node.ipv6(), vnet.ipv6_addresses(node)?.last()) {
            println!("  {:<8}  {own} to {last}", "");
        }
    }
    for daemon in daemons {
        println!("  ipamd     {}", daemon.socket().display());
    }
    Ok(())
}
