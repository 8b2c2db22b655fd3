//! JSON read member by member, on top of serde_json.
//!
//! The plugin looks at two dozen members and passes by the rest. A derived reader costs the program 2 to 4 kB for each
//! type; this one is a page for all of them, and can say in plain words which member is wrong. An object of plain strings and
//! nothing else, as a runtime writes most configurations, is read without the library, which is cold code.

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
    match PlainStrings::of(json) {
        Some(mut plain) => plain.try_for_each(|(name, raw)| each(Value { name, raw })),
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

/// The members of an object that has only strings in which nothing is escaped, and is written without spaces: their names, and
/// their values with the quotes.
struct PlainStrings<'a>(&'a str);

impl<'a> PlainStrings<'a> {
    /// `None` for any other text.
    fn of(json: &'a [u8]) -> Option<Self> {
        let inside = core::str::from_utf8(trimmed(json)).ok()?.strip_prefix('{')?.strip_suffix('}')?;
        let mut rest = inside;
        loop {
            let (_, behind) = plain_member(rest)?;
            if behind.is_empty() {
                return Some(PlainStrings(inside));
            }
            rest = behind.strip_prefix(',')?;
        }
    }
}

impl<'a> Iterator for PlainStrings<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (member, behind) = plain_member(self.0)?;
        self.0 = behind.strip_prefix(',').unwrap_or_default();
        Some(member)
    }
}

/// The member at the beginning of a text, and what is behind it.
fn plain_member(text: &str) -> Option<((&str, &str), &str)> {
    let (name, behind) = plain_string(text)?;
    let (value, behind) = plain_string(behind.strip_prefix(':')?)?;
    Some(((name.get(1..name.len() - 1)?, value), behind))
}

/// The string at the beginning of a text, with its quotes, and what is behind it.
fn plain_string(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('"')?;
    let length = inside.bytes().position(|byte| !is_plain(byte))?;
    if inside.as_bytes().get(length) != Some(&b'"') {
        return None;
    }
    text.split_at_checked(length + 2)
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
