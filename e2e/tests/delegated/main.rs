//! Dotfour's addresses for pods that others wire: Debian's ptp and bridge with `dotfour-ipam` as their `ipam.type`.

mod away;
mod failing;
mod stage;
mod wired;

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
            ("pods_that_ptp_wires_reach_each_other_and_other_nodes_and_del_frees_their_addresses", wired::by_ptp),
            ("pods_that_bridge_wires_reach_each_other_and_other_nodes_and_del_frees_their_addresses", wired::by_bridge),
            ("pods_that_ptp_wires_have_both_families", wired::dual_stack),
            ("a_plugin_that_fails_behind_its_addresses_200_times_never_exhausts_a_pool_of_16", failing::behind_ipam),
            ("a_lease_survives_the_daemon_and_a_del_without_one_is_applied_later", away::killed),
            ("gc_frees_what_is_not_listed_and_a_minute_old", away::collected),
        ];
        let trial = |(number, (name, body)): (usize, Named)| -> Trial {
            let place = sandbox.place();
            program::test(name, move || body(&place.within(&format!("delegated-{number}"))?))
        };
        tests.into_iter().enumerate().map(trial).collect()
    })
}
