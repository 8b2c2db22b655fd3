//! What the node remembers of a pod's connections ends with the pod: a port of the node leads to a pod by NAT, its user never
//! pauses, and the pod is replaced.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use dotfour_datapath::conntrack::Entry;
use dotfour_datapath::{Conntrack, Netns};
use dotfour_e2e::inside::nft;
use dotfour_e2e::program::Failure;
use dotfour_rig::{NodeConfig, Place, Pod, Vnet, VnetConfig};

use crate::Host;

/// The node's port and the pods'.
const HOST_PORT: u16 = 5353;
const POD_PORT: u16 = 53;
/// How often the user sends.
const PACE: Duration = Duration::from_millis(5);
/// How soon the user must be heard by the new pod, and how often that is tried: a busy machine only makes it later.
const SOON: Duration = Duration::from_secs(1);
const TRIES: usize = 3;
/// How long something may take that is to happen, and how long one listens for what is not to.
const PATIENCE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(700);

type Outcome = Result<(), Failure>;

/// A program that sends from one port to one port and never pauses. Ends when dropped.
struct User {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl User {
    fn start(from: &Netns, to: (Ipv4Addr, u16)) -> Result<Self, Failure> {
        let socket = from.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                // Nobody may be there.
                let _ = socket.send_to(b"x", to);
                sleep(PACE);
            }
        });
        Ok(User { over, thread: Some(thread) })
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A pod with its address, and its port open.
struct Server {
    pod: Pod,
    address: Ipv4Addr,
    socket: UdpSocket,
}

impl Server {
    fn add(host: &Host, name: &str) -> Result<Self, Failure> {
        let pod = Pod::create(&host.node, "default", name)?;
        let address = host.runtime().add(&pod)?.ipv4().ok_or("no address")?;
        let socket = pod.netns().run(|| UdpSocket::bind((address, POD_PORT)))??;
        Ok(Server { pod, address, socket })
    }

    /// How long it took until something came; `None` if nothing did.
    fn hears(&self, patience: Duration) -> Result<Option<Duration>, Failure> {
        let begun = Instant::now();
        self.socket.set_read_timeout(Some(patience))?;
        Ok(self.socket.recv_from(&mut [0; 8]).ok().map(|_| begun.elapsed()))
    }
}

/// Leads the node's port to a pod, or nowhere.
fn lead(host: &Host, to: Option<Ipv4Addr>) -> Outcome {
    let rules = to.map_or_else(String::new, |pod| {
        ["udp", "tcp"]
            .map(|protocol| {
                let node = host.node.address();
                format!(
                    "add rule ip hostport in ip daddr {node} {protocol} dport {HOST_PORT} dnat to {pod}:{POD_PORT}\n"
                )
            })
            .concat()
    });
    let table = "add table ip hostport\n\
                 add chain ip hostport in { type nat hook prerouting priority dstnat; }\n\
                 flush chain ip hostport in\n";
    nft(host.node.netns(), &format!("{table}{rules}"))
}

/// The node's connections that name an address.
fn naming(host: &Host, address: Ipv4Addr) -> Result<Vec<Entry>, Failure> {
    let mut table = host.node.netns().run(Conntrack::open)??.ok_or("the kernel tracks no connections")?;
    let named = HashSet::from([IpAddr::V4(address)]);
    Ok(table.entries()?.into_iter().filter(|entry| entry.names(&named)).collect())
}

/// When the port's pod changes: before the old pod ends, as kube-proxy does it, or after it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Before,
    After,
}

pub(crate) fn new_pod_is_reached(place: &Place, change: Change) -> Outcome {
    let mut times = Vec::new();
    for number in 0..TRIES {
        let heard = change_of_pods(&place.within(&number.to_string())?, change)?;
        println!("  {change:?}: the new pod is reached {heard:?} after the change");
        if heard <= SOON {
            return Ok(());
        }
        times.push(heard);
    }
    Err(format!("the new pod is reached only after {times:?}").into())
}

