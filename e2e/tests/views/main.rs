//! The comparison of views, tested by planting faults: each is found, each by its name, and nothing else is.
//!
//! The daemon says what it has to say and is killed then, so that nobody repairs what is planted.

mod planted;
mod stage;
mod told;

use std::process::ExitCode;

use dotfour_e2e::program;

use crate::planted::*;
use crate::stage::Stage;
use crate::told::*;

macro_rules! faults {
    ($($name:ident),* $(,)?) => {
        fn main() -> ExitCode {
            program::run_in_sandbox(|sandbox| vec![$({
                let place = sandbox.place();
                program::test(stringify!($name), move || {
                    let stage = Stage::set(place.within(stringify!($name))?)?;
                    stage.finds(&stage.views()?, &[])?;
                    $name(&stage)
                })
            }),*])
        }
    };
}

faults![
    a_missing_host_route_is_found,
    a_host_route_to_nobody_is_found,
    a_missing_neighbour_entry_is_found,
    a_link_that_is_down_is_found,
    a_lease_without_a_link_is_found,
    a_second_link_with_an_address_is_found,
    a_link_without_an_alias_is_found,
    a_link_by_another_name_than_the_daemon_s_is_found,
    a_condemned_link_that_has_its_route_is_found,
    another_address_inside_a_pod_is_found,
    a_second_address_inside_a_pod_is_found,
    an_interface_by_another_name_is_found,
    an_address_that_left_the_nic_is_found,
    an_alias_with_another_address_than_the_lease_is_found,
    a_pod_without_a_lease_is_found,
    a_pod_that_no_runtime_knows_is_found,
    an_address_given_to_two_pods_is_found,
    a_lease_of_another_address_is_found,
    counts_that_do_not_add_up_are_found,
    a_pod_in_doubt_may_be_there_or_not_but_not_by_halves,
    a_node_that_should_be_empty_shows_every_trace,
];
