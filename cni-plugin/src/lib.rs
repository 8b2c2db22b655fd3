//! Dotfour's CNI plugin as a library: everything but the entry of the program, which is in `start/`.
//!
//! The plugin is a postman. It reads what the runtime says ([`environment`], [`netconf`]), makes one call to the node
//! daemon ([`call`]) and prints the answer as the CNI specification has it ([`result`]). It keeps no state, touches no
//! network and knows no policy. It needs no `std`: half of what a small program costs is the start-up of its libc.
//!
//! What an ADD asks of the kernel, in this order: rt_sigaction (in `start/`), read twice, open, socket, setsockopt
//! twice, connect, sendmsg, recvfrom, close twice, write, exit_group. DEL: the same without open and one close, with
//! sendto, and without write. Reading the clock costs a prctl more, which says where the kernel's own clock code is; no
//! memory is mapped.
//!
//! A DEL does not fail because the daemon is away: it goes to the spool (`spool.rs`), and so does the cancellation of an ADD whose
//! answer did not come.
//!
//! Specification: CNI 1.1.0 (SPEC.md, sections 2 "Execution Protocol" and 5 "Result Types"), and the result formats
//! back to 0.3.0. Served are ADD, DEL and VERSION.

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
mod spool;
mod stdio;
pub mod version;

use alloc::format;
use alloc::vec::Vec;

use dotfour_protocol::{Add, AttachmentKey, Call, Del, Failure, Request};
use rustix::fd::BorrowedFd;

use crate::answer::Answer;
use crate::environment::{Command, Environment};
use crate::netconf::NetConf;
use crate::version::CniVersion;

/// Serves one execution of the plugin and returns its exit status: 0, or 1 after a failure, which is then the one
/// object on `stdout`. What there is to print goes out in one write. If it cannot be written, nobody is there to be
/// told, and the status says it alone.
///
/// The variables are `(name, value)` pairs in the order of the process's environment.
pub fn run<'a>(
    variables: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    stdin: BorrowedFd<'_>,
    stdout: BorrowedFd<'_>,
) -> i32 {
    let (answer, status) = answer(&Environment::collect(variables), stdin);
    match stdio::write(stdout, &answer) {
        Ok(()) => status,
        Err(_) => 1,
    }
}

/// What to print, and the exit status.
fn answer(environment: &Environment<'_>, stdin: BorrowedFd<'_>) -> (Vec<u8>, i32) {
    // Somebody who runs the plugin by hand is told so, and not waited for.
    let input = if environment.has_command() { stdio::read(stdin) } else { Ok(Vec::new()) };
    let input = match input {
        Ok(input) => input,
        Err(failure) => return (result::failed(CniVersion::NEWEST, &failure), 1),
    };
    match serve(environment, &input) {
        Ok(answer) => (answer, 0),
        Err(failure) => (result::failed(netconf::version_of(&input), &failure), 1),
    }
}

fn serve(environment: &Environment<'_>, input: &[u8]) -> Result<Vec<u8>, Failure> {
    match environment.command()? {
        Command::Add => add(environment, input),
        Command::Del => del(environment, input),
        Command::Version => result::versions(&netconf::version_asked(input)?),
    }
}

fn add(environment: &Environment<'_>, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let started_ns = spool::now_ns();
    let variables = environment.for_add()?;
    let config = NetConf::parse(input)?;
    let mut asked = config.asked()?;
    asked.unite(&variables.asked).map_err(environment::conflicting_addresses)?;
    let namespace = call::open_namespace(variables.netns)?;
    let key = key_of(&config, variables.container_id, variables.ifname);
    let add = Add { key, pod: variables.pod, started_ns: Some(started_ns), asked: asked.into_addresses() };
    let request = Request::new(Call::Add(add));
    let lost = match call::call(&config.socket, &request, Some(&namespace), call::ADD_DEADLINE) {
        Ok(Answer::Attached(attachment)) => {
            return result::attached(config.version, &attachment, variables.ifname, variables.netns, config.dns);
        }
        Ok(Answer::Failed(failure)) => return Err(failure),
        Ok(Answer::Detached) => return Err(unexpected_reply()),
        Err(lost) => lost,
    };
    if lost.may_have_acted {
        // The runtime is told that the ADD failed, so it must have. Without a spool, it is the runtime's DEL that ends it.
        let _ =
            spool::leave(&config.spool_dir(), key_of(&config, variables.container_id, variables.ifname), started_ns);
    }
    Err(lost.failure)
}

fn del(environment: &Environment<'_>, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let started_ns = spool::now_ns();
    let variables = environment.for_del()?;
    let config = NetConf::parse(input)?;
    let key = || key_of(&config, variables.container_id, variables.ifname);
    match call::call(&config.socket, &Request::new(Call::Del(Del { key: key() })), None, call::DEL_DEADLINE) {
        Ok(Answer::Detached) => Ok(Vec::new()),
        Ok(Answer::Failed(failure)) => Err(failure),
        Ok(Answer::Attached(_)) => Err(unexpected_reply()),
        Err(lost) => match spool::leave(&config.spool_dir(), key(), started_ns) {
            Ok(()) => Ok(Vec::new()),
            Err(spool) => {
                Err(Failure { message: format!("{}; and {}", lost.failure.message, spool.message), ..lost.failure })
            }
        },
    }
}

fn key_of(config: &NetConf<'_>, container_id: &str, ifname: &str) -> AttachmentKey {
    AttachmentKey {
        network: config.name.clone().into_owned(),
        container_id: container_id.into(),
        ifname: ifname.into(),
    }
}

fn unexpected_reply() -> Failure {
    call::mismatch("the daemon's reply is to another call than the one made")
}

#[cfg(test)]
mod tests;
