//! Dotfour's CNI plugin as a library: everything but the entry of the program, which is in `start/`.
//!
//! The plugin is a postman. It reads what the runtime says ([`environment`], [`netconf`]), makes one call to the node
//! daemon ([`call`], `verbs.rs`) and prints the answer: the daemon has written the CNI result, and failures are put into words
//! here ([`result`]). It keeps no state, touches no network and knows no policy. It needs no `std`: half of what a small program costs is the start-up of its libc.
//!
//! What an ADD asks of the kernel, in this order: clock_gettime and rt_sigaction (in `start/`), read twice, open, socket,
//! setsockopt twice, connect, sendmsg, recvfrom, write, exit_group, which closes what is open. DEL: the same without open, with
//! sendto, and without write. No memory is mapped.
//!
//! Run as `dotfour-ipam` ([`role`]), it serves a plugin that wires pods itself: it asks for addresses alone, and needs no namespace.
//!
//! A DEL does not fail because the daemon is away: it goes to the spool (`spool.rs`), and so does the cancellation of an ADD whose
//! answer did not come.
//!
//! Specification: CNI 1.1.0 (SPEC.md, sections 2 "Execution Protocol" and 5 "Result Types"), and the result formats
//! back to 0.3.0. Served are all verbs: ADD, DEL, CHECK, GC, STATUS and VERSION.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod answer;
pub mod asked;
pub mod call;
pub mod environment;
mod members;
pub mod netconf;
mod quoted;
pub mod result;
pub mod role;
mod spool;
mod stdio;
mod verbs;

use alloc::vec::Vec;

pub use dotfour_protocol::CniVersion;
use dotfour_protocol::Failure;
use rustix::fd::BorrowedFd;

use crate::environment::{Command, Environment};
use crate::role::Role;

/// Serves one execution of the plugin and returns its exit status: 0, or 1 after a failure, which is then the one
/// object on `stdout`. What there is to print goes out in one write. If it cannot be written, nobody is there to be
/// told, and the status says it alone.
///
/// `program` is `argv[0]`, empty if there is none; it decides the [`Role`]. The variables are `(name, value)` pairs in the
/// order of the process's environment; `started_ns` is when it was started, in nanoseconds of the monotonic clock.
pub fn run<'a>(
    program: &[u8],
    variables: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    stdin: BorrowedFd<'_>,
    stdout: BorrowedFd<'_>,
    started_ns: u64,
) -> i32 {
    let (role, environment) = (Role::of(program), Environment::collect(variables));
    // Somebody who runs the plugin by hand is told so, and not waited for.
    let input = if environment.has_command() { stdio::read(stdin) } else { Ok(Vec::new()) };
    let (answer, status) = answer(role, &environment, &input, started_ns);
    if stdio::write(stdout, &answer).is_ok() {
        return status;
    }
    if let (0, Ok(input), Ok(Command::Add)) = (status, &input, environment.command()) {
        verbs::take_back(role, &environment, input, started_ns);
    }
    1
}

/// What to print, and the exit status.
fn answer(
    role: Role,
    environment: &Environment<'_>,
    input: &Result<Vec<u8>, Failure>,
    started_ns: u64,
) -> (Vec<u8>, i32) {
    let input = match input {
        Ok(input) => input,
        Err(failure) => return (result::failed(CniVersion::NEWEST, failure), 1),
    };
    match serve(role, environment, input, started_ns) {
        Ok(answer) => (answer, 0),
        Err(failure) => (result::failed(netconf::version_of(input), &failure), 1),
    }
}

fn serve(role: Role, environment: &Environment<'_>, input: &[u8], started_ns: u64) -> Result<Vec<u8>, Failure> {
    match environment.command()? {
        Command::Add => verbs::add(role, environment, input, started_ns),
        Command::Del => verbs::del(role, environment, input, started_ns),
        Command::Check => verbs::check(role, environment, input),
        Command::Gc => verbs::gc(role, input),
        Command::Status => verbs::status(role, input),
        Command::Version => result::versions(&netconf::version_asked(input)?),
    }
}

#[cfg(test)]
mod tests;
