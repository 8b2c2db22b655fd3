//! A main for test programs that need a sandbox: it is entered before any thread is there, then the tests run in
//! parallel as under the built-in harness, each in a place of its own.

use std::process::ExitCode;

use dotfour_rig::Place;
use dotfour_rig::sandbox::{self, Entered};
use libtest_mimic::{Arguments, Trial};

/// A test's name, which is a sentence, and its body.
pub(crate) type Test = (&'static str, fn(Place));

/// Runs the tests inside a sandbox. Says loudly and fails where the machine allows none.
pub(crate) fn run(tests: &[Test]) -> ExitCode {
    let sandbox = match sandbox::enter() {
        Ok(Entered::Inside(sandbox)) => sandbox,
        Ok(Entered::Over(status)) => return status,
        Err(e) => {
            eprintln!("these tests need namespaces of their own: {}", dotfour_rig::error::with_causes(&e));
            return ExitCode::FAILURE;
        }
    };
    let trial = |(name, body): &Test| {
        let (name, body, place) = (*name, *body, sandbox.place());
        Trial::test(name, move || {
            body(place.within(name).map_err(|e| dotfour_rig::error::with_causes(&e))?);
            Ok(())
        })
    };
    libtest_mimic::run(&Arguments::from_args(), tests.iter().map(trial).collect()).exit_code()
}

/// The tests of a program, named after their functions.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        fn main() -> std::process::ExitCode {
            common::run(&[$((stringify!($name), $name as fn(dotfour_rig::Place))),*])
        }
    };
}
