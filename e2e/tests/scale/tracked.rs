//! DEL on a node that tracks many connections, beside DEL on a node that tracks few. What masquerades makes the kernel go
//! through all of them whenever a link is set down.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use dotfour_datapath::Conntrack;
use dotfour_e2e::program::Failure;
use dotfour_rig::Place;

use crate::figures::Pairs;
use crate::stage::{Host, Outcome, ROUNDS, vnet};

/// How many pods each node deletes in a round, one by one.
const SAMPLES: usize = 40;
/// A pod's life: long enough for what its ADD has left to be done.
const LIFE: Duration = Duration::from_millis(20);
/// After how many of them all connections are spoken on again. The kernel forgets those on which nobody does for half a minute.
const SPELL: usize = 10;
/// How many connections lead from one port.
const PORTS: u16 = 10_000;
/// Nobody's address, to which they lead: the fabric does not have it.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(10, 240, 200, 1);

/// How many connections there are, and what they may cost.
pub(crate) struct Tracked {
    pub(crate) connections: u32,
    pub(crate) limit: f64,
}

pub(crate) fn count_little(place: &Place, tracked: &Tracked) -> Outcome {
    let vnet = vnet(place, "tracked")?;
    let (idle, busy) = (Host::start(&vnet, 1)?, Host::start(&vnet, 2)?);
    idle.settle()?;
    let connections = Connections::open(&busy, tracked.connections)?;
    let mut pairs = Pairs::default();
    for _ in 0..ROUNDS {
        for number in 0..SAMPLES {
            if number % SPELL == 0 {
                connections.speak();
            }
            let took = delete_one(&idle, number)?;
            pairs.push(took, delete_one(&busy, number)?);
        }
        let count = connections.count(&busy)?;
        if count < tracked.connections {
            return Err(format!("the kernel tracks {count} connections").into());
        }
        let (ratio, (few, many)) = (pairs.ratio(), pairs.in_words());
        println!("  DEL with few connections, {few}");
        println!("  DEL with {count} connections, {many}; median ratio {ratio:.2}");
        if ratio <= tracked.limit {
            return Ok(());
        }
    }
    let (ratio, limit) = (pairs.ratio(), tracked.limit);
    Err(format!("DEL with many connections takes {ratio:.2} times as long; allowed is {limit}").into())
}

/// Connections that a node tracks, as long as somebody speaks.
struct Connections(Vec<UdpSocket>);

impl Connections {
    /// So many, or a few more, of the node itself.
    fn open(host: &Host, connections: u32) -> Result<Self, Failure> {
        let sockets = connections.div_ceil(u32::from(PORTS));
        let open = || (0..sockets).map(|_| UdpSocket::bind("0.0.0.0:0")).collect::<Result<_, _>>();
        Ok(Connections(host.node.netns().run(open)??))
    }

    fn speak(&self) {
        for socket in &self.0 {
            for port in 1_000..1_000 + PORTS {
                // That nobody answers for the address is told now and then.
                let _ = socket.send_to(b"?", (NOWHERE, port));
            }
        }
    }

    fn count(&self, host: &Host) -> Result<u32, Failure> {
        host.node.netns().run(|| Ok(Conntrack::open()?.ok_or("the kernel tracks nothing")?.count()?))?
    }
}

fn delete_one(host: &Host, number: usize) -> Result<Duration, Failure> {
    let pod = host.pods(1, &format!("web-{number}"))?;
    sleep(LIFE);
    let pod = pod.first().ok_or("no pod")?;
    let took = host.runtime().del(pod, None)?.took;
    host.wait_for_links(0)?;
    Ok(took)
}
