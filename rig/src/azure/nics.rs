//! Which address is on which NIC. No IO and no clock: `now` is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use dotfour_datapath::Mac;
use ipnet::IpNet;

use super::subnet::{Subnet, is_reserved, usable};
use crate::error::{AddressError, MAX_ADDRESSES_PER_NIC};
use crate::fabric::NicId;

/// The NICs of one subnet.
#[derive(Debug)]
pub struct Nics {
    subnet: Subnet,
    nics: BTreeMap<NicId, Nic>,
    next: u32,
}

/// One NIC. The first address is its primary one, which is IPv4: Azure has no NIC with IPv6 alone.
#[derive(Debug, Clone)]
pub struct Nic {
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses, in the order of its ipConfigurations; the primary one first.
    pub addresses: Vec<IpAddr>,
    /// What the addresses were, and since when; oldest first.
    history: Vec<(Instant, Vec<IpAddr>)>,
}

impl Nic {
    /// The primary address.
    pub fn primary(&self) -> Option<Ipv4Addr> {
        self.ipv4().next()
    }

    /// The node's own IPv6 address: the first one. Azure marks it nowhere.
    pub fn own_ipv6(&self) -> Option<Ipv6Addr> {
        self.ipv6().next()
    }

    /// Its IPv4 addresses, the primary one first.
    pub fn ipv4(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.iter().filter_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        })
    }

    /// Its IPv6 addresses, the node's own first.
    pub fn ipv6(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.addresses.iter().filter_map(|address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(*v6),
        })
    }

    /// The addresses as they were at `then`; the oldest known if it is before the NIC's time.
    pub fn addresses_at(&self, then: Instant) -> &[IpAddr] {
        let known = self.history.iter().rev().find(|(since, _)| *since <= then).or(self.history.first());
        known.map(|(_, addresses)| addresses.as_slice()).unwrap_or_default()
    }

    fn remember(&mut self, now: Instant) {
        self.history.push((now, self.addresses.clone()));
    }
}

impl Nics {
    /// A subnet without NICs.
    pub fn new(subnet: Subnet) -> Self {
        Nics { subnet, nics: BTreeMap::new(), next: 0 }
    }

    /// The subnet.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Makes a NIC with `secondaries` IPv4 addresses beside its primary one, and if `ipv6_secondaries` is given, that many
    /// IPv6 addresses beside the node's own: the lowest free ones, in order, as Azure gives dynamic addresses. Its MAC
    /// starts like Azure's and is made from the primary address.
    pub fn create(
        &mut self,
        secondaries: usize,
        ipv6_secondaries: Option<usize>,
        now: Instant,
    ) -> Result<NicId, AddressError> {
        let wanted_v6 = ipv6_secondaries.map_or(0, |secondaries| secondaries.saturating_add(1));
        if secondaries.saturating_add(wanted_v6) >= MAX_ADDRESSES_PER_NIC {
            return Err(AddressError::NicFull);
        }
        let mut addresses = self.lowest_free(IpNet::V4(self.subnet.ipv4()), secondaries.saturating_add(1))?;
        if wanted_v6 > 0 {
            let range = self.subnet.ipv6().ok_or(AddressError::NoIpv6)?;
            addresses.extend(self.lowest_free(IpNet::V6(range), wanted_v6)?);
        }
        let mut nic = Nic { mac: Mac([0; 6]), addresses, history: Vec::new() };
        let [_, b, c, d] = nic.primary().unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
        nic.mac = Mac([0x00, 0x0d, 0x3a, b, c, d]);
        nic.remember(now);
        let id = NicId(self.next);
        self.next = self.next.saturating_add(1);
        self.nics.insert(id, nic);
        Ok(id)
    }

    /// Forgets a NIC; its addresses are free again.
    pub fn remove(&mut self, id: NicId) -> Result<(), AddressError> {
        self.nics.remove(&id).map(drop).ok_or(AddressError::NoNic)
    }

    /// One NIC.
    pub fn get(&self, id: NicId) -> Result<&Nic, AddressError> {
        self.nics.get(&id).ok_or(AddressError::NoNic)
    }

    /// The NIC with this primary address.
    pub fn with_primary(&self, address: Ipv4Addr) -> Option<&Nic> {
        self.nics.values().find(|nic| nic.primary() == Some(address))
    }

    /// The NIC that has this address, primary or not.
    pub fn with_address(&self, address: IpAddr) -> Option<NicId> {
        self.nics.iter().find(|(_, nic)| nic.addresses.contains(&address)).map(|(id, _)| *id)
    }

    /// Adds addresses to a NIC; all of them or none.
    pub fn attach(&mut self, id: NicId, addresses: &[IpAddr], now: Instant) -> Result<(), AddressError> {
        for (i, address) in addresses.iter().enumerate() {
            self.check_usable(*address)?;
            if self.is_taken(*address) || addresses.iter().take(i).any(|earlier| earlier == address) {
                return Err(AddressError::Taken(*address));
            }
        }
        let nic = self.nics.get_mut(&id).ok_or(AddressError::NoNic)?;
        if nic.addresses.len().saturating_add(addresses.len()) > MAX_ADDRESSES_PER_NIC {
            return Err(AddressError::NicFull);
        }
        nic.addresses.extend(addresses);
        nic.remember(now);
        Ok(())
    }

    /// Removes addresses from a NIC; all of them or none.
    pub fn detach(&mut self, id: NicId, addresses: &[IpAddr], now: Instant) -> Result<(), AddressError> {
        let nic = self.nics.get_mut(&id).ok_or(AddressError::NoNic)?;
        for address in addresses {
            if nic.addresses.first() == Some(address) {
                return Err(AddressError::Primary(*address));
            }
            if !nic.addresses.contains(address) {
                return Err(AddressError::NotAttached(*address));
            }
        }
        nic.addresses.retain(|address| !addresses.contains(address));
        nic.remember(now);
        Ok(())
    }

