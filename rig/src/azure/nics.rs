//! Which address is on which NIC. No IO and no clock: `now` is an argument.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use dotfour_datapath::Mac;
use ipnet::Ipv4Net;

use crate::error::{AddressError, MAX_ADDRESSES_PER_NIC};
use crate::fabric::NicId;

/// The NICs of one subnet.
#[derive(Debug)]
pub struct Nics {
    subnet: Ipv4Net,
    nics: BTreeMap<NicId, Nic>,
    next: u32,
}

/// One NIC. The first address is its primary one.
#[derive(Debug, Clone)]
pub struct Nic {
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses, in the order of its ipConfigurations; the primary one first.
    pub addresses: Vec<Ipv4Addr>,
    /// What the addresses were, and since when; oldest first.
    history: Vec<(Instant, Vec<Ipv4Addr>)>,
}

impl Nic {
    /// The primary address.
    pub fn primary(&self) -> Option<Ipv4Addr> {
        self.addresses.first().copied()
    }

    /// The addresses as they were at `then`; the oldest known if it is before the NIC's time.
    pub fn addresses_at(&self, then: Instant) -> &[Ipv4Addr] {
        let known = self.history.iter().rev().find(|(since, _)| *since <= then).or(self.history.first());
        known.map(|(_, addresses)| addresses.as_slice()).unwrap_or_default()
    }

    fn remember(&mut self, now: Instant) {
        self.history.push((now, self.addresses.clone()));
    }
}

impl Nics {
    /// A subnet without NICs.
    pub fn new(subnet: Ipv4Net) -> Self {
        Nics { subnet, nics: BTreeMap::new(), next: 0 }
    }

    /// The subnet.
    pub fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// The subnet's gateway, its first host address (facts of Azure: `.1`).
    pub fn gateway(&self) -> Ipv4Addr {
        self.nth(1)
    }

    /// Makes a NIC with `secondaries` addresses beside its primary one: the lowest free ones, in order, as Azure gives
    /// dynamic addresses. Its MAC starts like Azure's and is made from the primary address.
    pub fn create(&mut self, secondaries: usize, now: Instant) -> Result<NicId, AddressError> {
        if secondaries >= MAX_ADDRESSES_PER_NIC {
            return Err(AddressError::NicFull);
        }
        let addresses = self.lowest_free(secondaries.saturating_add(1))?;
        let [_, b, c, d] = addresses.first().map(Ipv4Addr::octets).unwrap_or_default();
        let mut nic = Nic { mac: Mac([0x00, 0x0d, 0x3a, b, c, d]), addresses, history: Vec::new() };
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

    /// Adds addresses to a NIC; all of them or none.
    pub fn attach(&mut self, id: NicId, addresses: &[Ipv4Addr], now: Instant) -> Result<(), AddressError> {
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
    pub fn detach(&mut self, id: NicId, addresses: &[Ipv4Addr], now: Instant) -> Result<(), AddressError> {
        let nic = self.nics.get_mut(&id).ok_or(AddressError::NoNic)?;
        for address in addresses {
            if nic.primary() == Some(*address) {
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

    /// The lowest free addresses of the subnet.
    pub fn lowest_free(&self, wanted: usize) -> Result<Vec<Ipv4Addr>, AddressError> {
        let taken: std::collections::BTreeSet<Ipv4Addr> =
            self.nics.values().flat_map(|nic| nic.addresses.iter().copied()).collect();
        let usable = u32::from(self.nth(4))..u32::from(self.subnet.broadcast());
        let free = usable.map(Ipv4Addr::from).filter(|address| !taken.contains(address));
        let found: Vec<Ipv4Addr> = free.take(wanted).collect();
        if found.len() < wanted {
            return Err(AddressError::SubnetFull { subnet: self.subnet, free: found.len(), wanted });
        }
        Ok(found)
    }

    fn check_usable(&self, address: Ipv4Addr) -> Result<(), AddressError> {
        if !self.subnet.contains(&address) {
            return Err(AddressError::NotInSubnet { address, subnet: self.subnet });
        }
        if address < self.nth(4) || address == self.subnet.broadcast() {
            return Err(AddressError::Reserved { address, subnet: self.subnet });
        }
        Ok(())
    }

    fn is_taken(&self, address: Ipv4Addr) -> bool {
        self.nics.values().any(|nic| nic.addresses.contains(&address))
    }

    fn nth(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.subnet.network()).saturating_add(n))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn subnet(text: &str) -> Nics {
        Nics::new(text.parse().unwrap())
    }

    #[test]
    fn the_first_nic_starts_at_the_fifth_address_and_the_next_one_behind_it() {
        let mut nics = subnet("10.240.0.64/26");
        let now = Instant::now();
        let first = nics.create(2, now).unwrap();
        let second = nics.create(0, now).unwrap();
        assert_eq!(nics.get(first).unwrap().addresses, ["10.240.0.68", "10.240.0.69", "10.240.0.70"].map(address));
        assert_eq!(nics.get(second).unwrap().primary(), Some(address("10.240.0.71")));
        assert_eq!(nics.gateway(), address("10.240.0.65"));
        assert_eq!(nics.get(first).unwrap().mac, Mac([0x00, 0x0d, 0x3a, 240, 0, 68]));
    }

    #[test]
    fn what_azure_refuses_is_refused_and_changes_nothing() {
        let mut nics = subnet("10.240.0.0/29");
        let now = Instant::now();
        let nic = nics.create(0, now).unwrap();
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
        assert!(matches!(nics.create(2, now), Err(AddressError::SubnetFull { free: 2, wanted: 3, .. })));
        assert_eq!(nics.get(nic).unwrap().addresses, [address("10.240.0.4")]);
        assert_eq!(subnet("10.240.0.0/16").create(256, now), Err(AddressError::NicFull));
    }

    #[test]
    fn the_past_stays_known() {
        let mut nics = subnet("10.240.0.0/24");
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let nic = nics.create(0, start).unwrap();
        nics.attach(nic, &[address("10.240.0.9")], later(10)).unwrap();
        nics.detach(nic, &[address("10.240.0.9")], later(20)).unwrap();
        let count_at = |seconds| nics.get(nic).unwrap().addresses_at(later(seconds)).len();
        assert_eq!((count_at(0), count_at(9), count_at(10), count_at(19), count_at(20)), (1, 1, 2, 2, 1));
    }
}
