//! Packets sent from inside a namespace, and what came back.

mod checksum;
mod icmp;
mod responder;
mod rogue;
mod udp;
mod witness;

pub(crate) use self::checksum::icmpv6_checksum;
pub use self::icmp::{Pinger, spoof_echo};
pub use self::responder::{Responder, Seen, Transport, ask};
pub use self::rogue::advertise_as_router;
pub use self::udp::{Mirror, seen_as};
pub use self::witness::Witness;
