//! The daemon's answer, as far as a plugin can get one.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dotfour_protocol::{Failure, frame};

use crate::members::{Value, members};

/// [`dotfour_protocol::Reply`] to the calls a plugin makes. A result is not looked into, and a failure is read by hand:
/// the derived reader knows the replies to others as well, and by itself would take a quarter of what the program may
/// have. The tests hold the two together, and a member added to [`Failure`] does not compile before it is read here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// An ADD has succeeded: its result, to be printed as it is.
    Printed(Vec<u8>),
    /// Nothing of the attachment is in use any more.
    Detached,
    /// The pod is as ADD made it.
    Checked,
    /// What the runtime does not know is gone.
    Collected,
    /// An ADD could be served.
    Ready,
    /// The call failed.
    Failed(Failure),
}

impl Answer {
    /// Reads a reply. Members of a later version are passed by.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn read(reply: Vec<u8>) -> Result<Answer, String> {
        if frame::is_result(&reply) {
            return Ok(Answer::Printed(reply));
        }
        match &*reply {
            br#""detached""# => return Ok(Answer::Detached),
            br#""checked""# => return Ok(Answer::Checked),
            br#""collected""# => return Ok(Answer::Collected),
            br#""ready""# => return Ok(Answer::Ready),
            _ => {}
        }
        let mut answer = None;
        members(&reply, &mut |member| {
            if member.name == "failed" {
                answer = Some(Answer::Failed(failure(member)?));
            }
            Ok(())
        })?;
        answer.ok_or_else(|| String::from("it is neither a result nor a failure"))
    }
}

fn failure(value: Value<'_, '_>) -> Result<Failure, String> {
    let (mut code, mut cause, mut message, mut next_step) = (None, None, None, None);
    value.members(&mut |member| {
        match member.name {
            "code" => code = Some(member.number()?),
            "cause" => cause = member.text()?,
            "message" => message = member.text()?,
            "next_step" => next_step = member.text()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(Failure {
        code: needed("code", code)?,
        cause: text("cause", cause)?,
        message: text("message", message)?,
        next_step: text("next_step", next_step)?,
    })
}

fn text(name: &str, found: Option<Cow<'_, str>>) -> Result<String, String> {
    needed(name, found).map(Cow::into_owned)
}

fn needed<T>(name: &str, found: Option<T>) -> Result<T, String> {
    found.ok_or_else(|| format!("it has no {name}"))
}

#[cfg(test)]
mod tests;
