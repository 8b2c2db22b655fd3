//! ADD for a pod that another plugin wires: addresses, on record, and nothing else.
//!
//! Such a lease has no link by which the kernel would tell whether the pod lives. It ends with DEL, with GC, or with the
//! node's boot, and with nothing else: the plugin in front promises a DEL, as it does to any IPAM plugin.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dotfour_protocol::{Add, Assigned, PodAddress, Reply};
use ipnet::IpNet;

use super::add::take_back;
use super::left::New;
use super::order::{Leased, Order};
use super::{Left, Node, result, tell};
use crate::caller::Caller;
use crate::errors::AddError;
use crate::metrics::Phase;
use crate::pool::{PodAddresses, Pool};
use crate::wiring::Wirer;
use crate::wiring::names::gateway_for;

/// Carries out an assignment, and answers. If nobody hears the answer, the caller believes that it has failed, and so it
/// does.
pub(super) fn answer(add: Add, caller: &Caller, node: &Node, wirer: &mut Wirer) -> Left {
    let (order, addresses, new) = match assign(add, caller, node) {
        Ok(assigned) => assigned,
        Err(e) => return tell(caller, &Reply::Failed(e.into())),
    };
    caller.phases.enter(Phase::Reply);
    let assigned = Assigned { addresses: on_subnets(addresses, &node.ledger.pool()) };
    let heard = caller.answer(&result::assigned(order.print.as_ref(), assigned));
    let Some(took) = new else { return Left::Nothing };
    let Order { key, pod, started, .. } = order;
    let left = Left::Assigned(New { key: Arc::clone(&key), pod, addresses, took, index: None });
    if heard { left } else { take_back(left, &key, started, node, wirer) }
}

/// The addresses, and how long it took unless they were assigned before.
fn assign(add: Add, caller: &Caller, node: &Node) -> Result<(Order, PodAddresses, Option<Duration>), AddError> {
    let order = Order::take(add, true, caller, node)?;
    let _entered = node.gate.enter(&order.key);
    let begun = Instant::now();
    Ok(match order.lease(caller, node)? {
        Leased::New(addresses) => (order, addresses, Some(begun.elapsed())),
        Leased::Existing(lease) => (order, lease.addresses, None),
    })
}

/// Addresses as they are on their subnets, with the gateways that Azure has there: the subnet's first host for IPv4, and
/// for IPv6 the link-local address that is the same everywhere.
fn on_subnets(addresses: PodAddresses, pool: &Pool) -> Vec<PodAddress> {
    let on_subnet = |address: IpAddr| {
        let subnet = pool.subnet_of(address);
        // What the source reports no more is known of no subnet, and is on its own.
        let length = subnet.map_or_else(|| IpNet::from(address).prefix_len(), |subnet| subnet.prefix_len());
        let gateway = match subnet {
            Some(IpNet::V4(subnet)) => subnet.hosts().next().map(IpAddr::V4),
            _ => None,
        };
        let address = IpNet::new(address, length).unwrap_or_else(|_| IpNet::from(address));
        PodAddress { address, gateway: gateway.unwrap_or_else(|| gateway_for(address.addr())) }
    };
    addresses.iter().map(on_subnet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{PoolAddress, Rest};

    #[test]
    fn an_address_has_its_subnet_s_length_and_gateway() {
        let mut pool = Pool::new(Rest { cooldown: Duration::ZERO, floor: Duration::ZERO });
        let offered = |address: &str, subnet: &str| PoolAddress {
            address: address.parse().unwrap(),
            subnet: subnet.parse().unwrap(),
            nic: 2,
        };
        pool.apply_view(&[
            offered("10.240.0.5", "10.240.0.0/16"),
            offered("10.241.7.70", "10.241.7.64/26"),
            offered("fd00::5", "fd00::/64"),
        ]);
        let said = |addresses: &[&str]| -> Vec<String> {
            let addresses = addresses.iter().map(|address| address.parse::<IpAddr>().unwrap()).collect();
            on_subnets(addresses, &pool).iter().map(|pod| format!("{} via {}", pod.address, pod.gateway)).collect()
        };
        assert_eq!(
            said(&["10.240.0.5", "fd00::5"]),
            ["10.240.0.5/16 via 10.240.0.1", "fd00::5/64 via fe80::1234:5678:9abc"]
        );
        assert_eq!(said(&["10.241.7.70"]), ["10.241.7.70/26 via 10.241.7.65"]);
        assert_eq!(said(&["10.9.0.5"]), ["10.9.0.5/32 via 169.254.1.1"]);
    }
}
