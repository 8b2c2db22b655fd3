//! Wiring one pod: a batch in the node's namespace, a batch in the pod's, and the way back.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dotfour_datapath::link::{Ipv4Setting, Link, LinkChange, LinkId, VethEnd, VethPair};
use dotfour_datapath::netns::open_socket_in;
use dotfour_datapath::route::IfPresent;
use dotfour_datapath::{Batch, KernelError, Memory, Netns, Socket};
use dotfour_protocol::AttachmentKey;
use rustix::io::Errno;
use tracing::{error, warn};

use super::check::pod_end_as;
use super::end::GIVE_ADDRESS;
use super::names::{CONDEMNED_GROUPS, LINK_INDICES, condemned_link, keyed_host_link};
use super::shape::{End, host_route, node_end, pod_end};
use super::tag::Tag;
use crate::metrics::{Phase, Phases};
use crate::nic::Nic;
use crate::pool::{HostLink, PodAddresses};
use crate::sysctl;

/// What a pod is to get.
#[derive(Debug, Clone)]
pub struct PodPlan<'n> {
    /// Whose attachment it is, and its addresses: what the host link's alias will say.
    pub tag: Tag,
    /// The name its host link should have.
    pub host_link: String,
    /// The NIC: both links get its MTU, and the node's own packets to the pod its address.
    pub nic: &'n Nic,
    /// The host link's group: [`super::names::POD_GROUP`], or [`super::names::EXEMPT_GROUP`].
    pub group: u32,
}

/// A wired pod.
#[derive(Debug)]
pub struct Wired {
    /// Its link on the node.
    pub link: HostLink,
    /// The pod's end, as it was made.
    pub pod: End,
    /// A socket inside the pod's namespace. Closing it takes time that nobody needs to wait for, and while it is open it
    /// keeps the namespace alive: to be dropped right after the answer.
    pub leftovers: Socket,
}

