//! What a wired pod consists of, in one place: ADD makes it, CHECK compares with it. Pure.

use std::fmt;
use std::net::IpAddr;

use dotfour_datapath::Mac;
use dotfour_datapath::address::LinkAddress;
use dotfour_datapath::link::Link;
use dotfour_datapath::neighbour::Neighbour;
use dotfour_datapath::route::Route;
use dotfour_datapath::rule::Rule;
use ipnet::IpNet;

use super::names::{CONDEMNED_GROUPS, EXEMPT_GROUP, HOST_MAC, ROUTE_PROTOCOL, RULE_PRIORITY, gateway_for, pod_mac};
use super::pod::PodPlan;

/// One end of a pod's pair, with all that is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Interface name.
    pub name: String,
    /// Interface index, the same on both ends.
    pub index: u32,
    /// MAC address.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: u32,
    /// Alias; only the node's end has one.
    pub alias: Option<String>,
    /// Group; the pod's end is in the default one, 0.
    pub group: u32,
    /// Addresses; only the pod's end has some.
    pub addresses: Vec<IpNet>,
    /// Routes that leave by it.
    pub routes: Vec<Route>,
    /// Permanent neighbour entries on it.
    pub neighbours: Vec<(IpAddr, Mac)>,
    /// Whether its routes are in a table of its own, to which rules lead from its addresses.
    pub further: bool,
}

impl End {
    /// This end of a pod as it is where another interface has the pod's default route: what is sent from its addresses
    /// leaves by it all the same, by way of a table that has the number of the link.
    pub fn of_further_interface(self) -> Self {
        End { further: true, ..self }
    }

    /// Whether it has an IPv6 address.
    pub fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(|address| address.addr().is_ipv6())
    }

    /// The table its routes are in, where that is not the main one.
    pub fn own_table(&self) -> Option<u32> {
        self.further.then_some(self.index)
    }

    /// The rules that lead to its own table.
    pub fn rules(&self) -> impl Iterator<Item = Rule> {
        let rule = |table, address: &IpNet| Rule {
            source: address.addr(),
            table,
            priority: RULE_PRIORITY,
            protocol: ROUTE_PROTOCOL,
        };
        self.own_table().into_iter().flat_map(move |table| self.addresses.iter().map(move |a| rule(table, a)))
    }
}

/// The node's end of a pod's pair, under the name it has: the route to the pod, and the pod's neighbour entry.
pub fn node_end(plan: &PodPlan<'_>, name: String, index: u32) -> End {
    let mac = pod_mac(plan.tag.addresses);
    let route = |address| host_route(address, index, plan.nic.own_address_for(address));
    End {
        name,
        index,
        mac: HOST_MAC,
        mtu: plan.nic.mtu,
        alias: plan.tag.to_alias(),
        group: plan.group,
        addresses: Vec::new(),
        routes: plan.tag.addresses.iter().map(route).collect(),
        neighbours: plan.tag.addresses.iter().map(|address| (address, mac)).collect(),
        further: false,
    }
}

/// The pod's end: its addresses, and its way out by each of them.
pub fn pod_end(plan: &PodPlan<'_>, index: u32) -> End {
    let route = |destination, gateway| Route {
        destination,
        gateway,
        link: index,
        preferred_source: None,
        protocol: ROUTE_PROTOCOL,
    };
    // In this order: the second needs the first.
    let way_out = |address: IpAddr| {
        let gateway = gateway_for(address);
        [route(gateway.into(), None), route(everywhere(address), Some(gateway))]
    };
    End {
        name: plan.tag.key.ifname.clone(),
        index,
        mac: pod_mac(plan.tag.addresses),
        mtu: plan.nic.mtu,
        alias: None,
        group: 0,
        addresses: plan.tag.addresses.iter().map(IpNet::from).collect(),
        routes: plan.tag.addresses.iter().flat_map(way_out).collect(),
        neighbours: plan.tag.addresses.iter().map(|address| (gateway_for(address), HOST_MAC)).collect(),
        further: false,
    }
}

/// The destination that is everywhere in an address's family.
fn everywhere(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => ipnet::Ipv4Net::default().into(),
        IpAddr::V6(_) => ipnet::Ipv6Net::default().into(),
    }
}

/// The node's route to a pod.
pub fn host_route(address: IpAddr, link: u32, preferred_source: Option<IpAddr>) -> Route {
    Route { destination: address.into(), gateway: None, link, preferred_source, protocol: ROUTE_PROTOCOL }
}

