//! `dotfour-ipamd`: Dotfour's node daemon.

mod command;

use std::process::ExitCode;

use command::Command;
use dotfour_ipamd::daemon;
use dotfour_ipamd::errors::with_source;
use dotfour_ipamd::install::programs::{self, Outcome};
use dotfour_ipamd::install::reference;
use dotfour_ipamd::install::uninstall::{Order, uninstall};
use dotfour_ipamd::output::{Log, complain, say};

/// By what name it speaks.
const NAME: &str = "dotfour-ipamd";

static LOG: Log = Log::new();

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(|| &LOG).with_ansi(false).with_target(false).init();
    let command = match command::parse(lexopt::Parser::from_env()) {
        Ok(command) => command,
        Err(e) => {
            complain(NAME, &format_args!("{e}\n\n{}", command::USAGE));
            return ExitCode::from(2);
        }
    };
    carry_out(command).unwrap_or_else(|e| {
        complain(NAME, &with_source(&*e));
        ExitCode::FAILURE
    })
}

fn carry_out(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Print(text) => Ok(say(NAME, &text, ExitCode::SUCCESS)),
        Command::Run(config) => {
            daemon::run(&command::config(config.as_deref())?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Install(written) => install(&written.places()?),
        Command::Uninstall(written) => remove(&written.places()?),
    }
}

fn install(places: &command::Places) -> Result<ExitCode, Failure> {
    let command::Places { bin_dir, plugin, .. } = places;
    let mut status = ExitCode::SUCCESS;
    for name in programs::PROGRAMS {
        let target = bin_dir.join(name);
        let line = match programs::install(plugin, bin_dir, name)? {
            Outcome::Installed => format!("installed {}\n", target.display()),
            Outcome::Present => format!("{} is this release's already; nothing was written\n", target.display()),
        };
        status = say(NAME, &line, status);
    }
    for missing in reference::missing(bin_dir) {
        let (name, without) = (missing.name(), missing.without());
        let line = format!("warning: {} has no {name}: {without}; {}\n", bin_dir.display(), reference::REMEDY);
        status = say(NAME, &line, status);
    }
    Ok(status)
}

fn remove(places: &command::Places) -> Result<ExitCode, Failure> {
    let command::Places { config, bin_dir, conf_dir, plugin, force } = places;
    let report = uninstall(&Order { config, bin_dir, conf_dir, plugin, force: *force })?;
    let nothing = report.done.is_empty() && report.problems.is_empty();
    let done = || report.done.iter().map(|line| format!("{line}\n")).collect();
    let said = if nothing { "nothing of Dotfour was left\n".to_owned() } else { done() };
    let status = if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let status = say(NAME, &said, status);
    report.problems.iter().for_each(|line| complain(NAME, line));
    Ok(status)
}
