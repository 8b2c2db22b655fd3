//! The daemon's answer, as far as a plugin can get one.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dotfour_protocol::{Assigned, Attachment, Failure, PodAddress, Route};

use crate::members::{Value, members};

/// [`dotfour_protocol::Reply`] to the calls a plugin makes. It is read by hand: the derived reader knows the replies
/// to `dotfourctl` as well, and by itself would take a quarter of what the program may have. The tests hold the two
/// together, and a member added to the protocol's types does not compile before it is read here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The pod is wired.
    Attached(Attachment),
    /// The addresses are the pod's, whom another plugin wires.
    Assigned(Assigned),
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
    pub fn read(reply: &[u8]) -> Result<Answer, String> {
        match reply {
            br#""detached""# => return Ok(Answer::Detached),
            br#""checked""# => return Ok(Answer::Checked),
            br#""collected""# => return Ok(Answer::Collected),
            br#""ready""# => return Ok(Answer::Ready),
            _ => {}
        }
        let mut answer = None;
        members(reply, &mut |member| {
            match member.name {
                "attached" => answer = Some(Answer::Attached(attachment(member)?)),
                "assigned" => answer = Some(Answer::Assigned(assigned(member)?)),
                "failed" => answer = Some(Answer::Failed(failure(member)?)),
                _ => {}
            }
            Ok(())
        })?;
        needed("attached, assigned or failed", answer)
    }
}

fn attachment(value: Value<'_, '_>) -> Result<Attachment, String> {
    let (mut host_ifname, mut host_mac, mut pod_mac, mut mtu) = (None, None, None, None);
    let (mut addresses, mut routes) = (None, None);
    value.members(&mut |member| {
        match member.name {
            "host_ifname" => host_ifname = member.text()?,
            "host_mac" => host_mac = member.text()?,
            "pod_mac" => pod_mac = member.text()?,
            "mtu" => mtu = Some(member.number()?),
            "addresses" => addresses = list(member, pod_address)?,
            "routes" => routes = list(member, route)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(Attachment {
        host_ifname: text("host_ifname", host_ifname)?,
        host_mac: text("host_mac", host_mac)?,
        pod_mac: text("pod_mac", pod_mac)?,
        mtu: needed("mtu", mtu)?,
        addresses: needed("addresses", addresses)?,
        routes: needed("routes", routes)?,
    })
}

fn assigned(value: Value<'_, '_>) -> Result<Assigned, String> {
    let mut addresses = None;
    value.members(&mut |member| {
        if member.name == "addresses" {
            addresses = list(member, pod_address)?;
        }
        Ok(())
    })?;
    Ok(Assigned { addresses: needed("addresses", addresses)? })
}

fn pod_address(value: Value<'_, '_>) -> Result<PodAddress, String> {
    let (mut address, mut gateway) = (None, None);
    value.members(&mut |member| {
        match member.name {
            "address" => address = member.parsed("an address with its prefix length")?,
            "gateway" => gateway = member.parsed("an address")?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(PodAddress { address: needed("address", address)?, gateway: needed("gateway", gateway)? })
}

fn route(value: Value<'_, '_>) -> Result<Route, String> {
    let (mut dst, mut gw) = (None, None);
    value.members(&mut |member| {
        match member.name {
            "dst" => dst = member.parsed("an address with its prefix length")?,
            "gw" => gw = member.parsed("an address")?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(Route { dst: needed("dst", dst)?, gw })
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

fn list<T>(value: Value<'_, '_>, read: fn(Value<'_, '_>) -> Result<T, String>) -> Result<Option<Vec<T>>, String> {
    let mut list = Vec::new();
    value.elements(&mut |element| read(element).map(|element| list.push(element)))?;
    Ok(Some(list))
}

fn text(name: &str, found: Option<Cow<'_, str>>) -> Result<String, String> {
    needed(name, found).map(Cow::into_owned)
}

fn needed<T>(name: &str, found: Option<T>) -> Result<T, String> {
    found.ok_or_else(|| format!("it has no {name}"))
}

#[cfg(test)]
mod tests;
