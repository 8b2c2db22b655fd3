//! What the demo proves.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use dotfour_datapath::link::Link;

use super::{DemoError, Wired};
use crate::probe::{Mirror, Pinger, seen_as, spoof_echo};
use crate::{Node, RigError, Vnet};

/// How long an answer may take. On a virtual fabric it takes microseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long to wait for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(200);
/// How long condemned links may take to be buried.
const BURIED_WITHIN: Duration = Duration::from_secs(5);
/// More pairs than this are sampled.
const MOST_PAIRS: usize = 400;

/// Pings and source addresses between pods.
#[derive(Debug, Default)]
pub(super) struct Talk {
    pub(super) same_node: Pairs,
    pub(super) across: Pairs,
    silent: Vec<String>,
    disguised: Vec<String>,
}

/// Pairs of one kind.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    pub(super) asked: usize,
    /// Round-trip times of those that answered.
    pub(super) answered: Vec<Duration>,
    /// How many were seen with their own address.
    pub(super) own_address: usize,
}

impl Talk {
    /// Lets pods of every pair talk, each with each, or an even sample of that.
    pub(super) fn between(pods: &[Wired<'_>]) -> Result<Self, DemoError> {
        let mut talk = Talk::default();
        let mirrors = pods.iter().map(|to| Mirror::start(to.pod.netns())).collect::<Result<Vec<_>, _>>()?;
        let pairs: Vec<_> = pods
            .iter()
            .flat_map(|from| pods.iter().zip(&mirrors).map(move |(to, mirror)| (from, to, mirror)))
            .filter(|(from, to, _)| from.address != to.address)
            .collect();
        let step = pairs.len().div_ceil(MOST_PAIRS).max(1);
        for (from, to, mirror) in pairs.into_iter().step_by(step) {
            let reply = Pinger::open(from.pod.netns())?.ping(to.address, ANSWER_WITHIN)?;
            let responder = SocketAddr::from((to.address, mirror.port()));
            let seen = seen_as(from.pod.netns(), responder, ANSWER_WITHIN)?;
            talk.record(from, to, reply, seen == Some(from.address.into()));
        }
        Ok(talk)
    }

    fn record(&mut self, from: &Wired<'_>, to: &Wired<'_>, reply: Option<Duration>, own_address: bool) {
        let name = |end: &Wired<'_>| format!("{} {} on {}", end.pod.name, end.address, end.host.node.name());
        if reply.is_none() {
            self.silent.push(format!("{} gets no answer from {}", name(from), name(to)));
        } else if !own_address {
            self.disguised.push(format!("{} is not seen with its own address by {}", name(from), name(to)));
        }
        let same_node = from.host.node.nic() == to.host.node.nic();
        let pairs = if same_node { &mut self.same_node } else { &mut self.across };
        pairs.asked += 1;
        pairs.answered.extend(reply);
        pairs.own_address += usize::from(own_address);
    }

    /// What must not be.
    pub(super) fn wrong(&self) -> Vec<String> {
        self.silent.iter().chain(&self.disguised).take(5).cloned().collect()
    }
}

/// What Azure's fabric would not do.
#[derive(Debug)]
pub(super) struct Refusals {
    /// The gateway answered a ping.
    pub(super) gateway_answered: bool,
    /// The source nobody has.
    pub(super) forged: Ipv4Addr,
    /// Drops of foreign sources at the first node's NIC, before and after one was sent.
    pub(super) dropped: (u64, u64),
}

impl Refusals {
    /// What must not be.
    pub(super) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.gateway_answered {
            wrong.push("the gateway answered a ping".to_owned());
        }
        if self.dropped.1 != self.dropped.0 + 1 {
            wrong.push(format!("the fabric did not drop a packet from {}", self.forged));
        }
        wrong
    }
}

/// Sends what Azure would drop, from the first node.
pub(super) fn what_azure_refuses(vnet: &Vnet, nodes: &[Node]) -> Result<Refusals, DemoError> {
    let Some(first) = nodes.first() else {
        return Err(DemoError::TooManyPods { pods: 0, nodes: 0 });
    };
    let gateway_answered = Pinger::open(first.netns())?.ping(vnet.gateway(), SILENCE)?.is_some();
    let forged = Ipv4Addr::new(10, 240, 200, 200);
    let before = vnet.drops()?.of(first.nic()).foreign_source;
    spoof_echo(first.netns(), forged, vnet.gateway())?;
    let after = vnet.drops()?.of(first.nic()).foreign_source;
    Ok(Refusals { gateway_answered, forged, dropped: (before, after) })
}

/// What a node has in its namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeState {
    links: Vec<Link>,
    routes: BTreeSet<String>,
    neighbours: BTreeSet<String>,
}

impl NodeState {
    /// As it is now. Neighbours are the permanent ones only; the others come and go.
    pub(super) fn of(node: &Node) -> Result<Self, RigError> {
        let read = |file: &str| {
            let path = std::path::Path::new("/proc/thread-self/net").join(file);
            let text = node.netns().run(|| std::fs::read_to_string(&path)).flatten();
            text.map_err(|source| RigError::File { path, source })
        };
        let lines = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<BTreeSet<_>>();
        // ATF_PERM of linux/if_arp.h, as the table's third column prints it.
        let permanent = |line: &String| line.split_whitespace().nth(2) == Some("0x6");
        Ok(NodeState {
            links: node.links()?,
            routes: lines(&read("route")?),
            neighbours: lines(&read("arp")?).into_iter().filter(permanent).collect(),
        })
    }

    fn nic(&self) -> Option<&Link> {
        self.links.iter().find(|link| link.name == crate::node::NIC)
    }
}

/// What a node has more than before.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) node: String,
    pub(super) links: usize,
    pub(super) routes: usize,
    pub(super) neighbours: usize,
    pub(super) nic_changed: bool,
}

impl Left {
    /// What must not be.
    pub(super) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (count, what) in [(self.links, "links"), (self.routes, "routes"), (self.neighbours, "neighbours")] {
            if count > 0 {
                wrong.push(format!("{count} {what} are left on {}", self.node));
            }
        }
        if self.nic_changed {
            wrong.push(format!("eth0 of {} is not what it was", self.node));
        }
        wrong
    }
}

/// Compares a node with what it was, once what is to be buried has been.
pub(super) fn what_is_left(node: &Node, before: &NodeState) -> Result<Left, DemoError> {
    let started = Instant::now();
    loop {
        let now = NodeState::of(node)?;
        let left = Left {
            node: node.name().to_owned(),
            links: now.links.iter().filter(|link| !before.links.iter().any(|old| old.index == link.index)).count(),
            routes: now.routes.difference(&before.routes).count(),
            neighbours: now.neighbours.difference(&before.neighbours).count(),
            nic_changed: now.nic() != before.nic(),
        };
        if left.wrong().is_empty() || started.elapsed() > BURIED_WITHIN {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
