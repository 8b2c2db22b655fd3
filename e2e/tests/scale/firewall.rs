//! ADD and DEL on a node with the rules of others, whose lock somebody holds, beside both on a node without.

use std::fmt::Write as _;
use std::fs::File;

use dotfour_e2e::inside::{feed, nft, run};
use dotfour_rig::Place;
use rustix::fs::{FlockOperation, flock};

use crate::stage::{Host, Outcome, Side, compare, vnet};

/// Taken by iptables of the legacy kind around every call. All nodes have the same, in the sandbox's own `/run`, so it is
/// held only during the calls of one.
const LOCK: &str = "/run/xtables.lock";
/// How iptables ends if somebody else has it for longer than it is told to wait.
const LOCKED_OUT: i32 = 4;

/// How many rules there are of each kind, and what they may cost.
pub(crate) struct Firewall {
    pub(crate) rules: usize,
    pub(crate) limit: f64,
}

pub(crate) fn counts_little(place: &Place, firewall: &Firewall) -> Outcome {
    let vnet = vnet(place, "firewall")?;
    let (plain, ruled) = (Host::start(&vnet, 1)?, Host::start(&vnet, 2)?);
    plain.settle()?;
    let inside = ruled.node.netns();
    nft(inside, &nftables(firewall.rules))?;
    feed(inside, &["iptables-legacy-restore"], &iptables(firewall.rules))?;
    let lock = File::create(LOCK)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    let locked_out = run(inside, &["iptables-legacy", "--wait", "1", "--list-rules", "INPUT"], "")?;
    if locked_out.status.code() != Some(LOCKED_OUT) {
        return Err(format!("the lock is not held, or not this one: {locked_out:?}").into());
    }
    flock(&lock, FlockOperation::Unlock)?;
    let usual = Side { host: &plain, what: "without foreign rules".to_owned(), locked: None };
    let what = format!("with {} foreign rules of nftables and of iptables, locked", firewall.rules);
    compare(&usual, &Side { host: &ruled, what, locked: Some(&lock) }, firewall.limit)
}

/// Rules that no packet of this test matches.
fn nftables(rules: usize) -> String {
    let mut text = "table inet foreign {\n chain forward {\n  type filter hook forward priority filter;\n".to_owned();
    for number in 0..rules {
        let _ = writeln!(text, "  ip saddr {} tcp dport 443 counter drop", documentation(number));
    }
    text + " }\n}\n"
}

fn iptables(rules: usize) -> String {
    let mut text = "*filter\n:FOREIGN - [0:0]\n-A FORWARD -j FOREIGN\n".to_owned();
    for number in 0..rules {
        let _ = writeln!(text, "-A FOREIGN -s {}/32 -p tcp -m tcp --dport 443 -j DROP", documentation(number));
    }
    text + "COMMIT\n"
}

/// Addresses for benchmarks (RFC 2544), each a little different.
fn documentation(number: usize) -> String {
    format!("198.18.{}.{}", number / 256 % 256, number % 256)
}
