//! The demo's page.

use std::path::Path;
use std::time::Duration;

use super::checks::{Left, Pairs, Refusals, Talk};
use super::stats::{histogram, milliseconds, summary};
use super::{Host, Wired};
use crate::azure::WIRESERVER;
use crate::fabric::FABRIC_MAC;
use crate::{RigError, Vnet};

/// Bars of a histogram.
const WIDTH: usize = 24;

pub(super) fn topology(vnet: &Vnet, hosts: &[Host<'_>], pods: &[Wired<'_>], plugin: &Path) -> Result<(), RigError> {
    println!("\n  VNet {}", vnet.subnet());
    println!("    │");
    println!("    ╞══ fabric   wireserver {WIRESERVER}:80 · every ARP answered with {FABRIC_MAC}");
    for (number, host) in hosts.iter().enumerate() {
        let (branch, trunk) = if number + 1 == hosts.len() { ("└──", "   ") } else { ("├──", "│  ") };
        let node = host.node;
        let addresses = vnet.addresses(node)?;
        let pool = addresses.get(1).zip(addresses.last()).map(|(first, last)| format!("{first} – {last}"));
        let here: Vec<_> = pods.iter().filter(|pod| pod.host.node.nic() == node.nic()).collect();
        let used = here.first().zip(here.last()).map(|(first, last)| format!("{} – {}", first.address, last.address));
        println!("    │");
        println!("    {branch} {:<8} eth0 {:<15} {}", node.name(), node.address(), node.mac());
        println!("    {trunk}  ├─ on the NIC  {:>3} addresses  {}", addresses.len() - 1, pool.unwrap_or_default());
        println!("    {trunk}  └─ in pods     {:>3} addresses  {}", here.len(), used.unwrap_or_default());
    }
    let size = std::fs::metadata(plugin).map(|file| file.len().div_ceil(1024)).unwrap_or_default();
    let (pods, nodes) = (count(pods.len(), "pod"), count(hosts.len(), "node"));
    println!("\n  {pods} on {nodes}, each by one call of the plugin ({size} KiB) to its node's dotfour-ipamd");
    Ok(())
}

pub(super) fn talk(talk: &Talk) {
    if talk.same_node.asked + talk.across.asked == 0 {
        return;
    }
    println!("\n  {:<28}{:>10}{:>14}{:>16}{:>18}", "pods talk", "pairs", "answered", "median", "own address seen");
    for (name, pairs) in [("on one node", &talk.same_node), ("across nodes, by the fabric", &talk.across)] {
        if pairs.asked > 0 {
            let Pairs { asked, answered, own_address } = pairs;
            let [_, median, ..] = summary(answered);
            let median = format!("{} ms", milliseconds_fine(median));
            println!("  {name:<28}{asked:>10}{:>14}{median:>16}{own_address:>18}", answered.len());
        }
    }
}

pub(super) fn refusals(refused: &Refusals) {
    let Refusals { gateway_answered, forged, dropped } = refused;
    println!("\n  {:<42}as in Azure", "what the fabric refuses");
    let gateway = if *gateway_answered { "answers" } else { "silent" };
    println!("  {:<42}{gateway}", "ping of the gateway");
    let counted = format!("drop counter {} → {}", dropped.0, dropped.1);
    println!("  {:<42}{counted}", format!("a packet from {forged}, on no NIC"));
}

pub(super) fn costs(rows: &[(&str, Vec<Duration>)]) {
    println!("\n  {:<10}{:>8}{:>9}{:>9}{:>9}   spread", "cost, ms", "min", "median", "p99", "max");
    for (name, times) in rows {
        let [min, median, p99, max] = summary(times).map(milliseconds);
        println!("  {name:<10}{min:>8}{median:>9}{p99:>9}{max:>9}   {}", histogram(times, WIDTH));
    }
}

pub(super) fn left(nodes: &[Left]) {
    println!("\n  {:<10}{:>8}{:>9}{:>13}   eth0", "left over", "links", "routes", "neighbours");
    for Left { node, links, routes, neighbours, nic_changed } in nodes {
        let nic = if *nic_changed { "CHANGED" } else { "untouched" };
        println!("  {node:<10}{links:>8}{routes:>9}{neighbours:>13}   {nic}");
    }
}

pub(super) fn end(took: Duration) {
    println!("\n  All gone again. {:.1} s in all.\n", took.as_secs_f64());
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Round trips are microseconds: three decimals.
fn milliseconds_fine(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1000.0)
}
