//! The requests of every pod, ADD and DEL, written and read without a JSON library.
//!
//! They are the same bytes: what is written here is what the library would write, and the tests hold the two together. What is
//! read here is exactly what is written here; anything else there is, from another release or by hand, is left to the library.
//! A library that reads whatever comes is a lot of code to run through once for each pod, when the processor has forgotten all of
//! it: the plugin starts anew, and the daemon has slept since the last one.

use alloc::string::String;
use alloc::vec::Vec;

use crate::plain::{NotPlain, Writer, is_plain};
use crate::{Add, AttachmentKey, Call, CniVersion, Del, PodName, Request, ResultFormat, VERSION};

/// What a usual message has beside the network's name and the container's id, so that it is allocated once.
const ROOM: usize = 384;

/// Writes a request, if it is one of these and nothing in it must be escaped.
pub(crate) fn write(request: &Request) -> Option<Vec<u8>> {
    let Request { version, call } = request;
    match call {
        Call::Add(add) if add.asked.is_empty() => write_add(*version, "add", add),
        Call::Assign(add) if add.asked.is_empty() => write_add(*version, "assign", add),
        Call::Del(del) => write_del(*version, del),
        _ => return None,
    }
    .ok()
}

fn write_add(version: u16, verb: &str, add: &Add) -> Result<Vec<u8>, NotPlain> {
    let Add { key, pod, started_ns, asked: _, print } = add;
    let mut out = Writer::default();
    begin(&mut out, version, verb, key)?;
    if let Some(pod) = pod {
        out.pod(r#","pod":"#, pod)?;
    }
    write_started(&mut out, *started_ns);
    if let Some(ResultFormat { version, sandbox }) = print {
        out.string(r#","print":{"version":"#, version.name())?;
        if let Some(sandbox) = sandbox {
            out.string(r#","sandbox":"#, sandbox)?;
        }
        out.raw("}");
    }
    out.raw("}}}");
    Ok(out.into_bytes())
}

fn write_del(version: u16, Del { key, started_ns }: &Del) -> Result<Vec<u8>, NotPlain> {
    let mut out = Writer::default();
    begin(&mut out, version, "del", key)?;
    write_started(&mut out, *started_ns);
    out.raw("}}}");
    Ok(out.into_bytes())
}

fn write_started(out: &mut Writer, started_ns: Option<u64>) {
    if let Some(started_ns) = started_ns {
        out.raw(r#","started_ns":"#);
        out.number(started_ns);
    }
}

/// Reads a request of this version, if it is one of these as [`write`] writes them.
pub(crate) fn read(message: &[u8]) -> Option<Request> {
    let mut rest = Reader(message);
    rest.literal(r#"{"version":"#)?;
    if rest.number()? != u64::from(VERSION) {
        return None;
    }
    rest.literal(r#","call":{"#)?;
    let verb = rest.text()?;
    rest.literal(r#":{"key":{"network":"#)?;
    let network = rest.text()?;
    rest.literal(r#","container_id":"#)?;
    let container_id = rest.text()?;
    rest.literal(r#","ifname":"#)?;
    let key = AttachmentKey { network: network.into(), container_id: container_id.into(), ifname: rest.text()?.into() };
    rest.literal("}")?;
    let call = match verb {
        "add" => Call::Add(rest.add(key)?),
        "assign" => Call::Assign(rest.add(key)?),
        "del" => Call::Del(Del { key, started_ns: rest.started()? }),
        _ => return None,
    };
    rest.literal("}}}")?;
    rest.0.is_empty().then(|| Request::new(call))
}

/// Everything up to the key's end.
fn begin(out: &mut Writer, version: u16, verb: &str, key: &AttachmentKey) -> Result<(), NotPlain> {
    out.reserve(ROOM + key.network.len() + key.container_id.len());
    out.raw(r#"{"version":"#);
    out.number(version.into());
    out.string(r#","call":{"#, verb)?;
    out.key(r#":{"key":"#, key)
}

/// What is not read yet.
struct Reader<'m>(&'m [u8]);

impl<'m> Reader<'m> {
    /// Passes by what must come next.
    fn literal(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text.as_bytes())?;
        Some(())
    }

    /// Whether this comes next, which is then passed by.
    fn comes(&mut self, text: &str) -> bool {
        self.literal(text).is_some()
    }

    fn text(&mut self) -> Option<&'m str> {
        self.literal("\"")?;
        let end = self.0.iter().position(|&byte| !is_plain(byte))?;
        let (text, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        self.literal("\"")?;
        core::str::from_utf8(text).ok()
    }

    /// A number as JSON has it: without a zero in front.
    fn number(&mut self) -> Option<u64> {
        let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at_checked(length)?;
        let canonical = matches!(digits, [_] | [b'1'..=b'9', ..]);
        self.0 = rest;
        core::str::from_utf8(digits).ok().filter(|_| canonical)?.parse().ok()
    }

    /// The moment of a start, if it comes next. The outer `None` is what makes no sense.
    fn started(&mut self) -> Option<Option<u64>> {
        if self.comes(r#","started_ns":"#) { self.number().map(Some) } else { Some(None) }
    }

    /// What an ADD has behind its key.
    fn add(&mut self, key: AttachmentKey) -> Option<Add> {
        let mut add = Add { key, pod: None, started_ns: None, asked: Vec::new(), print: None };
        if self.comes(r#","pod":{"namespace":"#) {
            let namespace = self.text()?;
            self.literal(r#","name":"#)?;
            add.pod = Some(PodName { namespace: namespace.into(), name: self.text()?.into() });
            self.literal("}")?;
        }
        add.started_ns = self.started()?;
        if self.comes(r#","print":{"version":"#) {
            let version = CniVersion::from_name(self.text()?)?;
            let sandbox = if self.comes(r#","sandbox":"#) { Some(String::from(self.text()?)) } else { None };
            add.print = Some(ResultFormat { version, sandbox });
            self.literal("}")?;
        }
        Some(add)
    }
}

#[cfg(test)]
mod tests;
