//! Two pods of one contestant, ready to talk.
//!
//! Their addresses go on the node's NIC beside its own, as Azure wants it of whoever sends from them: the fabric then
//! leads them to the node, and lets the node send from them, for every contestant in the same way.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};

use dotfour_datapath::Netns;
use dotfour_rig::error::AddressError;
use dotfour_rig::{Node, Pod, RigError, Runtime, Vnet};
use serde_json::Value;

use super::{Beside, PATIENCE, Path};
use crate::contestant::Contestant;
use crate::error::RaceError;
use crate::in_turn::sandboxes;
use crate::settle;

/// Two pods of one contestant, on its node.
#[derive(Debug)]
pub(super) struct Stage<'c> {
    contestant: &'c Contestant,
    beside: Beside,
    pods: Vec<WiredPod>,
    /// Links of the node without those of the pods.
    links: usize,
    /// Whether the pods' addresses are on the NIC. Only a plugin from the command line may give out others, which no
    /// other node can reach.
    on_the_nic: bool,
}

#[derive(Debug)]
struct WiredPod {
    pod: Pod,
    address: Ipv4Addr,
    result: Value,
}

/// Where one talks, and to whom.
#[derive(Debug)]
pub(super) struct Ends<'s> {
    from: &'s Netns,
    to: &'s Netns,
    address: Ipv4Addr,
}

impl<'c> Stage<'c> {
    /// Adds two pods and puts their addresses on the NIC.
    pub(super) fn build(vnet: &Vnet, contestant: &'c Contestant, beside: Beside) -> Result<Self, RaceError> {
        beside
            .begin(contestant.node.netns(), contestant.checks_senders())
            .map_err(RaceError::system("put rules on a node"))?;
        let links_before = contestant.node.links()?.len();
        let runtime = Runtime::new(&contestant.node, &contestant.network);
        let add = |pod: Pod| {
            let answer = runtime.add(&pod).map_err(|source| RaceError::Call { name: contestant.name, source })?;
            let address = answer.ipv4().ok_or(RaceError::NoAddress { name: contestant.name })?;
            Ok(WiredPod { pod, address, result: answer.result })
        };
        let pods =
            sandboxes(contestant, "talk", 2)?.into_iter().map(add).collect::<Result<Vec<WiredPod>, RaceError>>()?;
        // A plugin may make more, once, for all pods: they stay.
        let links = links_before.max(contestant.node.links()?.len().saturating_sub(pods.len()));
        let on_the_nic = match vnet.attach(&contestant.node, &addresses(&pods)) {
            Ok(()) => true,
            Err(RigError::Address(AddressError::NotInSubnet { .. })) => false,
            Err(e) => return Err(e.into()),
        };
        Ok(Stage { contestant, beside, pods, links, on_the_nic })
    }

    /// Whose it is.
    pub(super) fn name(&self) -> &'static str {
        self.contestant.name
    }

    /// The two ends of a path. `None` if it leads nowhere.
    pub(super) fn ends<'s>(&'s self, path: Path, other: &'s Node) -> Option<Ends<'s>> {
        let [one, two] = self.pods.as_slice() else { return None };
        let ends = match path {
            Path::PodToPod => Ends { from: one.pod.netns(), to: two.pod.netns(), address: two.address },
            Path::PodToNode => Ends { from: one.pod.netns(), to: other.netns(), address: other.address() },
            Path::NodeToPod => Ends { from: other.netns(), to: one.pod.netns(), address: one.address },
        };
        (self.on_the_nic || path == Path::PodToPod).then_some(ends)
    }

    /// Deletes the pods and takes their addresses off the NIC.
    pub(super) fn clear(self, vnet: &Vnet) -> Result<(), RaceError> {
        let Stage { contestant, beside, pods, links, on_the_nic } = self;
        let runtime = Runtime::new(&contestant.node, &contestant.network);
        if on_the_nic {
            vnet.detach(&contestant.node, &addresses(&pods))?;
        }
        for WiredPod { pod, result, .. } in &pods {
            runtime.del(pod, Some(result)).map_err(|source| RaceError::Call { name: contestant.name, source })?;
        }
        beside
            .end(contestant.node.netns(), contestant.checks_senders())
            .map_err(RaceError::system("take rules off a node"))?;
        settle::until_links(contestant, links)?;
        settle::end(pods.into_iter().map(|wired| wired.pod).collect())
    }
}

fn addresses(pods: &[WiredPod]) -> Vec<Ipv4Addr> {
    pods.iter().map(|wired| wired.address).collect()
}

impl Ends<'_> {
    /// Opens a connection and returns both ends, that of the sender first. Neither waits for ever, nor before it sends.
    pub(super) fn connect(&self) -> io::Result<[TcpStream; 2]> {
        let listener = self.to.run(|| TcpListener::bind((self.address, 0))).flatten()?;
        let target = SocketAddrV4::new(self.address, listener.local_addr()?.port());
        let near = self.from.run(|| TcpStream::connect_timeout(&target.into(), PATIENCE)).flatten()?;
        let (far, _) = listener.accept()?;
        for end in [&near, &far] {
            end.set_read_timeout(Some(PATIENCE))?;
            end.set_write_timeout(Some(PATIENCE))?;
            end.set_nodelay(true)?;
        }
        Ok([near, far])
    }
}
