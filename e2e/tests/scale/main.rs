//! Does a pod stay fast and whole when there are many of them? With a thousand pods on the node, and with fifty thousand
//! rules of others, ADD and DEL are what they are on an empty node; so is DEL with fifty thousand tracked connections. With a
//! thousand links waiting to be deleted, both are answered soon. The first packet after ADD's answer arrives, by IPv4 and by
//! IPv6, also where another pod had the address a moment ago. The daemon is small all the while and idle in between, and
//! another takes its place without a packet lost.
//!
//! Each test has a short form, with a limit that a busy machine's noise does not reach and a scan or a dump does, and a long
//! one with the budget itself, for `make soak`. All print what they measured. They take turns, whatever the number of test
//! threads: each would be the others' noise.

mod burial;
mod crowd;
mod figures;
mod firewall;
mod first_packet;
mod moved;
mod stage;
mod standing;
mod tracked;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dotfour_e2e::program;

use crate::burial::Burial;
use crate::crowd::Crowd;
use crate::firewall::Firewall;
use crate::first_packet::{Family, FirstPackets};
use crate::moved::Moves;
use crate::standing::Standing;
use crate::tracked::Tracked;

/// What a ratio is allowed in `make test`: far above its noise, far below what a scan or a lock costs.
const LENIENT: f64 = 2.0;
/// The budget: "not more than 1.2 times", and with foreign rules "unchanged", which cannot be measured any closer.
const BUDGET: f64 = 1.2;

/// How long a first packet may take, there and back, at p99; and what is allowed on a machine with more to do.
const FIRST_PACKET: Duration = Duration::from_millis(5);
const LENIENT_FIRST_PACKET: Duration = Duration::from_millis(50);

/// What the daemon of a full node may have resident, in KiB; and what is allowed where pages are larger.
const MEMORY: u64 = 12 * 1024;
const LENIENT_MEMORY: u64 = 16 * 1024;

/// For how long a daemon is watched that has nothing to do: it compares all leases with all links every 30 s.
const IDLE: Duration = Duration::from_secs(35);

/// Held by the test that runs.
static TURN: Mutex<()> = Mutex::new(());

macro_rules! tests {
    ($($short:literal, $long:literal, $body:path, $test:expr, $soak:expr;)*) => {
        fn main() -> ExitCode {
            program::run_in_sandbox(|sandbox| vec![$({
                let place = sandbox.place();
                program::test($short, move || {
                    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
                    $body(&place, &$test)
                })
            }, {
                let place = sandbox.place();
                program::test($long, move || {
                    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
                    $body(&place, &$soak)
                })
                .with_ignored_flag(true)
            }),*])
        }
    };
}

tests![
    "the_first_packet_after_add_arrives_whether_the_node_is_idle_or_busy",
    "of_a_thousand_first_packets_each_way_none_is_lost_idle_or_busy",
    first_packet::arrive,
    FirstPackets { family: Family::V4, pods: 150, p99: LENIENT_FIRST_PACKET },
    FirstPackets { family: Family::V4, pods: 1_000, p99: FIRST_PACKET };

    "the_first_ipv6_packet_after_add_arrives_whether_the_node_is_idle_or_busy",
    "of_a_thousand_first_ipv6_packets_each_way_none_is_lost_idle_or_busy",
    first_packet::arrive,
    FirstPackets { family: Family::V6, pods: 150, p99: LENIENT_FIRST_PACKET },
    FirstPackets { family: Family::V6, pods: 1_000, p99: FIRST_PACKET };

    "the_first_packet_arrives_at_an_address_that_a_pod_of_this_or_the_other_node_had",
    "of_a_thousand_first_packets_to_an_address_that_moves_p99_is_within_the_budget",
    moved::make_no_difference,
    Moves { pods: 96, p99: LENIENT_FIRST_PACKET },
    Moves { pods: 1_000, p99: FIRST_PACKET };

    "add_and_del_take_as_long_among_many_pods_as_among_few",
    "add_and_del_among_a_thousand_pods_are_within_the_budget",
    crowd::counts_little,
    Crowd { pods: 400, limit: LENIENT },
    Crowd { pods: 1_000, limit: BUDGET };

    "foreign_rules_and_a_held_xtables_lock_do_not_slow_add_or_del",
    "fifty_thousand_foreign_rules_and_a_held_xtables_lock_leave_add_and_del_within_the_budget",
    firewall::counts_little,
    Firewall { rules: 5_000, limit: LENIENT },
    Firewall { rules: 50_000, limit: BUDGET };

    "tracked_connections_do_not_slow_del",
    "fifty_thousand_tracked_connections_leave_del_within_the_budget",
    tracked::count_little,
    Tracked { connections: 50_000, limit: LENIENT },
    Tracked { connections: 50_000, limit: BUDGET };

    "pods_deleted_at_once_are_all_answered_and_their_links_are_gone_soon_after",
    "a_thousand_pods_deleted_at_once_are_answered_and_gone_within_the_budget",
    burial::is_soon_over,
    Burial { pods: 250, slowest: Duration::from_millis(500) },
    Burial { pods: 1_000, slowest: Duration::from_millis(150) };

    "the_daemon_of_a_full_node_is_small_and_idle_and_no_packet_is_lost_when_it_is_replaced",
    "the_daemon_of_a_full_node_is_small_and_idle_and_no_packet_is_lost_when_it_is_replaced_fifty_times",
    standing::is_cheap,
    Standing { idle: Duration::from_secs(4), restarts: 5, memory: LENIENT_MEMORY },
    Standing { idle: IDLE, restarts: 50, memory: MEMORY };
];
