//! Dotfour at the head of a chain, called as libcni calls a list: Debian's reference plugins behind it do their work with
//! its result, and one that fails costs no address.

mod failing;
mod ports;
mod rate;
mod stage;
mod whole;

use std::process::ExitCode;

use dotfour_e2e::program::{self, Failure};
use dotfour_rig::Place;
use libtest_mimic::Trial;

type Outcome = Result<(), Failure>;
/// A test's name and what it does.
type Named = (&'static str, fn(&Place) -> Outcome);

fn main() -> ExitCode {
    program::run_in_sandbox(|sandbox| {
        let tests: [Named; 6] = [
            ("a_host_port_is_reached_from_other_nodes_and_from_pods_and_closed_by_del", ports::reached),
            ("a_rate_limit_holds_in_both_directions_and_ends_with_del", rate::limited),
            ("a_whole_chain_passes_check_and_del_leaves_the_node_as_it_was", whole::checked),
            ("check_minds_what_a_later_plugin_changed_only_if_it_cuts_the_pod_off", whole::tuned),
            ("a_later_plugin_that_fails_every_add_never_exhausts_a_pool_of_16", failing::adds),
            ("a_later_plugin_that_fails_every_add_and_del_never_exhausts_a_pool_of_16", failing::adds_and_dels),
        ];
        let trial = |(number, (name, body)): (usize, Named)| -> Trial {
            let place = sandbox.place();
            program::test(name, move || body(&place.within(&format!("chain-{number}"))?))
        };
        tests.into_iter().enumerate().map(trial).collect()
    })
}
