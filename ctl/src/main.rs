//! `dotfourctl`: what Dotfour does on this node, for people.

mod doctor;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use dotfour_ipamd::client;
use dotfour_ipamd::config::{Config, DEFAULT_PATH};
use dotfour_ipamd::errors::with_source;
use dotfour_ipamd::output::{complain, say};
use lexopt::prelude::*;

/// By what name it speaks.
const NAME: &str = "dotfourctl";

const USAGE: &str = "\
dotfourctl: looks at Dotfour on this node

Usage:
  dotfourctl [--config FILE] status [-o json]    the pool, and every pod's address
  dotfourctl [--config FILE] doctor [--plugin FILE] [-o json]
                                                 what is wrong with this node, and what to do about it
  dotfourctl --version
  dotfourctl --help

  --config FILE    the daemon's configuration, which says where its socket is (default /etc/dotfour/ipamd.yaml; where
                   that file is absent, the default socket)
  --plugin FILE    this release's plugin, to compare the installed one with (default: dotfour beside this program)
  -o json          for programs

doctor's exit status: 0 nothing found, 1 warnings only, 2 at least one error, 3 bad arguments.
";

fn main() -> ExitCode {
    let options = match parse_arguments(lexopt::Parser::from_env()) {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::Print(text)) => {
            return say(NAME, &text, ExitCode::SUCCESS);
        }
        Err(e) => {
            complain(NAME, &format_args!("{e}\n\n{USAGE}"));
            // 2 is one of the doctor's answers.
            let doctor = std::env::args_os().any(|argument| argument == "doctor");
            return ExitCode::from(if doctor { doctor::CANNOT_SAY } else { 2 });
        }
    };
    if options.command == Command::Doctor {
        let (text, status) = doctor::examine(options.config.as_deref(), options.plugin.as_deref(), options.json);
        return say(NAME, &text, ExitCode::from(status));
    }
    match status_of(&options) {
        Ok(text) => say(NAME, &text, ExitCode::SUCCESS),
        Err(e) => {
            complain(NAME, &with_source(&*e));
            ExitCode::FAILURE
        }
    }
}

fn status_of(options: &Options) -> Result<String, Box<dyn std::error::Error>> {
    let status = client::status(&socket(options)?)?;
    Ok(if options.json { format!("{}\n", serde_json::to_string_pretty(&status)?) } else { status::text(&status) })
}

/// The socket, as the daemon finds it from the same file.
fn socket(options: &Options) -> Result<PathBuf, dotfour_ipamd::config::ConfigError> {
    match &options.config {
        Some(path) => Ok(Config::load(path)?.socket),
        None if std::path::Path::new(DEFAULT_PATH).exists() => Ok(Config::load(DEFAULT_PATH.as_ref())?.socket),
        None => Ok(dotfour_protocol::DEFAULT_SOCKET.into()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    Status,
    Doctor,
}

struct Options {
    command: Command,
    config: Option<PathBuf>,
    plugin: Option<PathBuf>,
    json: bool,
}

enum Parsed {
    Run(Options),
    Print(String),
}

fn parse_arguments(mut arguments: lexopt::Parser) -> Result<Parsed, lexopt::Error> {
    let mut options = Options { command: Command::Status, config: None, plugin: None, json: false };
    let mut said = false;
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
            Long("plugin") => options.plugin = Some(arguments.value()?.into()),
            Value(word) if !said && (word == "status" || word == "doctor") => {
                said = true;
                options.command = if word == "doctor" { Command::Doctor } else { Command::Status };
            }
            other => return Err(other.unexpected()),
        }
    }
    match options {
        _ if !said => Err("say what to look at, such as: status".into()),
        Options { command: Command::Status, plugin: Some(_), .. } => Err("--plugin belongs to doctor".into()),
        options => Ok(Parsed::Run(options)),
    }
}