    /// The lowest free addresses of one of the subnet's ranges.
    pub fn lowest_free(&self, range: IpNet, wanted: usize) -> Result<Vec<IpAddr>, AddressError> {
        let taken: BTreeSet<IpAddr> = self.nics.values().flat_map(|nic| nic.addresses.iter().copied()).collect();
        let found: Vec<IpAddr> = usable(range).filter(|address| !taken.contains(address)).take(wanted).collect();
        if found.len() < wanted {
            return Err(AddressError::SubnetFull { subnet: range, free: found.len(), wanted });
        }
        Ok(found)
    }

    fn check_usable(&self, address: IpAddr) -> Result<(), AddressError> {
        let outside = || AddressError::NotInSubnet { address, subnet: self.subnet };
        let range = self.subnet.range_of(address).ok_or_else(outside)?;
        if is_reserved(range, address) {
            return Err(AddressError::Reserved { address, subnet: range });
        }
        Ok(())
    }

    fn is_taken(&self, address: IpAddr) -> bool {
        self.nics.values().any(|nic| nic.addresses.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn subnet(text: &str) -> Nics {
        Nics::new(text.parse().unwrap())
    }

    #[test]
    fn the_first_nic_starts_at_the_fifth_address_and_the_next_one_behind_it() {
        let mut nics = subnet("10.240.0.64/26");
        let now = Instant::now();
        let first = nics.create(2, None, now).unwrap();
        let second = nics.create(0, None, now).unwrap();
        assert_eq!(nics.get(first).unwrap().addresses, ["10.240.0.68", "10.240.0.69", "10.240.0.70"].map(address));
        assert_eq!(nics.get(second).unwrap().primary(), Some(Ipv4Addr::new(10, 240, 0, 71)));
        assert_eq!(nics.subnet().gateway(), Ipv4Addr::new(10, 240, 0, 65));
        assert_eq!(nics.get(first).unwrap().mac, Mac([0x00, 0x0d, 0x3a, 240, 0, 68]));
    }

    #[test]
    fn what_azure_refuses_is_refused_and_changes_nothing() {
        let mut nics = subnet("10.240.0.0/29");
        let now = Instant::now();
        let nic = nics.create(0, None, now).unwrap();
        let try_attach = |nics: &mut Nics, list: &[&str]| {
            nics.attach(nic, &list.iter().map(|text| address(text)).collect::<Vec<_>>(), now).unwrap_err()
        };
        assert!(matches!(try_attach(&mut nics, &["10.241.0.5"]), AddressError::NotInSubnet { .. }));
        for reserved in ["10.240.0.0", "10.240.0.1", "10.240.0.2", "10.240.0.3", "10.240.0.7"] {
            assert!(matches!(try_attach(&mut nics, &["10.240.0.5", reserved]), AddressError::Reserved { .. }));
        }
        assert_eq!(try_attach(&mut nics, &["10.240.0.4"]), AddressError::Taken(address("10.240.0.4")));
        assert_eq!(try_attach(&mut nics, &["10.240.0.5", "10.240.0.5"]), AddressError::Taken(address("10.240.0.5")));
        assert_eq!(nics.detach(nic, &[address("10.240.0.4")], now), Err(AddressError::Primary(address("10.240.0.4"))));
        assert!(matches!(nics.create(2, None, now), Err(AddressError::SubnetFull { free: 2, wanted: 3, .. })));
        assert_eq!(nics.get(nic).unwrap().addresses, [address("10.240.0.4")]);
        assert_eq!(subnet("10.240.0.0/16").create(256, None, now), Err(AddressError::NicFull));
    }

    #[test]
    fn a_nic_has_ipv6_beside_ipv4_if_the_subnet_has() {
        let now = Instant::now();
        let mut nics = subnet("10.240.0.0/24,fd00::/64");
        let plain = nics.create(1, None, now).unwrap();
        let both = nics.create(1, Some(2), now).unwrap();
        assert_eq!(nics.get(plain).unwrap().own_ipv6(), None);
        let both_addresses = ["10.240.0.6", "10.240.0.7", "fd00::4", "fd00::5", "fd00::6"].map(address);
        assert_eq!(nics.get(both).unwrap().addresses, both_addresses);
        nics.attach(plain, &[address("fd00::9")], now).unwrap();
        assert_eq!(nics.attach(both, &[address("fd00::9")], now), Err(AddressError::Taken(address("fd00::9"))));
        let refused = nics.attach(both, &[address("fd00::1")], now);
        assert!(matches!(refused, Err(AddressError::Reserved { .. })), "{refused:?}");
        assert!(matches!(nics.attach(both, &[address("fd01::9")], now), Err(AddressError::NotInSubnet { .. })));
        // A NIC's limit is one for both families.
        assert_eq!(nics.create(127, Some(128), now), Err(AddressError::NicFull));
        assert_eq!(subnet("10.240.0.0/24").create(1, Some(0), now), Err(AddressError::NoIpv6));
    }

    #[test]
    fn the_past_stays_known() {
        let mut nics = subnet("10.240.0.0/24");
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let nic = nics.create(0, None, start).unwrap();
        nics.attach(nic, &[address("10.240.0.9")], later(10)).unwrap();
        nics.detach(nic, &[address("10.240.0.9")], later(20)).unwrap();
        let count_at = |seconds| nics.get(nic).unwrap().addresses_at(later(seconds)).len();
        assert_eq!((count_at(0), count_at(9), count_at(10), count_at(19), count_at(20)), (1, 1, 2, 2, 1));
    }
}