/// Why a pod was not wired. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The descriptor that came with the ADD is not a network namespace.
    #[error("the descriptor passed for CNI_NETNS is not a network namespace")]
    NotANamespace(#[source] std::io::Error),
    /// The pod has an interface of that name already, and it is not ours.
    #[error("CNI_IFNAME {ifname:?} exists already in the pod's network namespace")]
    InterfaceTaken {
        /// The interface's name.
        ifname: String,
    },
    /// The key is too long for the link's alias.
    #[error("network name and container id are longer than a link's alias can record")]
    KeyTooLong,
    /// The pod's end is not there, or is another link, although the lease says that the pod is wired.
    #[error("the attachment is wired already, and not to {ifname:?} in this network namespace")]
    OtherNamespace {
        /// The interface's name.
        ifname: String,
    },
    /// The pod's namespace has IPv6 turned off, and it cannot be turned on.
    #[error("IPv6 is turned off in the pod's network namespace, and cannot be turned on")]
    Ipv6Disabled(#[source] std::io::Error),
    /// The kernel refused a step.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// How often an ADD may find a name or an index taken before it gives up.
const ATTEMPTS: u32 = 4;

const CREATE: &str = "create the pod's veth pair";

/// Wires and unwires pods. Each verb thread has its own, with sockets kept open.
#[derive(Debug)]
pub struct Wirer {
    pub(super) node: Socket,
    pub(super) home: Netns,
    /// Whether the kernel knows IPv6: where it was started without, it refuses whatever is said about that.
    pub(super) ipv6: bool,
    indices: Arc<LinkIndices>,
    /// That of the sockets in pods' namespaces, one after the other.
    memory: Memory,
}

/// The interface indexes that our links get, in turn. Shared by all wirers of a daemon.
#[derive(Debug)]
pub struct LinkIndices(AtomicU32);

impl LinkIndices {
    /// Starts at any place in the range. A start drawn at random keeps two daemons' links apart in one namespace.
    pub fn starting_at(seed: u32) -> Self {
        LinkIndices(AtomicU32::new(seed))
    }

    fn next(&self) -> u32 {
        let span = LINK_INDICES.end() - LINK_INDICES.start() + 1;
        LINK_INDICES.start() + self.0.fetch_add(1, Ordering::Relaxed) % span
    }
}

impl Wirer {
    /// A wirer for the calling thread, which must be in the node's namespace and stay there.
    pub fn new(indices: Arc<LinkIndices>) -> std::io::Result<Self> {
        let ipv6 = sysctl::directory().join("ipv6/conf").is_dir();
        Ok(Wirer { node: Socket::open()?, home: Netns::current()?, ipv6, indices, memory: Memory::default() })
    }

    /// Wires a pod. A live link that has to give up its name, because the pod's newest sandbox gets that, is told to
    /// `renamed` at once, with its new name: it stays so, whatever becomes of this pod.
    ///
    /// # Errors
    /// On any error everything that was made is gone again.
    pub fn wire(
        &mut self,
        plan: &PodPlan<'_>,
        netns: BorrowedFd<'_>,
        phases: &Phases,
        mut renamed: impl FnMut(&AttachmentKey, HostLink),
    ) -> Result<Wired, WireError> {
        match self.try_wire(plan, netns, phases, &mut renamed) {
            // Some runtimes turn IPv6 off in every new namespace, and leave it to the network plugin to turn it on.
            Err(WireError::Kernel(KernelError::Refused { step: GIVE_ADDRESS, errno: Errno::ACCESS })) => {
                enable_ipv6(netns).map_err(WireError::Ipv6Disabled)?;
                self.try_wire(plan, netns, phases, &mut renamed)
            }
            outcome => outcome,
        }
    }

    fn try_wire(
        &mut self,
        plan: &PodPlan<'_>,
        netns: BorrowedFd<'_>,
        phases: &Phases,
        mut renamed: impl FnMut(&AttachmentKey, HostLink),
    ) -> Result<Wired, WireError> {
        phases.enter(Phase::HostBatch);
        let mut inside = open_socket_in(netns, &self.home).map_err(WireError::NotANamespace)?;
        inside.swap_memory(&mut self.memory);
        let mut name = plan.host_link.clone();
        let mut attempt = 1;
        let (near, far) = loop {
            let index = self.indices.next();
            let (near, far) = (node_end(plan, name, index), pod_end(plan, index));
            if near.alias.is_none() {
                return Err(WireError::KeyTooLong);
            }
            let batch = host_batch(self.node.batch(), &near, &far, netns, self.ipv6);
            match self.node.run(batch) {
                Ok(()) => break (near, far),
                Err(e) => {
                    self.undo(plan, &near);
                    let taken = matches!(&e, KernelError::Refused { step: CREATE, errno } if *errno == Errno::EXIST);
                    if !taken || attempt == ATTEMPTS {
                        return Err(e.into());
                    }
                }
            }
            attempt += 1;
            // The kernel does not say which name or index was taken, so look.
            self.free_pod_name(&plan.tag.key.ifname, &mut inside)?;
            let freed = self.free_host_name(&near.name, &mut renamed)?;
            // Where many sandboxes of one pod are added at once, each takes the name from the one before. The last attempt
            // is under the name that nobody else wants.
            name = if freed && attempt < ATTEMPTS { near.name } else { keyed_host_link(&plan.tag.key) };
        };
        phases.enter(Phase::PodBatch);
        let far = match self.make_end(far, &near, &mut inside) {
            Ok(far) => far,
            Err(e) => {
                self.undo(plan, &near);
                return Err(e.into());
            }
        };
        inside.swap_memory(&mut self.memory);
        Ok(Wired { link: HostLink { index: near.index, name: near.name }, pod: far, leftovers: inside })
    }

    /// Takes a pod off the network for good: no route of ours leads to it once this returns, and the rules drop what comes
    /// by a condemned link ([`crate::rules`]). The link itself stays, in `group`, for the janitor. It stays up too: to set it
    /// down is half of all that a DEL has to wait for, and where something masquerades, it makes the kernel go through all
    /// connections there are. A link that is gone already is fine.
    pub fn unwire(&mut self, addresses: PodAddresses, link: &HostLink, group: u32) -> Result<(), KernelError> {
        let mut batch = self.node.batch();
        for address in addresses.iter() {
            batch.delete_route("delete the host route", &host_route(address, link.index, None));
            batch.tolerate(Errno::SRCH);
        }
        let change = LinkChange { group: Some(group), ..LinkChange::default() };
        batch.change_link("condemn the host link", LinkId::Index(link.index), &change);
        batch.tolerate(Errno::NODEV);
        self.node.run(batch)
    }

    /// The pod's end of a wired pod, if it is in this namespace under its interface's name.
    pub fn confirm(&mut self, plan: &PodPlan<'_>, link: &HostLink, netns: BorrowedFd<'_>) -> Result<End, WireError> {
        let ifname = &plan.tag.key.ifname;
        let mut inside = open_socket_in(netns, &self.home).map_err(WireError::NotANamespace)?;
        match inside.link(LinkId::Name(ifname))? {
            // Both ends have the same index, and it is drawn from a range that is ours.
            Some(found) if found.index == link.index => Ok(pod_end_as(plan, link.index, &inside.rules()?)),
            _ => Err(WireError::OtherNamespace { ifname: ifname.clone() }),
        }
    }

    /// Whether a link with this index is there.
    pub fn has_link(&mut self, index: u32) -> Result<bool, KernelError> {
        Ok(self.node.link(LinkId::Index(index))?.is_some())
    }

    /// Removes what a failed attempt may have left. A batch is no transaction: if the index was a stranger's, route and
    /// neighbour went onto the stranger's link, and nothing else of that link may be touched.
    fn undo(&mut self, plan: &PodPlan<'_>, near: &End) {
        let index = near.index;
        match self.node.link(LinkId::Index(index)) {
            Ok(None) => {}
            // Another sandbox of the pod may have taken its name meanwhile.
            Ok(Some(link)) if [near.name.as_str(), &keyed_host_link(&plan.tag.key)].contains(&link.name.as_str()) => {
                let mut batch = Batch::new();
                batch.delete_link("delete the link of a failed ADD", LinkId::Index(index));
                batch.tolerate(Errno::NODEV);
                self.report(batch);
            }
            Ok(Some(stranger)) => {
                error!(index, stranger = stranger.name, "the index of a new link was taken; removing our marks");
                let mut batch = Batch::new();
                for address in plan.tag.addresses.iter() {
                    batch.delete_route("delete a stray route", &host_route(address, index, None));
                    batch.tolerate(Errno::SRCH);
                    batch.delete_neighbour("delete a stray neighbour", index, address);
                    batch.tolerate(Errno::NOENT);
                }
                let no_alias = LinkChange { alias: Some(""), ..LinkChange::default() };
                batch.change_link("clear a stray alias", LinkId::Index(index), &no_alias);
                self.report(batch);
            }
            Err(e) => error!(index, "cannot look for leftovers of a failed ADD: {e}"),
        }
    }

    fn report(&mut self, batch: Batch) {
        if let Err(e) = self.node.run(batch) {
            error!("a failed ADD left something behind: {e}");
        }
    }

    /// Makes the interface name in the pod available, if what has it is the end of a condemned link.
    fn free_pod_name(&mut self, ifname: &str, inside: &mut Socket) -> Result<(), WireError> {
        let Some(found) = inside.link(LinkId::Name(ifname))? else { return Ok(()) };
        let taken = || Err(WireError::InterfaceTaken { ifname: ifname.to_owned() });
        if !LINK_INDICES.contains(&found.index) {
            return taken();
        }
        match self.node.link(LinkId::Index(found.index))? {
            Some(link) if is_condemned(&link) => {}
            // The janitor has deleted the pair between the two looks.
            None if inside.link(LinkId::Index(found.index))?.is_none() => return Ok(()),
            _ => return taken(),
        }
        rename(inside, found.index, &condemned_link(found.index))?;
        Ok(())
    }

    /// Makes the name of a host link available, if a link of ours has it. A live one is an older sandbox's of the same
    /// pod; it goes on under the name of its key. False if somebody keeps the name.
    fn free_host_name(
        &mut self,
        name: &str,
        renamed: impl FnOnce(&AttachmentKey, HostLink),
    ) -> Result<bool, KernelError> {
        let Some(found) = self.node.link(LinkId::Name(name))? else { return Ok(true) };
        if is_condemned(&found) {
            rename(&mut self.node, found.index, &condemned_link(found.index))?;
            return Ok(true);
        }
        if found.alias.is_none() && LINK_INDICES.contains(&found.index) {
            // Another call is making it, and tags it in the same send. Then it can be renamed.
            return Ok(true);
        }
        let Some(Ok(tag)) = found.alias.as_deref().map(str::parse::<Tag>) else {
            warn!(link = name, "somebody else's link has the pod's link name; using a name made from the container id");
            return Ok(false);
        };
        let new_name = keyed_host_link(&tag.key);
        let mut batch = Batch::new();
        let change = LinkChange { name: Some(&new_name), ..LinkChange::default() };
        batch.change_link("rename the older sandbox's link", LinkId::Index(found.index), &change);
        match self.node.run(batch) {
            Ok(()) => {
                renamed(&tag.key, HostLink { index: found.index, name: new_name });
                Ok(true)
            }
            // Kernels before 6.2 do not rename a link that is up, and setting it down would cut the pod off. And a condemned link
            // of the same key may have the name.
            Err(e) if matches!(e.errno(), Some(Errno::BUSY | Errno::EXIST)) => Ok(false),
            // Its pod's namespace died just now.
            Err(e) if e.errno() == Some(Errno::NODEV) => Ok(true),
            Err(e) => Err(e),
        }
    }
}

/// Lets the links of a pod's namespace have IPv6 addresses.
fn enable_ipv6(netns: BorrowedFd<'_>) -> std::io::Result<()> {
    let write =
        |links: &str| std::fs::write(sysctl::directory().join("ipv6/conf").join(links).join("disable_ipv6"), "0");
    Netns::from(netns.try_clone_to_owned()?).run(|| write("all").and_then(|()| write("default")))?
}

/// Renames a link that carries no traffic. Older kernels want it down for that.
fn rename(socket: &mut Socket, index: u32, name: &str) -> Result<(), KernelError> {
    let mut batch = Batch::new();
    let down = LinkChange { up: Some(false), ..LinkChange::default() };
    batch.change_link("set a condemned link down", LinkId::Index(index), &down);
    batch.tolerate(Errno::NODEV);
    let renamed = LinkChange { name: Some(name), ..LinkChange::default() };
    batch.change_link("rename a condemned link", LinkId::Index(index), &renamed);
    // The janitor was quicker.
    batch.tolerate(Errno::NODEV);
    socket.run(batch)
}

pub(super) fn is_condemned(link: &Link) -> bool {
    CONDEMNED_GROUPS.contains(&link.group)
}

/// The node's half: the pair, born with its far end in the pod, its tag, the route to the pod, the pod's neighbour entry.
fn host_batch(mut batch: Batch, near: &End, far: &End, netns: BorrowedFd<'_>, ipv6: bool) -> Batch {
    let pair = VethPair { near: veth_end(near), far: veth_end(far), far_netns: Some(netns), mtu: near.mtu };
    batch.create_veth(CREATE, &pair);
    // The kernel ignores an alias, and refuses settings, in the create message itself.
    batch.change_link("tag the host link", LinkId::Index(near.index), &host_link_settings(near, ipv6));
    for route in &near.routes {
        batch.add_route("add the host route", route, IfPresent::Refuse);
    }
    for (address, mac) in &near.neighbours {
        batch.set_neighbour("add the pod's neighbour entry", near.index, *address, *mac);
    }
    batch
}

fn host_link_settings(near: &End, ipv6: bool) -> LinkChange<'_> {
    LinkChange {
        alias: near.alias.as_deref(),
        group: Some(near.group),
        ipv4: &[(Ipv4Setting::ProxyArp, 1)],
        // Nobody talks to the host link itself, so it needs no address, and making one takes time.
        ipv6_link_local: ipv6.then_some(false),
        ..LinkChange::default()
    }
}

fn veth_end(end: &End) -> VethEnd<'_> {
    VethEnd { name: &end.name, mac: Some(end.mac), index: Some(end.index) }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::IpAddr;
    use std::os::fd::AsFd;

    use dotfour_datapath::address::PrefixRoute;
    use ipnet::IpNet;

    use super::*;

    pub(in crate::wiring) fn nic() -> Nic {
        Nic { index: 2, name: "eth0".into(), mtu: 1500, address: "10.240.0.4".parse().unwrap(), address_v6: None }
    }

    /// What a container is to get, whose pod's name is the same for all.
    pub(in crate::wiring) fn plan_of<'n>(container_id: &str, nic: &'n Nic) -> PodPlan<'n> {
        let key = AttachmentKey { network: "azure".into(), container_id: container_id.into(), ifname: "eth0".into() };
        let addresses = "10.240.0.5".parse::<IpAddr>().unwrap().into();
        PodPlan { tag: Tag { key: Arc::new(key), addresses }, host_link: "azv1".into(), nic, group: 0 }
    }

    #[test]
    fn what_a_failed_add_made_is_deleted_also_under_the_name_that_another_sandbox_gave_it_and_a_stranger_s_link_is_not()
    {
        let nic = nic();
        let plan = plan_of("c0ffee", &nic);
        let keyed = keyed_host_link(&plan.tag.key);
        let names = [("azv1", false), (&*keyed, false), ("stranger", true)];
        for ((name, stays), index) in names.into_iter().zip(*LINK_INDICES.start()..) {
            let there = Netns::create().unwrap().run(|| {
                let mut wirer = Wirer::new(Arc::new(LinkIndices::starting_at(0))).unwrap();
                let mut batch = Batch::new();
                let near = VethEnd { name, mac: None, index: Some(index) };
                let far = VethEnd { name: "far", mac: None, index: None };
                batch.create_veth("make a pair", &VethPair { near, far, far_netns: None, mtu: 1500 });
                wirer.node.run(batch).unwrap();
                wirer.undo(&plan, &node_end(&plan, plan.host_link.clone(), index));
                wirer.node.link(LinkId::Index(index)).unwrap().is_some()
            });
            assert_eq!(there.unwrap(), stays, "{name}");
        }
    }

    #[test]
    fn a_kernel_that_was_started_without_ipv6_is_told_nothing_of_it() {
        let nic = nic();
        let plan = plan_of("c0ffee", &nic);
        let near = node_end(&plan, plan.host_link.clone(), 7);
        assert_eq!(host_link_settings(&near, true).ipv6_link_local, Some(false));
        assert_eq!(host_link_settings(&near, false).ipv6_link_local, None);
        assert!(host_link_settings(&near, false).alias.is_some());
    }

    /// A pair with one end of this name and index, and with an alias or none, in the thread's namespace.
    fn make_pair(wirer: &mut Wirer, name: &str, index: u32, alias: Option<&str>) {
        let mut batch = Batch::new();
        let near = VethEnd { name, mac: None, index: Some(index) };
        let far_name = format!("far{index:x}");
        let far = VethEnd { name: &far_name, mac: None, index: None };
        batch.create_veth("make a pair", &VethPair { near, far, far_netns: None, mtu: 1500 });
        batch.change_link("tag it", LinkId::Index(index), &LinkChange { alias, ..LinkChange::default() });
        wirer.node.run(batch).unwrap();
    }

    #[test]
    fn a_link_that_is_not_tagged_yet_is_ours_and_one_whose_own_name_is_taken_keeps_the_other() {
        let nic = nic();
        let (older, newer) = (plan_of("older", &nic), plan_of("newer", &nic));
        let index = *LINK_INDICES.start();
        let outcome = Netns::create().unwrap().run(|| {
            let mut wirer = Wirer::new(Arc::new(LinkIndices::starting_at(0))).unwrap();
            let nobody = |_: &AttachmentKey, _| panic!("nothing was renamed");
            make_pair(&mut wirer, "azv1", index, None);
            let untagged = wirer.free_host_name("azv1", nobody).unwrap();
            make_pair(&mut wirer, "azv2", 7, None);
            let stranger = wirer.free_host_name("azv2", nobody).unwrap();
            make_pair(&mut wirer, &newer.host_link.replace('1', "3"), index + 1, Some(&older.tag.to_string()));
            make_pair(&mut wirer, &keyed_host_link(&older.tag.key), index + 2, Some("condemned"));
            let taken = wirer.free_host_name("azv3", nobody).unwrap();
            (untagged, stranger, taken)
        });
        assert_eq!(outcome.unwrap(), (true, false, false));
    }

    #[test]
    fn check_bears_the_name_that_a_newer_sandbox_gives_and_no_other() {
        let nic = nic();
        let plan = plan_of("older", &nic);
        let (node, pod) = (Netns::create().unwrap(), Netns::create().unwrap());
        let outcomes = node.run(|| {
            let mut wirer = Wirer::new(Arc::new(LinkIndices::starting_at(0))).unwrap();
            let mut batch = Batch::new();
            let up = LinkChange { up: Some(true), ..LinkChange::default() };
            batch.change_link("set lo up", LinkId::Index(1), &up);
            // What the route to the pod has as its source.
            batch.add_address("the node's address", 1, IpNet::from(IpAddr::from(nic.address)), PrefixRoute::Omit);
            wirer.node.run(batch).unwrap();
            let wired = wirer.wire(&plan, pod.as_fd(), &Phases::accepted(), |_, _| {}).unwrap();
            let names = ["azv1", &keyed_host_link(&plan.tag.key), "other"];
            names.map(|name| {
                let mut batch = Batch::new();
                let change = LinkChange { name: Some(name), ..LinkChange::default() };
                batch.change_link("rename it", LinkId::Index(wired.link.index), &change);
                wirer.node.run(batch).unwrap();
                wirer.check(&plan, &wired.link, pod.as_fd()).map_err(|e| e.to_string())
            })
        });
        let [as_made, renamed, other] = outcomes.unwrap();
        assert_eq!((as_made, renamed), (Ok(()), Ok(())));
        assert!(other.unwrap_err().contains("has the name other"));
    }
}
