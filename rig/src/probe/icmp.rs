//! ICMP echo (RFC 792) over raw sockets, with the checksum made here.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use dotfour_datapath::Netns;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto, socket_with};

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
/// As much as `ping` sends.
const PAYLOAD: usize = 56;

/// Sends echo requests from one namespace.
#[derive(Debug)]
pub struct Pinger {
    socket: OwnedFd,
    identifier: u16,
    sequence: u16,
}

impl Pinger {
    /// A pinger inside a namespace. It does not keep a thread there, but it keeps the namespace alive.
    pub fn open(netns: &Netns) -> io::Result<Self> {
        let socket = netns.run(|| raw_socket(ipproto::ICMP)).flatten()?;
        // Replies to others are seen too, so requests carry a number that others hardly choose.
        let identifier = u16::try_from(std::process::id() % 0xffff).unwrap_or_default();
        Ok(Pinger { socket, identifier, sequence: 0 })
    }

    /// Sends one request and waits for its reply. `None`: no reply within `timeout`, or no way to get there.
    pub fn ping(&mut self, target: Ipv4Addr, timeout: Duration) -> io::Result<Option<Duration>> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = echo_request(self.identifier, self.sequence);
        let sent = Instant::now();
        match sendto(&self.socket, &message, SendFlags::empty(), &SocketAddrV4::new(target, 0)) {
            Ok(_) => {}
            Err(rustix::io::Errno::NETUNREACH | rustix::io::Errno::HOSTUNREACH) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        loop {
            let Some(left) = timeout.checked_sub(sent.elapsed()) else { return Ok(None) };
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut ready, Some(&left)) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
            let mut space = [MaybeUninit::uninit(); 256];
            let ((packet, _), _) = recv(&self.socket, &mut space, RecvFlags::DONTWAIT)?;
            if self.is_reply(packet, target) {
                return Ok(Some(sent.elapsed()));
            }
        }
    }

    /// Whether a packet, with its IP header, answers the latest request to `target`.
    fn is_reply(&self, packet: &[u8], target: Ipv4Addr) -> bool {
        let header = packet.first().map(|first| usize::from(first & 0x0f) * 4).unwrap_or_default();
        let Some([kind, _, _, _, id_high, id_low, seq_high, seq_low]) =
            packet.get(header..).and_then(|message| message.first_chunk())
        else {
            return false;
        };
        let from_target = packet.get(12..16) == Some(&target.octets());
        from_target
            && *kind == ECHO_REPLY
            && u16::from_be_bytes([*id_high, *id_low]) == self.identifier
            && u16::from_be_bytes([*seq_high, *seq_low]) == self.sequence
    }
}

/// Sends one echo request with a source address of the caller's choice, and waits for nothing.
pub fn spoof_echo(netns: &Netns, source: Ipv4Addr, target: Ipv4Addr) -> io::Result<()> {
    let message = echo_request(0, 1);
    let length = u16::try_from(message.len() + 20).unwrap_or(u16::MAX);
    // RFC 791: version and length, type of service, total length; the kernel fills in the checksum and, for zero, the
    // identification (raw(7)).
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 1, 0, 0]);
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet.extend(message);
    netns
        .run(|| {
            let socket = raw_socket(ipproto::RAW)?;
            sendto(&socket, &packet, SendFlags::empty(), &SocketAddrV4::new(target, 0))?;
            Ok(())
        })
        .flatten()
}

fn raw_socket(protocol: rustix::net::Protocol) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?)
}

fn echo_request(identifier: u16, sequence: u16) -> Vec<u8> {
    let mut message = vec![ECHO_REQUEST, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.resize(message.len() + PAYLOAD, 0xd4);
    let sum = checksum(&message).to_be_bytes();
    message.splice(2..4, sum);
    message
}

/// RFC 1071, over an even or odd number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(u16::from_be_bytes([*high, 0])),
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // The example of RFC 1071, section 3.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        // A message with its checksum in place sums up to zero.
        assert_eq!(checksum(&echo_request(0x1234, 7)), 0);
        assert_eq!(checksum(&[0xff]), !0xff00);
    }
}
