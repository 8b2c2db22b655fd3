//! JSON read member by member, on top of serde_json.
//!
//! The plugin looks at two dozen members and passes by the rest. A derived reader costs the program 2 to 4 kB for each
//! type; this one is a page for all of them, and can say in plain words which member is wrong. An object as a runtime writes it
//! is taken apart without the library, which is cold code.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use dotfour_protocol::plain::is_plain;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Called with each member of an object in turn, or each element of an array. Of a member that comes twice the last
/// one counts, as it does in Go. The error is a sentence for an operator.
pub(crate) type Each<'f, 'a> = &'f mut dyn FnMut(Value<'_, 'a>) -> Result<(), String>;

/// A JSON value that is known to be well-formed and not looked into yet.
#[derive(Clone, Copy)]
pub(crate) struct Value<'n, 'a> {
    /// The name of the member it is the value of; an element has that of its array.
    pub(crate) name: &'n str,
    pub(crate) raw: &'a str,
}

/// Reads a whole text as one object.
pub(crate) fn members<'a>(json: &'a [u8], each: Each<'_, 'a>) -> Result<(), String> {
    let mut plain = [("", ""); MOST];
    match plain_members(json, &mut plain) {
        Some(count) => plain.into_iter().take(count).try_for_each(|(name, raw)| each(Value { name, raw })),
        None => walk(json, None, each),
    }
}

impl<'n, 'a> Value<'n, 'a> {
    /// The members of an object. None of `null`, which is how Go writes what is not there.
    pub(crate) fn members(self, each: Each<'_, 'a>) -> Result<(), String> {
        if !self.raw.starts_with('{') {
            return self.absent("an object");
        }
        walk(self.raw.as_bytes(), None, each)
    }

    /// The elements of an array. None of `null`.
    pub(crate) fn elements(self, each: Each<'_, 'a>) -> Result<(), String> {
        if !self.raw.starts_with('[') {
            return self.absent("an array");
        }
        walk(self.raw.as_bytes(), Some(self.name), each)
    }

    /// The text of a string, or nothing of `null`.
    pub(crate) fn text(self) -> Result<Option<Cow<'a, str>>, String> {
        let raw = self.raw;
        match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
            None => self.absent("a string").map(|()| None),
            Some(plain) if !plain.contains('\\') => Ok(Some(Cow::Borrowed(plain))),
            // What still can be wrong is half of a surrogate pair.
            Some(_) => match serde_json::from_slice(raw.as_bytes()) {
                Ok(text) => Ok(Some(Cow::Owned(text))),
                Err(e) => Err(format!("{} is not text: {e}", self.name)),
            },
        }
    }

    /// What the text of a string says: an address, for instance.
    pub(crate) fn parsed<T: FromStr>(self, what: &str) -> Result<Option<T>, String> {
        match self.text()? {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| self.must_be(what)),
        }
    }

    /// A whole number.
    pub(crate) fn number(self) -> Result<u32, String> {
        self.raw.parse().map_err(|_| self.must_be("a whole number"))
    }

    /// Whether it is `null`.
    pub(crate) fn is_null(self) -> bool {
        self.raw == "null"
    }

    fn absent(self, expected: &str) -> Result<(), String> {
        if self.is_null() { Ok(()) } else { Err(self.must_be(expected)) }
    }

    fn must_be(self, expected: &str) -> String {
        format!("{} must be {expected}", self.name)
    }
}

/// A text without the white space around it that JSON allows, which is less than ASCII has (RFC 8259, section 2).
pub(crate) fn trimmed(json: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let begin = json.iter().position(is_text).unwrap_or(json.len());
    let end = json.iter().rposition(is_text).map_or(begin, |last| last + 1);
    json.get(begin..end).unwrap_or_default()
}

/// How many members an object may have to be read by ourselves. The specification knows twelve.
const MOST: usize = 14;

