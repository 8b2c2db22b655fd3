//! `dotfour-ipamd`: Dotfour's node daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use dotfour_ipamd::config::Config;
use dotfour_ipamd::daemon;
use dotfour_ipamd::errors::with_source;
use lexopt::prelude::*;

const USAGE: &str = "\
dotfour-ipamd: gives pods VNet addresses and wires them

Usage:
  dotfour-ipamd run [--config FILE]    serve this node until SIGTERM
  dotfour-ipamd --version
  dotfour-ipamd --help

  --config FILE    configuration in YAML (default /etc/dotfour/ipamd.yaml)
";

const DEFAULT_CONFIG: &str = "/etc/dotfour/ipamd.yaml";

enum Command {
    Run { config: PathBuf },
    Print(String),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_target(false).init();
    match parse_arguments(lexopt::Parser::from_env()) {
        Ok(Command::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Command::Run { config }) => match serve(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("dotfour-ipamd: {}", with_source(&*e));
                ExitCode::FAILURE
            }
        },
        Err(e) => {
            eprintln!("dotfour-ipamd: {e}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn serve(config: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(config)?;
    daemon::run(&config)?;
    Ok(())
}

fn parse_arguments(mut arguments: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut config = PathBuf::from(DEFAULT_CONFIG);
    let mut run = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Command::Print(USAGE.into())),
            Long("version") | Short('V') => {
                return Ok(Command::Print(format!("dotfour-ipamd {}\n", env!("CARGO_PKG_VERSION"))));
            }
            Long("config") => config = arguments.value()?.into(),
            Value(word) if word == "run" && !run => run = true,
            other => return Err(other.unexpected()),
        }
    }
    if run { Ok(Command::Run { config }) } else { Err("say what to do, such as: run".into()) }
}
