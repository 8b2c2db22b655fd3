//! Everybody to everybody, there and back, with a packet as large as the links carry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use dotfour_datapath::Netns;
use dotfour_e2e::program::Failure;

/// The headers of UDP, and of IP below it.
const UDP_HEADER: usize = 8;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// How long one packet may take. All of it is inside one machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// Places that must reach each other.
pub(crate) struct Matrix<'a> {
    places: Vec<(String, &'a Netns, IpAddr)>,
    /// The largest packet. The kernel forbids routers to cut it.
    mtu: usize,
}

impl<'a> Matrix<'a> {
    /// Without places, and with packets of so many bytes.
    pub(crate) fn of_mtu(mtu: usize) -> Self {
        Matrix { places: Vec::new(), mtu }
    }

    /// One more place, with the address by which the others know it.
    pub(crate) fn place(&mut self, name: &str, netns: &'a Netns, address: impl Into<IpAddr>) {
        self.places.push((name.to_owned(), netns, address.into()));
    }

    /// Sends from each to each.
    pub(crate) fn walk(&self) -> Result<(), Failure> {
        for (from, there, source) in &self.places {
            for (to, here, address) in self.places.iter().filter(|(to, ..)| to != from) {
                let seen =
                    there_and_back(there, here, *address, self.mtu).map_err(|e| format!("{from} to {to}: {e}"))?;
                if seen != *source {
                    return Err(format!("{from} is seen by {to} as {seen} and not as {source}").into());
                }
            }
        }
        Ok(())
    }
}

/// The source address that the receiver sees, once the sender has its packet back.
fn there_and_back(from: &Netns, to: &Netns, address: IpAddr, mtu: usize) -> Result<IpAddr, Failure> {
    let (any, header): (IpAddr, usize) = match address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), IPV4_HEADER),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), IPV6_HEADER),
    };
    let largest = mtu - header - UDP_HEADER;
    let receiver = to.run(|| UdpSocket::bind((address, 0)))??;
    let sender = from.run(|| UdpSocket::bind((any, 0)))??;
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
    Ok(seen.ip())
}