/// Puts the members of an object there, their names and their values as they are, and returns how many there are. The object
/// must be written as Go writes one: without spaces, with whole numbers only and with nothing escaped. `None` for any other
/// text, and for one with too many members.
fn plain_members<'a>(json: &'a [u8], members: &mut [(&'a str, &'a str); MOST]) -> Option<usize> {
    let mut rest = core::str::from_utf8(trimmed(json)).ok()?.strip_prefix('{')?.strip_suffix('}')?;
    for (before, place) in members.iter_mut().enumerate() {
        let (member, behind) = plain_member(rest)?;
        *place = member;
        if behind.is_empty() {
            return Some(before + 1);
        }
        rest = behind.strip_prefix(',')?;
    }
    None
}

/// The member at the beginning of a text, and what is behind it.
fn plain_member(text: &str) -> Option<((&str, &str), &str)> {
    let (name, behind) = text.split_at_checked(string_length(text.as_bytes())?)?;
    let behind = behind.strip_prefix(':')?;
    let (value, behind) = behind.split_at_checked(value_length(behind.as_bytes(), DEPTH)?)?;
    Some(((name.get(1..name.len() - 1)?, value), behind))
}

/// How many objects and arrays may be inside each other. A result has four.
const DEPTH: u8 = 16;

/// How long the value at the beginning of a text is, if it is a plain one.
fn value_length(text: &[u8], depth: u8) -> Option<usize> {
    match text.first()? {
        b'"' => string_length(text),
        b'{' => group_length(text, b'}', depth.checked_sub(1)?),
        b'[' => group_length(text, b']', depth.checked_sub(1)?),
        b'-' | b'0'..=b'9' => number_length(text),
        _ => [&b"true"[..], b"false", b"null"].into_iter().find(|word| text.starts_with(word)).map(<[u8]>::len),
    }
}

fn string_length(text: &[u8]) -> Option<usize> {
    let inside = text.strip_prefix(b"\"")?;
    let length = inside.iter().position(|byte| !is_plain(*byte))?;
    (inside.get(length) == Some(&b'"')).then_some(length + 2)
}

/// A fraction or an exponent is not part of it, and so nothing that may come next.
fn number_length(text: &[u8]) -> Option<usize> {
    let sign = usize::from(text.first() == Some(&b'-'));
    let digits = text.get(sign..)?;
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let canonical = count == 1 || count > 1 && digits.first() != Some(&b'0');
    canonical.then_some(sign + count)
}

/// An object, or an array, which ends with this.
fn group_length(text: &[u8], end: u8, depth: u8) -> Option<usize> {
    if text.get(1) == Some(&end) {
        return Some(2);
    }
    let mut at = 1;
    loop {
        if end == b'}' {
            at += string_length(text.get(at..)?)?;
            text.get(at).filter(|byte| **byte == b':')?;
            at += 1;
        }
        at += value_length(text.get(at..)?, depth)?;
        match text.get(at)? {
            b',' => at += 1,
            byte => return (*byte == end).then_some(at + 1),
        }
    }
}

/// Goes through an object, or through the array of that name.
fn walk<'a>(json: &'a [u8], array: Option<&str>, each: Each<'_, 'a>) -> Result<(), String> {
    let mut fault = None;
    let walk = Walk { array, each, fault: &mut fault };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let walked = match array {
        None => deserializer.deserialize_map(walk),
        Some(_) => deserializer.deserialize_seq(walk),
    };
    walked.and_then(|()| deserializer.end()).map_err(|e| fault.unwrap_or_else(|| e.to_string()))
}

struct Walk<'f, 'a> {
    array: Option<&'f str>,
    each: Each<'f, 'a>,
    /// Why `each` wants to stop. serde_json's own error would add a place in a text that may be part of another.
    fault: &'f mut Option<String>,
}

impl<'a> Walk<'_, 'a> {
    fn visit<E: Error>(&mut self, name: &str, raw: &'a RawValue) -> Result<(), E> {
        (self.each)(Value { name, raw: raw.get() }).map_err(|fault| {
            *self.fault = Some(fault);
            E::custom("stopped")
        })
    }
}

impl<'a> Visitor<'a> for Walk<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            self.visit(&name, map.next_value()?)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut array: A) -> Result<(), A::Error> {
        let name = self.array.unwrap_or_default();
        while let Some(raw) = array.next_element()? {
            self.visit(name, raw)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
