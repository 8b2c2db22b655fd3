//! Everybody to everybody, there and back, with a packet as large as the links carry.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use dotfour_datapath::Netns;
use dotfour_e2e::program::Failure;

/// The headers of IPv4 and UDP.
const HEADERS: usize = 20 + 8;
/// How long one packet may take. All of it is inside one machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// Places that must reach each other.
pub(crate) struct Matrix<'a> {
    places: Vec<(String, &'a Netns, Ipv4Addr)>,
    /// What a packet has room for, behind its headers. The kernel forbids routers to cut it.
    largest: usize,
}

impl<'a> Matrix<'a> {
    /// Without places, and with packets of so many bytes.
    pub(crate) fn of_mtu(mtu: usize) -> Self {
        Matrix { places: Vec::new(), largest: mtu - HEADERS }
    }

    /// One more place, with the address by which the others know it.
    pub(crate) fn place(&mut self, name: &str, netns: &'a Netns, address: Ipv4Addr) {
        self.places.push((name.to_owned(), netns, address));
    }

    /// Sends from each to each.
    pub(crate) fn walk(&self) -> Result<(), Failure> {
        for (from, there, source) in &self.places {
            for (to, here, address) in self.places.iter().filter(|(to, ..)| to != from) {
                let seen =
                    there_and_back(there, here, *address, self.largest).map_err(|e| format!("{from} to {to}: {e}"))?;
                if seen != *source {
                    return Err(format!("{from} is seen by {to} as {seen} and not as {source}").into());
                }
            }
        }
        Ok(())
    }
}

/// The source address that the receiver sees, once the sender has its packet back.
fn there_and_back(from: &Netns, to: &Netns, address: Ipv4Addr, largest: usize) -> Result<Ipv4Addr, Failure> {
    let receiver = to.run(|| UdpSocket::bind((address, 0)))??;
    let sender = from.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    for socket in [&receiver, &sender] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    let mut buffer = vec![7; largest + 1];
    sender.send_to(buffer.get(..largest).unwrap_or_default(), receiver.local_addr()?)?;
    let (length, seen) = receiver.recv_from(&mut buffer)?;
    if length != largest {
        return Err(format!("{length} of {largest} bytes came").into());
    }
    receiver.send_to(buffer.get(..largest).unwrap_or_default(), seen)?;
    sender.recv_from(&mut buffer)?;
    match seen.ip() {
        std::net::IpAddr::V4(seen) => Ok(seen),
        std::net::IpAddr::V6(seen) => Err(format!("a packet from {seen}").into()),
    }
}
