//! `race`: whole CNI plugins against each other and against the floor, timed as a runtime calls them.
//!
//! - [`options`] is the command line, [`machine`] says where the race was run, [`programs`] compiles the no-ops.
//! - [`contestant`] is the table of who takes part, [`floor`] the bare kernel work that nobody can do without.
//! - [`caller`] makes one timed call, with [`descriptors`] of its own; [`cpu`] says what it cost in processor time, and
//!   [`settle`] waits until nothing of it goes on behind.
//! - [`in_turn`] and [`burst`] are the two ways to race, [`forwarding`] is what pods do afterwards; [`programme`] says which
//!   races are run.
//! - [`samples`] is many timed calls in a few numbers; [`results`] makes [`table`]s of them, [`budgets`] judges them,
//!   [`page`] and [`svg`] write them down.
//!
//! Everything runs in the rig's sandbox: namespaces of the program's own, which vanish with it.

use std::process::ExitCode;

use dotfour_rig::Place;
use dotfour_rig::error::with_causes;
use dotfour_rig::sandbox::{self, Entered};

mod budgets;
mod burst;
mod caller;
mod contestant;
mod cpu;
mod descriptors;
mod error;
mod floor;
mod forwarding;
mod in_turn;
mod machine;
mod options;
mod page;
mod programme;
mod programs;
mod results;
mod samples;
mod settle;
mod stand_in;
mod svg;
mod table;

use contestant::Field;
use error::RaceError;
use machine::Machine;
use options::{Options, Parsed};

fn main() -> ExitCode {
    // A sandbox's own processes are this program too; their arguments are the command to run.
    if let Some(over) = sandbox::serve_as_first_process() {
        return over;
    }
    let options = match options::parse(lexopt::Parser::from_env()) {
        Ok(Parsed::Race(options)) => options,
        Ok(Parsed::Help(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(e) => return fail(&format!("{e}\nTry `race --help`.")),
    };
    match sandbox::enter() {
        Ok(Entered::Inside(sandbox)) => match race(&sandbox.place(), &options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => fail(&with_causes(&e)),
        },
        Ok(Entered::Over(status)) => status,
        Err(e) => fail(&with_causes(&e)),
    }
}

fn race(place: &Place, options: &Options) -> Result<(), RaceError> {
    let machine = Machine::here();
    println!("\n  {machine}");
    descriptors::allow_many();
    let field = Field::build(place, options)?;
    let mut results = programme::run(&field, options)?;
    let taken = machine.taken_by_others(cpu::of_this_process() + cpu::of_children() + field.cpu_of_daemons());
    results.beside = format!("{taken} % of its processors' time went to others, the kernel's own threads among them");
    for table in results.tables() {
        println!("\n{}", table.text());
    }
    println!("\n{}", budgets::table(&results).text());
    println!("\n  Meanwhile {}.", results.beside);
    if let Some(directory) = &options.out {
        let written = page::write(directory, &machine, &results)?;
        println!("\n  written: {}", written.join(" and "));
    }
    Ok(())
}

fn fail(message: &str) -> ExitCode {
    eprintln!("race: {message}");
    ExitCode::FAILURE
}
