//! The DaemonSet as it is shipped, on a node of the rig with a real containerd: its own containers, arguments, mounts and
//! capabilities, from an image that is made here. Nothing of the manifests is repeated in this test.

// Clippy allows these in test functions only, not in what they share.
#![allow(clippy::panic)]

mod chart;
mod image;
mod life;
mod machine;
mod manifest;
mod traffic;

use std::process::ExitCode;

use dotfour_e2e::program::{self, Failure};

type Outcome = Result<(), Failure>;

fn main() -> ExitCode {
    program::run(|ground| {
        let ground = ground.clone();
        vec![
            program::test("the_daemon_set_lives_from_install_over_upgrades_under_traffic_to_uninstall", move || {
                life::life(&ground)
            }),
            program::test("an_image_made_twice_is_the_same_and_has_only_what_is_used", image::reproducible),
            program::test("nft_in_the_image_applies_the_daemon_s_rules_with_nothing_else_around_it", image::rules),
            program::test("every_manifest_is_an_object_of_kubernetes_in_every_field", manifest::typed),
            program::test("the_daemon_set_asks_for_no_more_than_it_needs", manifest::modest),
            program::test("the_helm_chart_renders_what_the_base_is", chart::equal),
            program::test("the_helm_chart_renders_one_daemon_set_for_each_pool_of_nodes", chart::pools),
            program::test(
                "the_helm_chart_and_the_component_bring_what_a_start_up_taint_needs_and_no_more",
                chart::taint,
            ),
            program::test("overlays_render_with_configurations_that_the_daemon_takes", manifest::overlays)
                .with_ignored_flag(!manifest::can_be_rendered()),
        ]
    })
}
