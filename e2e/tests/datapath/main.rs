//! What pods and the node's NIC may rely on, whatever the node's settings are: everybody reaches everybody with their own
//! address, whatever size the links carry; a pod that is gone is forgotten, and a pod reaches itself through a service; the
//! NIC stays as it was.

mod connections;
mod dual_stack;
mod hairpin;
mod matrix;
mod mtu;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dotfour_datapath::Netns;
use dotfour_e2e::program::{self, Failure};
use dotfour_rig::{Daemon, DaemonConfig, Network, Node, NodeConfig, Place, Pod, Runtime, Vnet, VnetConfig};

use crate::connections::Change;
use crate::matrix::Matrix;

/// Azure's most for a NIC, less the node's own.
const SECONDARIES: usize = 255;
/// Pods on a full node.
const PODS: usize = 250;
/// Callers at once.
const CALLERS: usize = 8;
/// How long the kernel may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    program::run_in_sandbox(|sandbox| {
        let (nic, filters) = (sandbox.place(), sandbox.place());
        let (before, after, next) = (sandbox.place(), sandbox.place(), sandbox.place());
        let (hairpin, mtu) = (sandbox.place(), sandbox.place());
        let (both, forged, router, cost) = (sandbox.place(), sandbox.place(), sandbox.place(), sandbox.place());
        vec![
            program::test(
                "a_sender_that_never_pauses_reaches_the_pod_that_its_port_was_given_before_the_old_one_ended",
                move || connections::new_pod_is_reached(&before.within("before")?, Change::Before),
            ),
            program::test(
                "a_sender_that_never_pauses_reaches_the_pod_that_its_port_was_given_after_the_old_one_ended",
                move || connections::new_pod_is_reached(&after.within("after")?, Change::After),
            ),
            program::test("the_next_pod_with_an_address_hears_nothing_of_the_connections_before", move || {
                connections::next_pod_with_the_address_hears_nothing(&next.within("next")?)
            }),
            program::test("a_pod_reaches_itself_through_a_service_of_iptables_and_of_nftables", move || {
                hairpin::reaches_itself(&hairpin.within("hairpin")?)
            }),
            program::test("full_size_packets_arrive_with_the_nic_s_mtu_a_lower_one_and_a_configured_one", move || {
                mtu::full_size_arrives(&mtu)
            }),
            program::test("the_nic_is_as_before_with_250_pods_and_after_them", move || {
                nic_untouched(&nic.within("nic")?)
            }),
            program::test("pods_and_nodes_of_both_families_reach_each_other_and_the_node_keeps_its_route", move || {
                dual_stack::everybody_reaches_everybody(&both.within("both")?)
            }),
            program::test("what_a_pod_sends_from_another_address_is_dropped_and_counted", move || {
                dual_stack::forged_sources_are_dropped(&forged.within("forged")?)
            }),
            program::test("no_pod_becomes_the_node_s_router", move || {
                dual_stack::no_pod_becomes_the_router(&router.within("router")?)
            }),
            program::test("a_second_family_costs_an_add_less_than_five_milliseconds", move || {
                dual_stack::a_second_family_costs_little(&cost.within("cost")?)
            }),
            program::test("everybody_reaches_everybody_with_rp_filter_0_1_and_2", move || {
                reverse_path_filters(&filters.within("rpf")?)
            }),
        ]
    })
}

/// A node with its daemon.
struct Host {
    // Ended before its node.
    daemon: Daemon,
    network: Network,
    node: Node,
}

impl Host {
    fn start(node: Node) -> Result<Self, Failure> {
        Host::start_with(node, |_| {})
    }

    /// With a configuration that differs.
    fn start_with(node: Node, change: impl FnOnce(&mut DaemonConfig)) -> Result<Self, Failure> {
        let mut config = program::daemon()?;
        config.max_pods = PODS;
        config.cooldown = Duration::from_millis(100);
        change(&mut config);
        let daemon = node.start_daemon(&config)?;
        let network = program::network(&node)?;
        Ok(Host { daemon, network, node })
    }

    fn runtime(&self) -> Runtime<'_> {
        Runtime::new(&self.node, &self.network)
    }

    fn pods(&self, count: usize) -> Result<Vec<Pod>, Failure> {
        (0..count).map(|number| Ok(Pod::create(&self.node, "default", &format!("web-{number}"))?)).collect()
    }
}

/// Everything that can be said about the NIC: the link with its addresses and queueing, the routes, and every setting.
fn about_the_nic(node: &Netns) -> Result<BTreeMap<String, String>, Failure> {
    let mut facts = BTreeMap::new();
    node.run(|| -> Result<(), Failure> {
        for (tool, arguments) in [
            ("ip", "-details address show dev eth0"),
            ("ip", "route show table all dev eth0"),
            ("ip", "-6 route show table all dev eth0"),
            ("ip", "rule show"),
            ("tc", "qdisc show dev eth0"),
            ("tc", "filter show dev eth0"),
        ] {
            let output = Command::new(tool).args(arguments.split(' ')).output()?;
            facts.insert(format!("{tool} {arguments}"), String::from_utf8(output.stdout)?);
        }
        for family in ["ipv4", "ipv6"] {
            for kind in ["conf", "neigh"] {
                for entry in fs::read_dir(format!("/proc/sys/net/{family}/{kind}/eth0"))?.flatten() {
                    // Some can only be written.
                    let value = fs::read_to_string(entry.path()).unwrap_or_default();
                    facts.insert(entry.path().display().to_string(), value);
                }
            }
        }
        Ok(())
    })??;
    Ok(facts)
}

