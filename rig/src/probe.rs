//! Packets sent from inside a namespace, and what came back.

mod icmp;
mod udp;

pub use self::icmp::{Pinger, spoof_echo};
pub use self::udp::{Mirror, seen_as};
