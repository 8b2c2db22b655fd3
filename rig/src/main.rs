//! `dotfour-rig`: a virtual Azure VNet on one machine, from the command line.

use std::process::ExitCode;

mod cli;

use cli::Command;
use dotfour_rig::error::with_causes;
use dotfour_rig::sandbox::{self, Entered};
use dotfour_rig::{demo, up};

fn main() -> ExitCode {
    // A sandbox's own processes are this program too; their arguments are the command to run.
    if let Some(over) = sandbox::serve_as_first_process() {
        return over;
    }
    let command = match cli::parse(lexopt::Parser::from_env()) {
        Ok(command) => command,
        Err(e) => return fail(&format!("{e}\nTry `dotfour-rig --help`.")),
    };
    match command {
        Command::Help(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Command::Sandbox(command) => sandbox::run(&command).unwrap_or_else(|e| fail(&with_causes(&e))),
        Command::Demo(options) => inside(|place| demo::run(place, &options).map_err(|e| with_causes(&e))),
        Command::Up(options) => inside(|place| up::run(place, &options).map_err(|e| with_causes(&e))),
    }
}

/// Does the work inside a sandbox: this one, or a new one in which this program runs again.
fn inside(work: impl FnOnce(dotfour_rig::Place) -> Result<ExitCode, String>) -> ExitCode {
    match sandbox::enter() {
        Ok(Entered::Inside(sandbox)) => work(sandbox.place()).unwrap_or_else(|e| fail(&e)),
        Ok(Entered::Over(status)) => status,
        Err(e) => fail(&with_causes(&e)),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("dotfour-rig: {message}");
    ExitCode::FAILURE
}
