//! The destinations, and whom each is to see.

use std::net::{IpAddr, SocketAddr};

use dotfour_e2e::program::Failure;
use dotfour_rig::azure::WIRESERVER;
use dotfour_rig::probe::Transport::{self, Tcp, Udp};

use self::Sees::{Dropped, Itself, Node, Pod};
use crate::columns::COLUMNS;
use crate::world::{NODE_LOCAL, PORT, SERVICE, World, own};

/// Whom a destination sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sees {
    /// The pod's own address.
    Pod,
    /// The node's own address.
    Node,
    /// Its own address, as with every connection from a machine to itself.
    Itself,
    /// Nobody.
    Dropped,
}

/// How a destination says whom it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// It tells whoever asks.
    Source,
    /// It is the metadata service, which keeps a list.
    Metadata,
    /// It is the wireserver, which keeps one too.
    Wireserver,
}

/// A destination with what is expected of it.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) at: SocketAddr,
    pub(crate) transports: &'static [Transport],
    pub(crate) answers: Answers,
    /// Behind a route table that leads everything to an appliance.
    pub(crate) forced: bool,
    /// Whom it sees if a pod asks, for each column.
    pub(crate) pod: [Sees; COLUMNS],
    /// Whom it sees if a pod on the host's network asks, in any column.
    pub(crate) host: Sees,
}

const BOTH: &[Transport] = &[Tcp, Udp];
const ALWAYS_POD: [Sees; COLUMNS] = [Pod; COLUMNS];
const ALWAYS_NODE: [Sees; COLUMNS] = [Node; COLUMNS];
/// What is private and not of the VNet. Nobody has said anything of IPv6 in the agent's file.
const PRIVATE_V4: [Sees; COLUMNS] = [Pod, Node, Pod, Node, Node];
const PRIVATE_V6: [Sees; COLUMNS] = [Pod, Node, Pod, Pod, Node];

/// All destinations of a world, those behind the forced route last.
pub(crate) fn rows(world: &World) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    let mut row = |name, address: IpAddr, pod| {
        rows.push(Row {
            name,
            at: SocketAddr::new(address, PORT),
            transports: BOTH,
            answers: Answers::Source,
            forced: false,
            pod,
            host: Node,
        });
    };
    let families: [IpAddr; 2] = [[0; 4].into(), [0; 16].into()];
    for family in families {
        let [_, near, far] = &world.pods;
        row("a pod of the same node", near.like(family), ALWAYS_POD);
        row("a pod of another node", far.like(family), ALWAYS_POD);
        row("the node itself", own(&world.nodes[0], family), ALWAYS_POD);
        row("another node", own(&world.nodes[1], family), ALWAYS_POD);
        row("a VM of the subnet", own(&world.vm, family), ALWAYS_POD);
        let private = if family.is_ipv4() { PRIVATE_V4 } else { PRIVATE_V6 };
        for (name, host, pod) in [
            ("a peered VNet", "peered", private),
            ("on-premises", "on-prem", private),
            ("the internet", "internet", ALWAYS_NODE),
        ] {
            let addresses = world.host(host)?.addresses();
            let address = addresses.iter().find(|address| address.is_ipv4() == family.is_ipv4());
            row(name, *address.ok_or("no address of the family")?, pod);
        }
        let [v4, v6] = SERVICE;
        row("a service, to a pod of another node", (if family.is_ipv4() { v4 } else { v6 }).parse()?, ALWAYS_POD);
    }
    row("link-local", world.host("link-local")?.addresses()[0], [Pod, Pod, Pod, Node, Pod]);
    row("NodeLocal DNS, link-local", NODE_LOCAL.parse()?, ALWAYS_POD);
    if let Some(row) = rows.last_mut() {
        row.host = Itself;
    }
    rows.extend(platform()?);
    for host in world.host("internet")?.addresses() {
        rows.push(Row {
            name: "the internet behind a forced route",
            at: SocketAddr::new(*host, PORT),
            transports: BOTH,
            answers: Answers::Source,
            forced: true,
            pod: ALWAYS_NODE,
            host: Node,
        });
    }
    Ok(rows)
}

fn platform() -> Result<Vec<Row>, Failure> {
    let row = |name, address: IpAddr, port, transports, answers, pod| Row {
        name,
        at: SocketAddr::new(address, port),
        transports,
        answers,
        forced: false,
        pod,
        host: Node,
    };
    let wireserver = WIRESERVER.into();
    let closed = [Dropped; COLUMNS];
    let metadata = [Node, Node, Node, Node, Dropped];
    Ok(vec![
        row("instance metadata", "169.254.169.254".parse()?, 80, &[Tcp], Answers::Metadata, metadata),
        row("the wireserver's port 80", wireserver, 80, &[Tcp], Answers::Wireserver, closed),
        row("the wireserver's port 32526", wireserver, 32526, &[Tcp], Answers::Source, closed),
        row("Azure's DNS", wireserver, 53, BOTH, Answers::Source, ALWAYS_NODE),
    ])
}
