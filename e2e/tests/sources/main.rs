//! Who sees which source address, in a whole virtual VNet: the real daemon and plugin on two nodes, pods with addresses of
//! both families, and one of everything that a pod can talk to. `docs/masquerade.md` shows the table; it is printed with
//! `--nocapture`.

#![allow(clippy::indexing_slicing, reason = "a test fails by panicking, and all of these are arrays of known length")]

mod columns;
mod elsewhere;
mod exempt;
mod reapply;
mod rows;
mod rules;
mod table;
mod world;

use std::process::ExitCode;

use dotfour_e2e::program;
use dotfour_rig::sandbox::Sandbox;

use crate::reapply::Load;

const SHORT: Load = Load { name: "short", connections: 300, applications: 30 };
const LONG: Load = Load { name: "long", connections: 10_000, applications: 1_000 };

macro_rules! tests {
    ($($name:literal, $body:path;)*) => {
        fn main() -> ExitCode {
            if let Some(over) = elsewhere::serve_as_responder() {
                return over;
            }
            program::run_in_sandbox(|sandbox| {
                let mut tests = vec![$({
                    let place = sandbox.place();
                    program::test($name, move || $body(&place))
                }),*];
                tests.push(breaks_nothing(sandbox, "re_applications_break_no_connection_and_change_no_source", &SHORT));
                let long = "a_thousand_re_applications_break_none_of_ten_thousand_connections_and_change_no_source";
                tests.push(breaks_nothing(sandbox, long, &LONG).with_ignored_flag(true));
                tests
            })
        }
    };
}

/// For `make test`, and for `make soak`.
fn breaks_nothing(sandbox: &Sandbox, name: &str, load: &'static Load) -> libtest_mimic::Trial {
    let place = sandbox.place();
    program::test(name, move || reapply::breaks_nothing(&place, load))
}

tests![
    "every_destination_sees_the_source_that_the_table_says", table::holds;
    "kubernetes_rule_1_pods_reach_all_pods_without_nat", rules::pods_reach_all_pods_without_nat;
    "kubernetes_rule_2_nodes_reach_all_pods_and_pods_all_nodes_without_nat",
    rules::nodes_reach_all_pods_and_pods_all_nodes_without_nat;
    "kubernetes_rule_3_the_address_a_pod_sees_of_itself_is_the_one_that_others_see",
    rules::a_pod_sees_of_itself_what_others_see;
    "a_balancer_probe_reaches_a_local_pod_as_it_came_and_is_answered", rules::probes_arrive;
    "pods_of_exempt_namespaces_reach_the_metadata_service_and_no_others", exempt::namespaces_reach_metadata;
    "ten_thousand_exempt_networks_cost_a_flow_little_more_than_one", reapply::many_networks_cost_little;
];
