//! The words that the plugin (`dotfour`) and the node daemon (`dotfour-ipamd`) exchange.
//!
//! One call is one JSON message each way over a `SOCK_SEQPACKET` unix socket; the pod's network namespace travels
//! beside an ADD as a file descriptor (`SCM_RIGHTS`). This crate owns the types and the bytes. It opens nothing,
//! reads no clock and knows no policy, and it needs no `std`, because the plugin has none.
//!
//! Compatibility: a reader ignores members it does not know, and a member added later has a default, so that a plugin
//! one version older or newer keeps working. [`VERSION`] moves only when that is impossible.

#![no_std]

extern crate alloc;

pub mod cause;
pub mod frame;
pub mod key;
pub mod message;
pub mod plain;
mod usual;
pub mod version;

pub use cause::{Cause, Failure};
pub use key::{AttachmentKey, PodName};
pub use message::{
    Add, Assigned, Attachment, AttachmentStatus, Call, Check, Del, FamilyTotals, Gc, NodeStatus, PodAddress,
    PoolCounts, Reply, Request, ResultFormat, Route, SpooledDel, Status, ValidAttachment,
};
pub use version::CniVersion;

/// The version of the messages in this crate, sent in every [`Request`].
pub const VERSION: u16 = 1;

/// The default path of the daemon's socket.
pub const DEFAULT_SOCKET: &str = "/run/dotfour/ipamd.sock";

/// The name of the spool directory beside the socket, where a DEL goes that finds no daemon.
pub const SPOOL_NAME: &str = "spool";
