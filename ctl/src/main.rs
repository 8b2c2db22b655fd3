//! `dotfourctl`: what Dotfour does on this node, for people.

mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use dotfour_ipamd::client;
use dotfour_ipamd::config::Config;
use dotfour_ipamd::errors::with_source;
use lexopt::prelude::*;

const USAGE: &str = "\
dotfourctl: looks at Dotfour on this node

Usage:
  dotfourctl [--config FILE] status [-o json]    the pool, and every pod's address
  dotfourctl --version
  dotfourctl --help

  --config FILE    the daemon's configuration, which says where its socket is (default /etc/dotfour/ipamd.yaml; where
                   that file is absent, the default socket)
  -o json          for programs
";

const DEFAULT_CONFIG: &str = "/etc/dotfour/ipamd.yaml";

fn main() -> ExitCode {
    let options = match parse_arguments(lexopt::Parser::from_env()) {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            eprintln!("dotfourctl: {e}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("dotfourctl: {}", with_source(&*e));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<String, Box<dyn std::error::Error>> {
    let status = client::status(&socket(options)?)?;
    Ok(if options.json { format!("{}\n", serde_json::to_string_pretty(&status)?) } else { status::text(&status) })
}

/// The socket, as the daemon finds it from the same file.
fn socket(options: &Options) -> Result<PathBuf, dotfour_ipamd::config::ConfigError> {
    match &options.config {
        Some(path) => Ok(Config::load(path)?.socket),
        None if std::path::Path::new(DEFAULT_CONFIG).exists() => Ok(Config::load(DEFAULT_CONFIG.as_ref())?.socket),
        None => Ok(dotfour_protocol::DEFAULT_SOCKET.into()),
    }
}

struct Options {
    config: Option<PathBuf>,
    json: bool,
}

enum Parsed {
    Run(Options),
    Print(String),
}

fn parse_arguments(mut arguments: lexopt::Parser) -> Result<Parsed, lexopt::Error> {
    let mut options = Options { config: None, json: false };
    let mut command = None;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Parsed::Print(USAGE.into())),
            Long("version") | Short('V') => {
                return Ok(Parsed::Print(format!("dotfourctl {}\n", env!("CARGO_PKG_VERSION"))));
            }
            Long("config") => options.config = Some(arguments.value()?.into()),
            Short('o') | Long("output") => match arguments.value()?.to_str() {
                Some("json") => options.json = true,
                _ => return Err("the one output format is json".into()),
            },
            Value(word) if word == "status" && command.is_none() => command = Some(()),
            other => return Err(other.unexpected()),
        }
    }
    match command {
        Some(()) => Ok(Parsed::Run(options)),
        None => Err("say what to look at, such as: status".into()),
    }
}