/// How long it took until the new pod was reached.
fn change_of_pods(place: &Place, change: Change) -> Result<Duration, Failure> {
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.clone() })?;
    let host = Host::start_with(vnet.add_node(&NodeConfig::new("node-1", 8))?, |config| {
        config.cooldown = Duration::from_secs(30);
    })?;
    let outside = vnet.add_node(&NodeConfig::new("outside", 0))?;
    let old = Server::add(&host, "old")?;
    let new = Server::add(&host, "new")?;
    let bystander = Server::add(&host, "bystander")?;
    assert_ne!(old.address, new.address);

    lead(&host, Some(old.address))?;
    let _user = User::start(outside.netns(), (host.node.address(), HOST_PORT))?;
    old.hears(PATIENCE)?.ok_or("the port does not lead to the pod")?;
    // By TCP as well, there and from there; and the same for a pod that has nothing to do with it.
    let mut held = Vec::new();
    for pod in [&old, &bystander] {
        let inner = pod.pod.netns().run(|| TcpListener::bind((pod.address, POD_PORT)))??;
        let to_pod = outside.netns().run(|| TcpStream::connect((pod.address, POD_PORT)))??;
        let outer = outside.netns().run(|| TcpListener::bind((outside.address(), 0)))??;
        let from_pod = pod.pod.netns().run(|| TcpStream::connect(outer.local_addr()?))??;
        // All are held to the end: a connection that closes is soon forgotten, whatever becomes of the pod.
        held.push((inner, to_pod, outer, from_pod));
    }
    let _other_user = User::start(outside.netns(), (bystander.address, POD_PORT))?;
    bystander.hears(PATIENCE)?.ok_or("the bystander hears nothing")?;
    let before = naming(&host, bystander.address)?.len();
    if before < 3 || naming(&host, old.address)?.len() < 3 {
        return Err("not all connections are tracked".into());
    }

    if let Change::Before = change {
        lead(&host, Some(new.address))?;
        // An old connection goes on where it went, or this test would say nothing.
        if let Some(after) = new.hears(SILENCE)? {
            return Err(format!("the old connection is not remembered: heard after {after:?}").into());
        }
    }
    host.runtime().del(&old.pod, None)?;
    if let Change::After = change {
        // Long enough for a first sweep, after which the user's packets make the connection anew.
        sleep(SILENCE);
        lead(&host, Some(new.address))?;
    }
    let begun = Instant::now();
    let heard = new.hears(PATIENCE)?.ok_or("a user that never pauses does not reach the new pod")?;
    while !naming(&host, old.address)?.is_empty() {
        if begun.elapsed() > PATIENCE {
            return Err(format!("remembered of the old pod: {:?}", naming(&host, old.address)?).into());
        }
        sleep(PACE);
    }
    let after = naming(&host, bystander.address)?.len();
    if after == before {
        Ok(heard)
    } else {
        Err(format!("{after} of {before} connections of another pod are left").into())
    }
}

pub(crate) fn next_pod_with_the_address_hears_nothing(place: &Place) -> Outcome {
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.clone() })?;
    // One address, and no rest: the next pod gets it at once.
    let host = Host::start_with(vnet.add_node(&NodeConfig::new("node-1", 1))?, |config| {
        config.cooldown = Duration::ZERO;
    })?;
    let outside = vnet.add_node(&NodeConfig::new("outside", 0))?;
    let mut before: Option<Server> = None;
    for round in 0..5 {
        if let Some(before) = before.take() {
            host.runtime().del(&before.pod, None)?;
        }
        let server = Server::add(&host, &format!("web-{round}"))?;
        if let Some(after) = server.hears(SILENCE / 3)? {
            return Err(format!("a pod hears the user of the one before, after {after:?}").into());
        }
        lead(&host, Some(server.address))?;
        let _user = User::start(outside.netns(), (host.node.address(), HOST_PORT))?;
        server.hears(PATIENCE)?.ok_or("the port does not lead to the pod")?;
        // The port is closed, and the user goes on.
        lead(&host, None)?;
        server.hears(PATIENCE)?.ok_or("the old connection is not remembered")?;
        host.runtime().del(&server.pod, None)?;
        let next = Server::add(&host, "next")?;
        assert_eq!(next.address, server.address, "there is one address only");
        if let Some(after) = next.hears(SILENCE)? {
            return Err(format!("a pod hears the user of the one before, after {after:?}").into());
        }
        before = Some(next);
    }
    Ok(())
}
