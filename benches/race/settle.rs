//! Waiting until nothing of what was done goes on: what the kernel and daemons clean up later would burden whoever is next.

use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dotfour_datapath::link::{LinkId, VethEnd, VethPair};
use dotfour_datapath::{Batch, Netns, Socket};
use dotfour_ipamd::wiring::WireError;
use dotfour_rig::Pod;

use crate::contestant::Contestant;
use crate::error::RaceError;

/// How long to wait at most. A plugin that never cleans up gets no further delay than that.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often to look.
const LOOK: Duration = Duration::from_millis(3);
/// What the kernel frees once a namespace's links are gone, and what of a namespace is still held by a process that ends.
const AFTERMATH: Duration = Duration::from_millis(20);

/// Waits until a node has no more links than it had.
pub(crate) fn until_links(contestant: &Contestant, at_most: usize) -> Result<(), RaceError> {
    let started = Instant::now();
    while contestant.node.links()?.len() > at_most && started.elapsed() < PATIENCE {
        sleep(LOOK);
    }
    Ok(())
}

/// Ends sandboxes and waits until the kernel has taken their namespaces apart, which it does when it finds time. The last
/// one to go is a namespace of our own with one end of a link in it: when the other end is gone, so are those before it.
pub(crate) fn end(pods: Vec<Pod>) -> Result<(), RaceError> {
    const CANARY: &str = "canary";
    drop(pods);
    sleep(AFTERMATH);
    let last = Netns::create().map_err(RaceError::system("make a network namespace"))?;
    let mut socket = Socket::open().map_err(RaceError::system("open a netlink socket"))?;
    let mut batch = Batch::new();
    let pair = VethPair {
        near: VethEnd { name: CANARY, mac: None, index: None },
        far: VethEnd { name: CANARY, mac: None, index: None },
        far_netns: Some(last.as_fd()),
        mtu: 1500,
    };
    batch.create_veth("make a link to see a namespace end", &pair);
    socket.run(batch).map_err(WireError::from)?;
    drop(last);
    let started = Instant::now();
    while started.elapsed() < PATIENCE && socket.link(LinkId::Name(CANARY)).map_err(WireError::from)?.is_some() {
        sleep(LOOK);
    }
    sleep(AFTERMATH);
    Ok(())
}
