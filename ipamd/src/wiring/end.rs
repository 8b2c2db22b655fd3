//! The pod's end, made: its interface, its addresses, and its way out.
//!
//! The first interface of a pod has the default route. For a further one, which a meta plugin may ask for, or which comes
//! beside another plugin's, the same routes go into a table of its own, and rules lead what its addresses send there:
//! otherwise the answers to what comes in by it would leave by the first interface, with an address that is not that one's.

use dotfour_datapath::address::PrefixRoute;
use dotfour_datapath::link::{LinkChange, LinkId};
use dotfour_datapath::route::IfPresent;
use dotfour_datapath::{Batch, KernelError, Socket};
use rustix::io::Errno;

use super::names::LINK_INDICES;
use super::pod::{Wirer, is_condemned};
use super::shape::End;

/// The step that is refused with `EACCES` where a namespace has IPv6 turned off.
pub(super) const GIVE_ADDRESS: &str = "give the pod its address";
const ROUTE_TO_GATEWAY: &str = "add the pod's route to its gateway";
const DEFAULT_ROUTE: &str = "add the pod's default route";
const LOOK_ACROSS: &str = "look at the host link from the pod";

/// The number by which a namespace knows the first other one that a link of its leads to: the kernel counts from here. A pod's knows
/// the node's by it, unless somebody was there before.
const FIRST_NETNSID: u32 = 0;

impl Wirer {
    /// Makes a pod's end, whose link is there already, and says how: as it was asked for, or as a further interface's. Then
    /// the pair carries packets both ways.
    pub(super) fn make_end(&mut self, far: End, near: &End, inside: &mut Socket) -> Result<End, KernelError> {
        let mut batch = inside.batch();
        if self.ipv6 && !far.has_ipv6() {
            no_link_local(&mut batch, &far);
        }
        interface(&mut batch, &far);
        way_out(&mut batch, &far);
        // See `activate`, which would be one more send; and before the kernel's own worker, woken meanwhile, has begun to do the
        // same, it is done. By the name, for the pod's end has the same index; and another sandbox of the pod may have taken the
        // name by now, so the answer must be of this link.
        batch.get_link_across(LOOK_ACROSS, FIRST_NETNSID, &near.name);
        let far = match inside.run_to_link(batch) {
            Ok(seen) if seen == Some(near.index) => return Ok(far),
            Ok(_) | Err(KernelError::Refused { step: LOOK_ACROSS, .. }) => far,
            Err(e) if is_taken(&e) => self.make_way_out_beside_others(far, inside)?,
            Err(e) => return Err(e),
        };
        self.activate(near.index).map(|()| far)
    }

    /// Makes the way out of a pod in which something had the routes already.
    fn make_way_out_beside_others(&mut self, far: End, inside: &mut Socket) -> Result<End, KernelError> {
        // What has the route may be an interface that a DEL has condemned; the janitor may have deleted it just now, so this tries
        // again whatever is found.
        self.silence_condemned(far.index, inside)?;
        let mut batch = Batch::new();
        take_back(&mut batch, &far);
        way_out(&mut batch, &far);
        match inside.run(batch) {
            Err(e) if is_taken(&e) => {}
            outcome => return outcome.map(|()| far),
        }
        let mut batch = Batch::new();
        take_back(&mut batch, &far);
        let far = far.of_further_interface();
        way_out(&mut batch, &far);
        inside.run(batch).map(|()| far)
    }

    /// Makes the kernel notice that the pair has carrier. It does so by itself only a moment later, and until then the
    /// host link drops what is sent: 2 of 150 first packets when idle, up to a second when busy.
    fn activate(&mut self, index: u32) -> Result<(), KernelError> {
        let mut batch = Batch::new();
        batch.get_link("look at the host link", LinkId::Index(index));
        self.node.run(batch)
    }