/// What a namespace holds.
#[derive(Debug, Default)]
pub struct Seen {
    /// The link of the end's index.
    pub link: Option<Link>,
    /// All addresses.
    pub addresses: Vec<LinkAddress>,
    /// All routes of the table that the end's are in.
    pub routes: Vec<Route>,
    /// All rules for single addresses.
    pub rules: Vec<Rule>,
    /// All neighbour entries.
    pub neighbours: Vec<Neighbour>,
}

/// Something that is not as ADD made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What differs: what should be, and what is.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// The first thing that is missing or other than it should be. What others have added is theirs: a chained plugin may
/// add routes and addresses. `place` says which namespace it is, in words.
pub fn first_difference(end: &End, seen: &Seen, place: &str) -> Option<Difference> {
    let name = &end.name;
    let differs = |what: String, fix: String| Some(Difference { what: format!("{what} in {place}"), fix });
    let recreate = || "delete the pod, and let it be made again".to_owned();
    let run = |command: String| format!("in {place}, run: ip {command}");

    let Some(link) = &seen.link else { return differs(format!("the link {name} is missing"), recreate()) };
    if CONDEMNED_GROUPS.contains(&link.group) {
        return differs(format!("the link {name} is condemned"), recreate());
    }
    // Other groups are others' business.
    if (link.group == EXEMPT_GROUP) != (end.group == EXEMPT_GROUP) {
        let what = format!("the group of the link {name} is {} and not {}", link.group, end.group);
        return differs(what, run(format!("link set {name} group {}", end.group)));
    }
    if link.name != *name {
        return differs(format!("the link {name} has the name {}", link.name), recreate());
    }
    if !link.up {
        return differs(format!("the link {name} is down"), run(format!("link set {name} up")));
    }
    if link.mac != Some(end.mac) {
        let is = link.mac.map_or("none".to_owned(), |mac| mac.to_string());
        let fix = run(format!("link set {name} address {}", end.mac));
        return differs(format!("the MAC address of {name} is {is} and not {}", end.mac), fix);
    }
    // A plugin behind may lower the MTU of the pod's end (`tuning` does), and CHECK has to bear that.
    let lowered_behind = end.alias.is_none() && link.mtu < end.mtu;
    if link.mtu != end.mtu && !lowered_behind {
        let fix = run(format!("link set {name} mtu {}", end.mtu));
        return differs(format!("the MTU of {name} is {} and not {}", link.mtu, end.mtu), fix);
    }
    if end.alias.is_some() && link.alias != end.alias {
        return differs(format!("the alias of {name} is not the one that the daemon gave it"), recreate());
    }
    for address in &end.addresses {
        if !seen.addresses.iter().any(|found| found.link == end.index && found.address == *address) {
            let fix = run(format!("address add {address} dev {name} noprefixroute"));
            return differs(format!("the address {address} of {name} is missing"), fix);
        }
    }
    for route in &end.routes {
        if !seen.routes.contains(route) {
            let table = end.own_table().map(|table| format!(" table {table}")).unwrap_or_default();
            let words = route_in_words(route, name) + &table;
            return differs(format!("the route {words} is missing"), run(format!("route replace {words}")));
        }
    }
    for rule in end.rules() {
        if !seen.rules.contains(&rule) {
            let Rule { source, table, priority, protocol } = rule;
            let words = format!("from {source} lookup {table} priority {priority} protocol {protocol}");
            let family = if source.is_ipv4() { "-4" } else { "-6" };
            return differs(format!("the rule {words} is missing"), run(format!("{family} rule add {words}")));
        }
    }
    for (address, mac) in &end.neighbours {
        let is_it = |found: &Neighbour| {
            found.link == end.index && found.address == *address && found.permanent && found.mac == Some(*mac)
        };
        if !seen.neighbours.iter().any(is_it) {
            let words = format!("{address} lladdr {mac} dev {name} nud permanent");
            return differs(
                format!("the neighbour entry {words} is missing"),
                run(format!("neighbour replace {words}")),
            );
        }
    }
    None
}

/// As `ip route` has it.
fn route_in_words(route: &Route, link: &str) -> String {
    let mut words = route.destination.to_string();
    if let Some(gateway) = route.gateway {
        words += &format!(" via {gateway}");
    }
    words += &format!(" dev {link} proto {}", route.protocol);
    if let Some(source) = route.preferred_source {
        words += &format!(" src {source}");
    }
    words
}

#[cfg(test)]
mod tests;
