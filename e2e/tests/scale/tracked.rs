//! DEL on a node that tracks many connections, beside DEL on a node that tracks few. What masquerades makes the kernel go
//! through all of them whenever a link is set down.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use dotfour_datapath::Conntrack;
use dotfour_e2e::program::Failure;
use dotfour_rig::Place;

use crate::figures::{in_words, median};
use crate::stage::{Host, Outcome, vnet};

/// How many pods each node deletes, one by one.
const SAMPLES: usize = 40;
/// A pod's life: long enough for what its ADD has left to be done.
const LIFE: Duration = Duration::from_millis(20);
/// One round within the limit is enough: noise can make a round slower, and nothing can make it faster.
const ROUNDS: usize = 3;
/// Nobody's addresses, to which the connections lead: the fabric has none of them.
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
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        // They last for half a minute.
        let count = connect(&busy, tracked.connections)?;
        if count < tracked.connections {
            return Err(format!("the kernel tracks {count} connections").into());
        }
        let mut times = (Vec::new(), Vec::new());
        for number in 0..SAMPLES {
            times.0.push(delete_one(&idle, number)?);
            times.1.push(delete_one(&busy, number)?);
        }
        let ratio = median(&times.1).as_secs_f64() / median(&times.0).as_secs_f64();
        println!("  DEL with few connections, {}", in_words(&times.0));
        println!("  DEL with {count} connections, {}; ratio of medians {ratio:.2}", in_words(&times.1));
        if ratio <= tracked.limit {
            return Ok(());
        }
        ratios.push(ratio);
    }
    Err(format!("DEL with many connections takes {ratios:.2?} times as long; allowed is {}", tracked.limit).into())
}

/// Makes the node track so many connections. Returns how many it does.
fn connect(host: &Host, connections: u32) -> Result<u32, Failure> {
    host.node.netns().run(|| -> Result<u32, Failure> {
        let mut made = 0;
        while made < connections {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            let to = Ipv4Addr::from_bits(NOWHERE.to_bits() + made / 10_000);
            for port in 1_000..11_000 {
                // That nobody answers for the address is told now and then.
                let _ = socket.send_to(b"?", (to, port));
            }
            made += 10_000;
        }
        Ok(Conntrack::open()?.ok_or("the kernel tracks nothing")?.count()?)
    })?
}

fn delete_one(host: &Host, number: usize) -> Result<Duration, Failure> {
    let pod = host.pods(1, &format!("web-{number}"))?;
    sleep(LIFE);
    let pod = pod.first().ok_or("no pod")?;
    let took = host.runtime().del(pod, None)?.took;
    host.wait_for_links(0)?;
    Ok(took)
}
