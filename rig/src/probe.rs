//! Packets sent from inside a namespace, and what came back.

mod checksum;
mod icmp;
mod udp;

pub(crate) use self::checksum::icmpv6_checksum;
pub use self::icmp::{Pinger, spoof_echo};
pub use self::udp::{Mirror, seen_as};
