//! `dotfour-ipamd`: Dotfour's node daemon.

mod command;

use std::process::ExitCode;

use command::Command;
use dotfour_ipamd::daemon;
use dotfour_ipamd::errors::with_source;
use dotfour_ipamd::install::programs::{self, Outcome};
use dotfour_ipamd::install::reference;
use dotfour_ipamd::install::uninstall::{Order, uninstall};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_target(false).init();
    let command = match command::parse(lexopt::Parser::from_env()) {
        Ok(command) => command,
        Err(e) => {
            eprintln!("dotfour-ipamd: {e}\n\n{}", command::USAGE);
            return ExitCode::from(2);
        }
    };
    carry_out(command).unwrap_or_else(|e| {
        eprintln!("dotfour-ipamd: {}", with_source(&*e));
        ExitCode::FAILURE
    })
}

fn carry_out(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Print(text) => print!("{text}"),
        Command::Run(config) => daemon::run(&command::config(config.as_deref())?)?,
        Command::Install(written) => install(&written.places()?)?,
        Command::Uninstall(written) => return remove(&written.places()?),
    }
    Ok(ExitCode::SUCCESS)
}

fn install(places: &command::Places) -> Result<(), Failure> {
    let command::Places { bin_dir, plugin, .. } = places;
    for name in programs::PROGRAMS {
        let target = bin_dir.join(name);
        match programs::install(plugin, bin_dir, name)? {
            Outcome::Installed => println!("installed {}", target.display()),
            Outcome::Present => println!("{} is this release's already; nothing was written", target.display()),
        }
    }
    for missing in reference::missing(bin_dir) {
        let (name, without) = (missing.name(), missing.without());
        println!("warning: {} has no {name}: {without}; {}", bin_dir.display(), reference::REMEDY);
    }
    Ok(())
}

fn remove(places: &command::Places) -> Result<ExitCode, Failure> {
    let command::Places { config, bin_dir, conf_dir, plugin, force } = places;
    let report = uninstall(&Order { config, bin_dir, conf_dir, plugin, force: *force })?;
    report.done.iter().for_each(|line| println!("{line}"));
    if report.done.is_empty() && report.problems.is_empty() {
        println!("nothing of Dotfour was left");
    }
    report.problems.iter().for_each(|line| eprintln!("dotfour-ipamd: {line}"));
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
