//! A node with pods, on which faults are planted.

use std::net::Ipv4Addr;

use dotfour_datapath::link::Link;
use dotfour_datapath::{Batch, Netns, Socket};
use dotfour_e2e::program::{self, Failure};
use dotfour_e2e::views::compare::short;
use dotfour_e2e::views::{Belief, Views};
use dotfour_ipamd::client;
use dotfour_protocol::NodeStatus;
use dotfour_rig::{Node, NodeConfig, Place, Pod, Runtime, Vnet, VnetConfig};

pub(crate) type Outcome = Result<(), Failure>;

/// A node with some pods, whose daemon has spoken.
pub(crate) struct Stage {
    pub(crate) vnet: Vnet,
    pub(crate) node: Node,
    pub(crate) said: NodeStatus,
    pub(crate) pods: [StagePod; 3],
}

pub(crate) struct StagePod {
    pub(crate) pod: Pod,
    pub(crate) address: Ipv4Addr,
    /// Its link on the node.
    pub(crate) link: Link,
    /// How findings name it.
    pub(crate) who: String,
}

impl Stage {
    pub(crate) fn set(place: Place) -> Result<Self, Failure> {
        let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place })?;
        let node = vnet.add_node(&NodeConfig::new("node-1", 10))?;
        let daemon = node.start_daemon(&program::daemon()?)?;
        let network = program::network(&node)?;
        let pod = |name| -> Result<StagePod, Failure> {
            let pod = Pod::create(&node, "default", name)?;
            let address = Runtime::new(&node, &network).add(&pod)?.ipv4().ok_or("no address")?;
            let is_its = |link: &Link| link.alias.as_ref().is_some_and(|alias| alias.ends_with(&pod.container_id));
            let link = node.links()?.into_iter().find(is_its).ok_or("no link")?;
            let who = short(&pod.container_id);
            Ok(StagePod { pod, address, link, who })
        };
        let pods = [pod("web-0")?, pod("web-1")?, pod("web-2")?];
        let said = client::status(daemon.socket())?;
        daemon.kill();
        Ok(Stage { vnet, node, said, pods })
    }

    /// What the runtime believes when nothing has gone wrong.
    pub(crate) fn beliefs(&self) -> impl Iterator<Item = (&Pod, Belief)> {
        self.pods.iter().map(|pod| (&pod.pod, Belief::Up(vec![pod.address.into()])))
    }

    pub(crate) fn views(&self) -> Result<Views, Failure> {
        Ok(Views::beside(self.said.clone(), &self.vnet, &self.node, self.beliefs())?)
    }

    /// Fails unless exactly these are found, in any order.
    pub(crate) fn finds(&self, views: &Views, expected: &[String]) -> Outcome {
        same(views.findings(), expected)
    }

    /// As [`Stage::finds`], in what is there now.
    pub(crate) fn now_finds(&self, expected: &[String]) -> Outcome {
        self.finds(&self.views()?, expected)
    }

    /// Changes the node's namespace.
    pub(crate) fn plant(&self, fault: impl FnOnce(&mut Batch)) -> Outcome {
        plant_in(self.node.netns(), fault)
    }
}

pub(crate) fn plant_in(netns: &Netns, fault: impl FnOnce(&mut Batch)) -> Outcome {
    let mut batch = Batch::new();
    fault(&mut batch);
    Ok(netns.run(Socket::open)??.run(batch)?)
}

pub(crate) fn same(mut found: Vec<String>, expected: &[String]) -> Outcome {
    let mut expected = expected.to_vec();
    found.sort();
    expected.sort();
    if found == expected { Ok(()) } else { Err(format!("found\n{found:#?}\nexpected\n{expected:#?}").into()) }
}

/// As findings list who shares what.
pub(crate) fn sorted(mut names: [&str; 2]) -> String {
    names.sort_unstable();
    names.join(" and ")
}
