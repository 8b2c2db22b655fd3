//! The verbs: what each of them asks of the daemon, and what becomes of the answer.

use alloc::format;
use alloc::vec::Vec;
use core::mem;

use dotfour_protocol::{Add, AttachmentKey, Call, Cause, Check, Del, Failure, Gc, Request, ResultFormat};
use rustix::fd::OwnedFd;

use crate::answer::Answer;
use crate::call;
use crate::environment::{self, Environment};
use crate::netconf::NetConf;
use crate::role::Role;
use crate::{result, spool};

/// Attaches a pod, or assigns its addresses, and prints the result. An ADD whose answer is lost has failed, and is taken
/// back.
pub(crate) fn add(
    role: Role,
    environment: &Environment<'_>,
    input: &[u8],
    started_ns: u64,
) -> Result<Vec<u8>, Failure> {
    let variables = environment.for_add()?;
    let config = NetConf::parse_as(role, input)?;
    let mut asked = config.asked()?;
    asked.unite(&variables.asked).map_err(environment::conflicting_addresses)?;
    // What another plugin wires is that one's business.
    let namespace = match role {
        Role::Main => Some(call::open_namespace(variables.netns)?),
        Role::Ipam => None,
    };
    let key = key_of(&config, variables.container_id, variables.ifname);
    // What has no interfaces names no sandbox.
    let sandbox = (role == Role::Main).then(|| variables.netns.into());
    let print = Some(ResultFormat { version: config.version, sandbox });
    let add = Add { key, pod: variables.pod, started_ns: Some(started_ns), asked: asked.into_addresses(), print };
    let request = Request::new(match role {
        Role::Main => Call::Add(add),
        Role::Ipam => Call::Assign(add),
    });
    let lost = match call::call_on(&config.socket, &request, namespace.as_ref(), call::ADD_DEADLINE) {
        Ok((Answer::Printed(result), connection)) => {
            // The runtime waits for what is printed. The end of the process closes these, in nobody's way.
            leave_open(connection, namespace);
            return Ok(result::with_dns(result, config.dns));
        }
        Ok((Answer::Failed(failure), _)) => return Err(failure),
        Ok(_) => return Err(unexpected_reply()),
        Err(lost) => lost,
    };
    if lost.may_have_acted {
        take_back(role, environment, input, started_ns);
    }
    Err(lost.failure)
}

/// Leaves both to the end of the process. But where the runtime left standard output closed, the first of them has its number: to a
/// namespace nothing can be written, to the daemon it can. A function of its own, so that closing costs an ADD no room on its stack's page.
#[inline(never)]
fn leave_open(connection: OwnedFd, namespace: Option<OwnedFd>) {
    if namespace.is_some() {
        mem::forget((connection, namespace));
    }
}

/// Ends what an ADD may have made of which the runtime hears nothing, or that it failed: so it must have. Without a spool, it
/// is the runtime's DEL that ends it.
#[cold]
pub(crate) fn take_back(role: Role, environment: &Environment<'_>, input: &[u8], started_ns: u64) {
    if let (Ok(variables), Ok(config)) = (environment.for_add(), NetConf::parse_as(role, input)) {
        let key = key_of(&config, variables.container_id, variables.ifname);
        let _ = spool::leave(&config.spool_dir(), key, started_ns);
    }
}

/// Detaches a pod. It succeeds without a daemon too, if it can be left in the spool.
pub(crate) fn del(
    role: Role,
    environment: &Environment<'_>,
    input: &[u8],
    started_ns: u64,
) -> Result<Vec<u8>, Failure> {
    let variables = environment.for_del()?;
    let config = NetConf::parse_as(role, input)?;
    let key = || key_of(&config, variables.container_id, variables.ifname);
    let request = Request::new(Call::Del(Del { key: key(), started_ns: Some(started_ns) }));
    match call::call_on(&config.socket, &request, None, call::DEL_DEADLINE) {
        Ok((Answer::Detached, connection)) => {
            mem::forget(connection);
            Ok(Vec::new())
        }
        Ok((Answer::Failed(failure), _)) => Err(failure),
        Ok(_) => Err(unexpected_reply()),
        Err(lost) => match spool::leave(&config.spool_dir(), key(), started_ns) {
            Ok(()) => Ok(Vec::new()),
            Err(spool) => {
                Err(Failure { message: format!("{}; and {}", lost.failure.message, spool.message), ..lost.failure })
            }
        },
    }
}

/// Compares a pod with what ADD made of it, which for `dotfour-ipam` is its lease; prints nothing.
pub(crate) fn check(role: Role, environment: &Environment<'_>, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let variables = environment.for_check()?;
    let config = NetConf::parse_as(role, input)?;
    let addresses = config.previous_addresses()?;
    let delegated = role == Role::Ipam;
    let namespace = if delegated { None } else { Some(call::open_namespace(variables.netns)?) };
    let key = key_of(&config, variables.container_id, variables.ifname);
    let request = Request::new(Call::Check(Check { key, addresses, delegated }));
    expect(Answer::Checked, call::call(&config.socket, &request, namespace.as_ref(), call::ADD_DEADLINE)?)
}

/// Detaches what the runtime does not list; prints nothing.
pub(crate) fn gc(role: Role, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let config = NetConf::parse_as(role, input)?;
    let valid = config.valid_attachments()?;
    let request = Request::new(Call::Gc(Gc { network: config.name.clone().into_owned(), valid }));
    expect(Answer::Collected, call::call(&config.socket, &request, None, call::ADD_DEADLINE)?)
}

/// Says by its exit status whether an ADD could be served; prints nothing if so (SPEC.md 1.1.0, "STATUS").
pub(crate) fn status(role: Role, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let config = NetConf::parse_as(role, input)?;
    let answer = call::call(&config.socket, &Request::new(Call::Ready), None, call::STATUS_DEADLINE);
    // Whatever is in the way of a question is in the way of an ADD.
    let answer = answer.map_err(|lost| {
        Failure::new(
            Cause::NotReady,
            format!("{}: {}", lost.failure.cause, lost.failure.message),
            &lost.failure.next_step,
        )
    })?;
    expect(Answer::Ready, answer)
}

fn expect(wanted: Answer, answer: Answer) -> Result<Vec<u8>, Failure> {
    match answer {
        Answer::Failed(failure) => Err(failure),
        answer if answer == wanted => Ok(Vec::new()),
        _ => Err(unexpected_reply()),
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
