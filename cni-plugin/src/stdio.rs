//! Standard input to its end, and one write to standard output.

use alloc::format;
use alloc::vec::Vec;

use dotfour_protocol::{Cause, Failure};
use rustix::buffer::spare_capacity;
use rustix::fd::BorrowedFd;
use rustix::io::{self, Errno};

use crate::call::ErrnoText;

/// The longest standard input that is read, in bytes. A configuration has a few hundred, and a few thousand with the
/// result of a chain of plugins in it; the limit is what lets the program live in a fixed arena.
pub(crate) const MAX_INPUT: usize = 1024 * 1024;

/// What one read takes at first: more than nearly every configuration, so that two reads do, the second finding the end.
const FIRST_READ: usize = 16 * 1024;

/// Reads to the end.
///
/// # Errors
/// `io` if reading fails, `invalid-json` above [`MAX_INPUT`] bytes.
pub(crate) fn read(stdin: BorrowedFd<'_>) -> Result<Vec<u8>, Failure> {
    let mut input = Vec::with_capacity(FIRST_READ);
    loop {
        if input.len() == input.capacity() {
            input.reserve(input.len());
        }
        match io::read(stdin, spare_capacity(&mut input)) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(Failure::new(
                    Cause::Io,
                    format!("cannot read standard input: {}", ErrnoText(errno)),
                    "the container runtime must pass the network configuration on standard input",
                ));
            }
        }
        if input.len() > MAX_INPUT {
            return Err(Failure::new(
                Cause::InvalidJson,
                format!("standard input has more than {MAX_INPUT} bytes"),
                "pass one network configuration on standard input",
            ));
        }
    }
    // Gives the rest back to the arena, so that what is allocated next shares a page with the input.
    input.shrink_to_fit();
    Ok(input)
}

/// Writes everything. One system call, unless the reader takes it in pieces.
pub(crate) fn write(stdout: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match io::write(stdout, bytes) {
            // Not a byte taken and no reason given: without this line that would go on for ever.
            Ok(0) => return Err(Errno::IO),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
