//! Every verb as any caller may use it, with a real daemon and a real kernel: what comes out in each case and each version of
//! the specification, and what it leaves.

#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

mod again;
mod call;
mod collected;
mod several;
mod stage;
mod table;

use std::process::ExitCode;

use dotfour_e2e::program::{self, Failure};
use dotfour_rig::Place;
use libtest_mimic::Trial;

type Outcome = Result<(), Failure>;
/// A test's name and what it does.
type Named = (&'static str, fn(&Place) -> Outcome);

fn main() -> ExitCode {
    program::run_in_sandbox(|sandbox| {
        let tests: [Named; 4] = [
            ("every_verb_answers_every_case_in_every_version_as_the_specification_says", table::filled),
            (
                "a_container_with_several_interfaces_has_an_address_for_each_and_loses_them_one_by_one",
                several::interfaces,
            ),
            ("gc_ends_what_is_not_listed_and_old_and_nothing_else", collected::by_age),
            ("a_namespace_that_outlives_del_takes_the_same_interface_at_once_a_hundred_times", again::at_once),
        ];
        let trial = |(number, (name, body)): (usize, Named)| -> Trial {
            let place = sandbox.place();
            program::test(name, move || body(&place.within(&format!("verbs-{number}"))?))
        };
        tests.into_iter().enumerate().map(trial).collect()
    })
}
