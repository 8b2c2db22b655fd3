//! The program as a process: the real binary, a real socket and the real protocol; only the daemon behind it is a
//! stand-in that answers what a test wants.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod input;
mod ipam;
#[path = "../support/mod.rs"]
mod support;
mod trouble;
mod verbs;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use dotfour_protocol::{Add, AttachmentKey, Call, Reply, ResultFormat, frame};
use support::daemon::{Daemon, Deed};
use support::program;

/// The answer to an ADD: a result with what the plugin said of its format. How results look is the daemon's business, and
/// these do not look like them, so that what is printed can have come from nowhere else.
fn printed(add: &Add) -> Reply {
    let ResultFormat { version, sandbox } = add.print.as_ref().expect("a plugin wants a result");
    let (version, sandbox) = (version.name(), sandbox.as_deref().unwrap_or("nobody's"));
    Reply::Printed(format!("{{\"cniVersion\":\"{version}\", \"of\":\"{sandbox}\",\"dns\":{{}}}}\n"))
}

fn say(reply: &Reply) -> Deed {
    Deed::Say(frame::encode_reply(reply).unwrap().into_owned())
}

/// A daemon that does what it is asked.
fn daemon(place: &Path) -> Daemon {
    Daemon::start(&place.join("s"), |request| match &request.call {
        Call::Add(add) | Call::Assign(add) => say(&printed(add)),
        Call::Del(_) => say(&Reply::Detached),
        Call::Check(_) => say(&Reply::Checked),
        Call::Gc(_) => say(&Reply::Collected),
        Call::Ready => say(&Reply::Ready),
        Call::Status(_) => Deed::Close,
    })
}

fn key() -> AttachmentKey {
    AttachmentKey { network: "azure".into(), container_id: "4f6e2d1c0b9a".into(), ifname: "eth0".into() }
}

fn inode(namespace: OwnedFd) -> (u64, u64) {
    let metadata = fs::File::from(namespace).metadata().unwrap();
    (metadata.dev(), metadata.ino())
}

#[test]
fn the_program_is_small_and_needs_nothing_to_be_loaded() {
    let elf = fs::read(program()).unwrap();
    assert!(elf.len() <= 128 * 1024, "{} bytes", elf.len());
    let number = |at: usize, size: usize| elf[at..at + size].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
    let index = |n: u64| usize::try_from(n).unwrap();
    // Elf64_Ehdr: e_type at 16, e_phoff at 32, e_phentsize at 54, e_phnum at 56. Elf64_Phdr: p_type, p_flags, p_filesz at 32.
    assert_eq!((&elf[..4], elf[4]), (&b"\x7fELF"[..], 2));
    assert_eq!(number(16, 2), 2, "ET_EXEC: at a fixed place, with nothing to relocate");
    let headers: Vec<(u64, u64, u64)> = (0..index(number(56, 2)))
        .map(|i| index(number(32, 8)) + i * index(number(54, 2)))
        .map(|at| (number(at, 4), number(at + 4, 4), number(at + 32, 8)))
        .collect();
    const LOAD: u64 = 1;
    const DYNAMIC: u64 = 2;
    const INTERP: u64 = 3;
    assert!(headers.iter().all(|(kind, ..)| *kind != DYNAMIC && *kind != INTERP), "{headers:?}");
    // What is only read, a little data that no usual call touches, and zeroed memory that is not behind data (program.ld).
    let loaded: Vec<u64> = headers.iter().filter(|(kind, ..)| *kind == LOAD).map(|(.., size)| *size).collect();
    assert!(matches!(loaded[..], [_, 1..=64, 0]), "{headers:?}");
    // PF_X is 1, PF_W is 2.
    assert!(headers.iter().all(|(_, flags, _)| flags & 3 != 3), "writable and executable: {headers:?}");
}
