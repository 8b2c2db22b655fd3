//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use dotfour_rig::demo::DemoOptions;
use dotfour_rig::up::UpOptions;
use lexopt::{Arg, Parser, ValueExt as _};

const HELP: &str = "\
A virtual Azure VNet on one machine. Nothing of it touches the machine's own network, and all of it is gone when the
program ends, however it ends. Needs root or user namespaces, and nftables.

Usage: dotfour-rig COMMAND

Commands:
  demo      build a VNet with nodes, run pods through the real plugin and daemon, show that they talk, tear down
  up        build a VNet with nodes, run a command or a shell in it, tear down when that ends
  sandbox   run a command in empty namespaces of its own

`dotfour-rig COMMAND --help` says more.
";

const SANDBOX_HELP: &str = "\
Runs a command in user (unless root), mount, network and process namespaces of its own, as root of them, with an empty
/run. Everything in them ends with the command.

Usage: dotfour-rig sandbox -- COMMAND [ARGUMENTS]

The status is the command's; 128 + N if signal N ended it; 127 if it cannot be run; 70 if there can be no sandbox.
";

const DEMO_HELP: &str = "\
Builds a VNet 10.240.0.0/16 with nodes, starts dotfour-ipamd on each, runs pods through the dotfour plugin as a container
runtime would, shows that they reach each other with their own addresses and what each call cost, and tears down.

Usage: dotfour-rig demo [OPTIONS]

Options:
  --pods N          pods in all [20]
  --nodes N         nodes, each with room for 30 pods [2]
  --bin-dir DIR     where dotfour-ipamd is [the directory of this program]
  --plugin-dir DIR  where the dotfour plugin is [as --bin-dir]
";

const UP_HELP: &str = "\
Builds a VNet 10.240.0.0/16 with nodes, and runs a command, or $SHELL, beside them. The nodes' namespaces are under
/run/netns there: `nsenter --net=/run/netns/node-1 ping 10.240.0.35`.

Usage: dotfour-rig up [OPTIONS] [-- COMMAND [ARGUMENTS]]

Options:
  --nodes N               nodes [2]
  --secondaries N         addresses of each NIC beside the node's own [30]
  --ipv6                  as many IPv6 addresses as well, from fd00:10:240::/64
  --accelerated           give each node an accelerated-networking twin of its NIC
  --daemon FILE           run this dotfour-ipamd on each node
";

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Help(&'static str),
    Sandbox(Vec<OsString>),
    Demo(DemoOptions),
    Up(UpOptions),
}

pub(crate) fn parse(mut parser: Parser) -> Result<Command, lexopt::Error> {
    match parser.next()? {
        None | Some(Arg::Short('h') | Arg::Long("help")) => Ok(Command::Help(HELP)),
        Some(Arg::Value(command)) => match command.to_str() {
            Some("help") => Ok(Command::Help(HELP)),
            Some("sandbox") => sandbox(parser),
            Some("demo") => demo(parser),
            Some("up") => up(parser),
            _ => Err(format!("there is no command {command:?}").into()),
        },
        Some(other) => Err(other.unexpected()),
    }
}

fn sandbox(mut parser: Parser) -> Result<Command, lexopt::Error> {
    match parser.next()? {
        Some(Arg::Short('h') | Arg::Long("help")) => Ok(Command::Help(SANDBOX_HELP)),
        Some(Arg::Value(program)) => {
            let mut command = vec![program];
            command.extend(parser.raw_args()?);
            Ok(Command::Sandbox(command))
        }
        Some(other) => Err(other.unexpected()),
        None => Err("sandbox needs a command".into()),
    }
}

fn demo(mut parser: Parser) -> Result<Command, lexopt::Error> {
    let mut options = DemoOptions::default();
    let mut plugin_dir = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(DEMO_HELP)),
            Arg::Long("pods") => options.pods = parser.value()?.parse()?,
            Arg::Long("nodes") => options.nodes = parser.value()?.parse()?,
            Arg::Long("bin-dir") => options.bin_dir = PathBuf::from(parser.value()?),
            Arg::Long("plugin-dir") => plugin_dir = Some(PathBuf::from(parser.value()?)),
            other => return Err(other.unexpected()),
        }
    }
    options.plugin_dir = plugin_dir.unwrap_or_else(|| options.bin_dir.clone());
    Ok(Command::Demo(options))
}

fn up(mut parser: Parser) -> Result<Command, lexopt::Error> {
    let mut options = UpOptions::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(UP_HELP)),
            Arg::Long("nodes") => options.nodes = parser.value()?.parse()?,
            Arg::Long("secondaries") => options.secondaries = parser.value()?.parse()?,
            Arg::Long("ipv6") => options.ipv6 = true,
            Arg::Long("accelerated") => options.accelerated_networking = true,
            Arg::Long("daemon") => options.daemon = Some(PathBuf::from(parser.value()?)),
            Arg::Value(program) => {
                options.command.push(program);
                options.command.extend(parser.raw_args()?);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Command::Up(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, lexopt::Error> {
        parse(Parser::from_args(arguments))
    }

    #[test]
    fn everything_behind_the_program_belongs_to_it() {
        let Ok(Command::Sandbox(command)) = parsed(&["sandbox", "--", "ip", "--help", "--", "-j"]) else { panic!() };
        assert_eq!(command, ["ip", "--help", "--", "-j"]);
        let Ok(Command::Up(options)) = parsed(&["up", "--nodes", "3", "--", "ping", "-c1"]) else { panic!() };
        assert_eq!((options.nodes, options.command.len()), (3, 2));
    }

    #[test]
    fn the_plugin_is_beside_the_daemon_unless_said_otherwise() {
        let Ok(Command::Demo(options)) = parsed(&["demo", "--bin-dir", "/b"]) else { panic!() };
        assert_eq!(options.plugin_dir, PathBuf::from("/b"));
        let Ok(Command::Demo(options)) = parsed(&["demo", "--plugin-dir", "/p", "--bin-dir", "/b"]) else { panic!() };
        assert_eq!((options.bin_dir, options.plugin_dir), ("/b".into(), "/p".into()));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for wrong in [&["demon"][..], &["demo", "--pod", "3"], &["demo", "--pods", "many"], &["sandbox"], &["-x"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
        assert!(matches!(parsed(&[]), Ok(Command::Help(_))));
        assert!(matches!(parsed(&["demo", "--help"]), Ok(Command::Help(_))));
    }
}
