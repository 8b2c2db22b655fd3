//! ICMP echo over raw sockets, of IPv4 (RFC 792) and IPv6 (RFC 4443).

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use dotfour_datapath::Netns;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recvfrom, sendto, socket_with,
};

use super::checksum::{checksum, icmpv6_checksum};

/// Message types: request and reply.
const ECHO_V4: (u8, u8) = (8, 0);
const ECHO_V6: (u8, u8) = (128, 129);
/// As much as `ping` sends.
const PAYLOAD: usize = 56;

/// Sends echo requests from one namespace.
#[derive(Debug)]
pub struct Pinger {
    v4: OwnedFd,
    /// Absent on a kernel without IPv6.
    v6: Option<OwnedFd>,
    identifier: u16,
    sequence: u16,
}

impl Pinger {
    /// A pinger inside a namespace. It does not keep a thread there, but it keeps the namespace alive.
    pub fn open(netns: &Netns) -> io::Result<Self> {
        let open = || {
            let v4 = raw_socket(AddressFamily::INET, ipproto::ICMP)?;
            Ok::<_, io::Error>((v4, raw_socket(AddressFamily::INET6, ipproto::ICMPV6).ok()))
        };
        let (v4, v6) = netns.run(open).flatten()?;
        // Replies to others are seen too, so requests carry a number that others hardly choose.
        let identifier = u16::try_from(std::process::id() % 0xffff).unwrap_or_default();
        Ok(Pinger { v4, v6, identifier, sequence: 0 })
    }

    /// Sends one request and waits for its reply. `None`: no reply within `timeout`, or no way to get there.
    pub fn ping(&mut self, target: impl Into<IpAddr>, timeout: Duration) -> io::Result<Option<Duration>> {
        let target = target.into();
        self.sequence = self.sequence.wrapping_add(1);
        let (socket, message) = match target {
            IpAddr::V4(_) => {
                let mut message = echo_request(ECHO_V4.0, self.identifier, self.sequence);
                fill_in(&mut message, checksum);
                (&self.v4, message)
            }
            IpAddr::V6(_) => {
                let no_ipv6 = || io::Error::from(rustix::io::Errno::AFNOSUPPORT);
                // The kernel fills in the checksum, for it chooses the source.
                (self.v6.as_ref().ok_or_else(no_ipv6)?, echo_request(ECHO_V6.0, self.identifier, self.sequence))
            }
        };
        let sent = Instant::now();
        match sendto(socket, &message, SendFlags::empty(), &SocketAddr::new(target, 0)) {
            Ok(_) => {}
            Err(rustix::io::Errno::NETUNREACH | rustix::io::Errno::HOSTUNREACH) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        loop {
            // Zero after a stall of this process: a reply that is there by then was not late.
            let left = timeout.saturating_sub(sent.elapsed());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut ready = [PollFd::new(socket, PollFlags::IN)];
            match poll(&mut ready, Some(&left)) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
            let mut space = [MaybeUninit::uninit(); 256];
            let ((packet, _), _, from) = recvfrom(socket, &mut space, RecvFlags::DONTWAIT)?;
            let from = from.and_then(|from| SocketAddr::try_from(from).ok()).map(|from| from.ip());
            if from == Some(target) && self.is_reply(packet, target) {
                return Ok(Some(sent.elapsed()));
            }
        }
    }

    /// Whether a packet answers the latest request. IPv4's comes with its IP header.
    fn is_reply(&self, packet: &[u8], target: IpAddr) -> bool {
        let (header, reply) = match target {
            IpAddr::V4(_) => (packet.first().map(|first| usize::from(first & 0x0f) * 4), ECHO_V4.1),
            IpAddr::V6(_) => (Some(0), ECHO_V6.1),
        };
        let Some([kind, _, _, _, id_high, id_low, seq_high, seq_low]) =
            header.and_then(|header| packet.get(header..)).and_then(|message| message.first_chunk())
        else {
            return false;
        };
        *kind == reply
            && u16::from_be_bytes([*id_high, *id_low]) == self.identifier
            && u16::from_be_bytes([*seq_high, *seq_low]) == self.sequence
    }
}

/// Sends one echo request with a source address of the caller's choice, and waits for nothing. Both addresses are of one
/// family, or it is refused.
pub fn spoof_echo(netns: &Netns, source: impl Into<IpAddr>, target: impl Into<IpAddr>) -> io::Result<()> {
    let target = target.into();
    let (family, packet) = match (source.into(), target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => (AddressFamily::INET, packet_v4(source, target)),
        (IpAddr::V6(source), IpAddr::V6(target)) => (AddressFamily::INET6, packet_v6(source, target)),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    netns
        .run(|| {
            let socket = raw_socket(family, ipproto::RAW)?;
            sendto(&socket, &packet, SendFlags::empty(), &SocketAddr::new(target, 0))?;
            Ok(())
        })
        .flatten()
}

fn packet_v4(source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut message = echo_request(ECHO_V4.0, 0, 1);
    fill_in(&mut message, checksum);
    let length = u16::try_from(message.len() + 20).unwrap_or(u16::MAX);
    // RFC 791: version and length, type of service, total length; the kernel fills in the checksum and, for zero, the
    // identification (raw(7)).
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 1, 0, 0]);
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet.extend(message);
    packet
}

fn packet_v6(source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut message = echo_request(ECHO_V6.0, 0, 1);
    fill_in(&mut message, |message| icmpv6_checksum(source, target, message));
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    // RFC 8200: version, class and flow; length; next header ICMPv6; hop limit.
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([58, 64]);
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet.extend(message);
    packet
}

fn raw_socket(family: AddressFamily, protocol: rustix::net::Protocol) -> io::Result<OwnedFd> {
    Ok(socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?)
}

/// A request whose checksum is zero.
fn echo_request(kind: u8, identifier: u16, sequence: u16) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.resize(message.len() + PAYLOAD, 0xd4);
    message
}

fn fill_in(message: &mut Vec<u8>, checksum: impl Fn(&[u8]) -> u16) {
    let sum = checksum(message).to_be_bytes();
    message.splice(2..4, sum);
}
