//! What can be wrong with a service's answers.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the wireserver misbehaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Not at all.
    #[default]
    None,
    /// It answers with this HTTP status and no document.
    Status(u16),
    /// It takes the request and closes the connection without a byte.
    Nothing,
    /// It sends the first half of the document as if that were all of it.
    Half,
    /// It announces the whole document, sends the first half and closes the connection.
    CutOff,
    /// It answers properly, but only after this long.
    Hang(Duration),
    /// The document speaks of a MAC that no machine has.
    WrongMac,
    /// The MAC is in lower case.
    LowerCaseMac,
    /// The MAC is `*`.
    AnyMac,
    /// Each answer lists the addresses in another order.
    Reordered,
    /// The document is as old as this.
    Lag(Duration),
    /// The document leaves an address out.
    Without(IpAddr),
    /// The document names no interface.
    Empty,
}