    /// Sets all ends of condemned links down, which takes their routes away.
    fn silence_condemned(&mut self, besides: u32, inside: &mut Socket) -> Result<(), KernelError> {
        let mut batch = Batch::new();
        for link in inside.links()? {
            if !LINK_INDICES.contains(&link.index) || link.index == besides || !link.up {
                continue;
            }
            if self.node.link(LinkId::Index(link.index))?.is_none_or(|near| is_condemned(&near)) {
                let down = LinkChange { up: Some(false), ..LinkChange::default() };
                batch.change_link("set a condemned link down", LinkId::Index(link.index), &down);
                batch.tolerate(Errno::NODEV);
            }
        }
        if batch.is_empty() { Ok(()) } else { inside.run(batch) }
    }
}

fn is_taken(error: &KernelError) -> bool {
    matches!(error, KernelError::Refused { step: ROUTE_TO_GATEWAY | DEFAULT_ROUTE, errno: Errno::EXIST })
}

/// A pod without IPv6 addresses gets none by the kernel either: nobody would answer to that one, and to make and announce it takes
/// more than to say this. To be said before the interface is up.
fn no_link_local(batch: &mut Batch, far: &End) {
    let none = LinkChange { ipv6_link_local: Some(false), ..LinkChange::default() };
    batch.change_link("leave the pod's interface without an IPv6 address", LinkId::Index(far.index), &none);
}

fn interface(batch: &mut Batch, far: &End) {
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    batch.change_link("set the pod's interface up", LinkId::Index(far.index), &up);
    for address in &far.addresses {
        batch.add_address(GIVE_ADDRESS, far.index, *address, PrefixRoute::Omit);
        if address.addr().is_ipv6() {
            batch.add_local_route("make the pod's address local at once", far.index, address.addr());
            batch.tolerate(Errno::EXIST);
        }
    }
}

fn way_out(batch: &mut Batch, far: &End) {
    for route in &far.routes {
        let step = if route.gateway.is_some() { DEFAULT_ROUTE } else { ROUTE_TO_GATEWAY };
        match far.own_table() {
            None => batch.add_route(step, route, IfPresent::Refuse),
            Some(table) => batch.add_route_to_table(step, route, table),
        }
    }
    for (address, mac) in &far.neighbours {
        batch.set_neighbour("add the gateway's neighbour entry", far.index, *address, *mac);
    }
    for rule in far.rules() {
        // An interface that had the address before left its rule behind.
        batch.delete_rule("delete a stale rule", rule.source, rule.priority);
        batch.tolerate(Errno::NOENT);
        batch.add_rule("lead the interface's packets to its own routes", &rule);
    }
}

/// Takes back what the main table got of [`way_out`]: the kernel went on after it refused a route.
fn take_back(batch: &mut Batch, far: &End) {
    for route in &far.routes {
        batch.delete_route("take a route back", route);
        batch.tolerate(Errno::SRCH);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dotfour_datapath::Netns;
    use dotfour_datapath::link::{VethEnd, VethPair};

    use super::super::pod::LinkIndices;
    use super::super::pod::tests::{nic, plan_of};
    use super::super::shape::pod_end;
    use super::*;

    #[test]
    fn a_way_out_that_was_taken_a_moment_ago_goes_where_a_first_interface_s_goes() {
        let nic = nic();
        let plan = plan_of("c0ffee", &nic);
        let index = *LINK_INDICES.start();
        let routes = Netns::create().unwrap().run(|| {
            let mut wirer = Wirer::new(Arc::new(LinkIndices::starting_at(0))).unwrap();
            let mut inside = Socket::open().unwrap();
            let far = pod_end(&plan, index);
            let mut batch = Batch::new();
            let near = VethEnd { name: &far.name, mac: Some(far.mac), index: Some(index) };
            let pair =
                VethPair { near, far: VethEnd { name: "other", mac: None, index: None }, far_netns: None, mtu: 1500 };
            batch.create_veth("make a pair", &pair);
            interface(&mut batch, &far);
            inside.run(batch).unwrap();
            // The janitor has deleted what had the routes, and nothing is condemned any more.
            let made = wirer.make_way_out_beside_others(far, &mut inside).unwrap();
            assert_eq!(made.own_table(), None);
            inside.routes().unwrap()
        });
        let routes = routes.unwrap();
        assert!(pod_end(&plan, index).routes.iter().all(|route| routes.contains(route)), "{routes:?}");
    }
}
