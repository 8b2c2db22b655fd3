//! Looks at a wired pod from both sides.

use std::os::fd::BorrowedFd;

use dotfour_datapath::link::LinkId;
use dotfour_datapath::netns::open_socket_in;
use dotfour_datapath::rule::Rule;
use dotfour_datapath::{KernelError, Socket};

use super::names::keyed_host_link;
use super::pod::{PodPlan, Wirer};
use super::shape::{Difference, End, Seen, first_difference, node_end, pod_end};
use crate::pool::HostLink;

/// Why a pod is not as ADD made it, or nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The descriptor is not a network namespace.
    #[error("the descriptor passed for CNI_NETNS is not a network namespace")]
    NotANamespace(#[source] std::io::Error),
    /// Something is missing, or other than it should be.
    #[error("{0}")]
    Differs(Difference),
    /// The kernel did not answer.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl Wirer {
    /// Compares all that ADD makes of `plan`, whose link on the node is `link` by now, with what is there. It changes
    /// nothing, and takes dumps: not for a pod's path.
    pub fn check(&mut self, plan: &PodPlan<'_>, link: &HostLink, netns: BorrowedFd<'_>) -> Result<(), CheckError> {
        let mut inside = open_socket_in(netns, &self.home).map_err(CheckError::NotANamespace)?;
        let index = link.index;
        // A newer sandbox of the pod may have renamed it since: to this, and to no other name.
        let keyed = keyed_host_link(&plan.tag.key);
        let renamed = self.node.link(LinkId::Index(index))?.is_some_and(|found| found.name == keyed);
        let node = node_end(plan, if renamed { keyed } else { link.name.clone() }, index);
        // No rule leads to a pod: its route is in the main table.
        compare(&node, Vec::new(), &mut self.node, "the node's namespace")?;
        let rules = inside.rules()?;
        compare(&pod_end_as(plan, index, &rules), rules, &mut inside, "the pod's namespace")
    }
}

fn compare(end: &End, rules: Vec<Rule>, socket: &mut Socket, place: &str) -> Result<(), CheckError> {
    let seen = Seen {
        link: socket.link(LinkId::Index(end.index))?,
        addresses: socket.addresses()?,
        routes: match end.own_table() {
            None => socket.routes(),
            Some(table) => socket.routes_of_table(table),
        }?,
        rules,
        neighbours: socket.neighbours()?,
    };
    first_difference(end, &seen, place).map_or(Ok(()), |difference| Err(CheckError::Differs(difference)))
}

/// A pod's end that was made before: as a further interface if rules lead to its table.
pub(super) fn pod_end_as(plan: &PodPlan<'_>, index: u32, rules: &[Rule]) -> End {
    let end = pod_end(plan, index);
    if rules.iter().any(|rule| rule.table == index) { end.of_further_interface() } else { end }
}