/// What differs, as sentences.
fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let differs = |(what, was): (&String, &String)| {
        let is = after.get(what);
        (is != Some(was)).then(|| format!("{what}: was {was:?}, is {is:?}"))
    };
    before.iter().filter_map(differs).collect()
}

fn nic_untouched(place: &Place) -> Result<(), Failure> {
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.clone() })?;
    let node = vnet.add_node(&NodeConfig::new("node-1", SECONDARIES))?;
    // Forwarding is the node's own setting, which the kernel copies to every link when it is turned on.
    node.netns().run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
    // The kernel looks for a while whether somebody has the NIC's link-local address.
    eventually("the NIC's addresses are settled", || {
        Ok(!about_the_nic(node.netns())?.values().any(|fact| fact.contains("tentative")))
    })?;
    let before = about_the_nic(node.netns())?;
    assert!(before.len() > 50, "there is more to say about a NIC than {} things", before.len());
    let host = Host::start(node)?;
    let unchanged = |when: &str| {
        let changes = changes(&before, &about_the_nic(host.node.netns())?);
        if changes.is_empty() { Ok(()) } else { Err(Failure::from(format!("{when}:\n  {}", changes.join("\n  ")))) }
    };
    unchanged("with the daemon")?;
    let pods = host.pods(PODS)?;
    for added in host.runtime().in_parallel(CALLERS, &pods, |calls, pod| calls.add(pod))? {
        added?;
    }
    unchanged("with 250 pods")?;
    for deleted in host.runtime().in_parallel(CALLERS, &pods, |calls, pod| calls.del(pod, None))? {
        deleted?;
    }
    unchanged("after them")?;
    eventually("the pods' links are gone", || {
        Ok(!host.node.links()?.iter().any(|link| link.kind.as_deref() == Some("veth") && link.name != "eth0"))
    })?;
    host.daemon.stop(PATIENCE)?;
    let changes = changes(&before, &about_the_nic(host.node.netns())?);
    if changes.is_empty() { Ok(()) } else { Err(format!("without the daemon:\n  {}", changes.join("\n  ")).into()) }
}

fn eventually(what: &str, is_so: impl Fn() -> Result<bool, Failure>) -> Result<(), Failure> {
    let begun = Instant::now();
    while !is_so()? {
        if begun.elapsed() > PATIENCE {
            return Err(format!("not within {PATIENCE:?}: {what}").into());
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Where a value of rp_filter is set. The kernel takes the higher one of all's and the link's.
#[derive(Debug, Clone, Copy)]
enum Filter {
    /// For all links, and as what new ones get.
    All,
    /// Link by link.
    EachLink,
}

impl Filter {
    fn set(self, node: &Netns, value: u8) -> Result<(), Failure> {
        let value_of = |link: &str| match (self, link) {
            (Filter::All, "all" | "default") => value,
            (Filter::EachLink, "all" | "default") => 0,
            (Filter::All, _) => 0,
            (Filter::EachLink, _) => value,
        };
        node.run(|| -> Result<(), Failure> {
            for entry in fs::read_dir("/proc/sys/net/ipv4/conf")?.flatten() {
                let link = entry.file_name().into_string().unwrap_or_default();
                match fs::write(entry.path().join("rp_filter"), value_of(&link).to_string()) {
                    // A link that was condemned, and is gone by now.
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    written => written?,
                }
            }
            Ok(())
        })?
    }
}

fn reverse_path_filters(place: &Place) -> Result<(), Failure> {
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.clone() })?;
    let hosts = [1, 2]
        .into_iter()
        .map(|number| Host::start(vnet.add_node(&NodeConfig::new(format!("node-{number}"), 8))?))
        .collect::<Result<Vec<_>, _>>()?;
    for value in 0..=2 {
        for filter in [Filter::All, Filter::EachLink] {
            // Before the pods, whose links inherit it, and once more for the links that are there then.
            hosts.iter().try_for_each(|host| filter.set(host.node.netns(), value))?;
            let mut matrix = Matrix::of_mtu(1500);
            let mut pods = Vec::new();
            for host in &hosts {
                matrix.place(host.node.name(), host.node.netns(), host.node.address());
                for pod in host.pods(2)? {
                    let address = host.runtime().add(&pod)?.ipv4().ok_or("no address")?;
                    pods.push((host, pod, address));
                }
            }
            for (host, pod, address) in &pods {
                matrix.place(&format!("{} on {}", pod.name, host.node.name()), pod.netns(), *address);
            }
            hosts.iter().try_for_each(|host| filter.set(host.node.netns(), value))?;
            matrix.walk().map_err(|e| format!("rp_filter {value} ({filter:?}): {e}"))?;
            for (host, pod, _) in &pods {
                host.runtime().del(pod, None)?;
            }
        }
    }
    Ok(())
}
