//! JSON that is written as it comes, without a library: of literal parts, numbers, addresses, and texts in which nothing has to
//! be escaped.
//!
//! For what is written once for each pod: there, a library's many small functions cost more than what they do, because the
//! processor has forgotten them since the last pod. Whoever writes so keeps the library for texts that must be escaped.

use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::{AttachmentKey, PodName};

/// A text that grows.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

/// A text has to be escaped, and was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotPlain;

impl Writer {
    /// Goes on behind what is there, which keeps its memory.
    pub fn behind(text: Vec<u8>) -> Self {
        Writer(text)
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Makes room for so many bytes more, so that memory is asked for once.
    pub fn reserve(&mut self, more: usize) {
        self.0.reserve(more);
    }

    /// A literal part.
    pub fn raw(&mut self, part: &str) {
        self.0.extend_from_slice(part.as_bytes());
    }

    /// A literal part, and a string behind it.
    ///
    /// # Errors
    /// The string has to be escaped. Nothing was written.
    pub fn string(&mut self, before: &str, text: &str) -> Result<(), NotPlain> {
        if !text.bytes().all(is_plain) {
            return Err(NotPlain);
        }
        self.raw(before);
        self.raw("\"");
        self.raw(text);
        self.raw("\"");
        Ok(())
    }

    /// A literal part, and a string behind it, escaped where it must be.
    pub fn escaped(&mut self, before: &str, text: &str) {
        if self.string(before, text).is_err() {
            self.raw(before);
            // Writing to memory cannot fail.
            self.0.extend(serde_json::to_vec(text).unwrap_or_default());
        }
    }

    /// A literal part, and a key behind it, as serde has it.
    ///
    /// # Errors
    /// Something in it has to be escaped; what was written is of no use.
    pub fn key(&mut self, before: &str, key: &AttachmentKey) -> Result<(), NotPlain> {
        let AttachmentKey { network, container_id, ifname } = key;
        self.raw(before);
        self.string(r#"{"network":"#, network)?;
        self.string(r#","container_id":"#, container_id)?;
        self.string(r#","ifname":"#, ifname)?;
        self.raw("}");
        Ok(())
    }

    /// A literal part, and a pod's name behind it, as serde has it.
    ///
    /// # Errors
    /// As [`Writer::key`].
    pub fn pod(&mut self, before: &str, pod: &PodName) -> Result<(), NotPlain> {
        let PodName { namespace, name } = pod;
        self.raw(before);
        self.string(r#"{"namespace":"#, namespace)?;
        self.string(r#","name":"#, name)?;
        self.raw("}");
        Ok(())
    }

    /// A number.
    pub fn number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut used = 0;
        for digit in digits.iter_mut().rev() {
            // A remainder of ten is a digit.
            *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
            used += 1;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.0.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
    }

    /// An address, without quotes.
    pub fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.v4(v4),
            // Which zeros are left out is the library's business. Writing to memory cannot fail.
            IpAddr::V6(v6) => drop(write!(self, "{v6}")),
        }
    }

    /// An address with the length of its prefix, without quotes.
    pub fn net(&mut self, net: IpNet) {
        self.address(net.addr());
        self.raw("/");
        self.number(net.prefix_len().into());
    }

    fn v4(&mut self, address: Ipv4Addr) {
        for (place, octet) in address.octets().into_iter().enumerate() {
            if place > 0 {
                self.raw(".");
            }
            self.number(octet.into());
        }
    }
}

impl Write for Writer {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.raw(part);
        Ok(())
    }
}

/// Whether a byte of a text stands for itself in JSON (RFC 8259, section 7). Those above ASCII do.
pub const fn is_plain(byte: u8) -> bool {
    byte >= b' ' && byte != b'"' && byte != b'\\'
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};

    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Writer)) -> String {
        let mut writer = Writer::default();
        write(&mut writer);
        String::from_utf8(writer.into_bytes()).unwrap()
    }

    proptest! {
        #[test]
        fn numbers_and_addresses_are_the_library_s(number: u64, v4: [u8; 4], v6: [u8; 16], length in 0_u8..=32) {
            prop_assert_eq!(written(|w| w.number(number)), number.to_string());
            for address in [IpAddr::from(v4), IpAddr::from(v6)] {
                prop_assert_eq!(written(|w| w.address(address)), address.to_string());
                let net = IpNet::new(address, length).unwrap();
                prop_assert_eq!(written(|w| w.net(net)), net.to_string());
            }
        }

        #[test]
        fn a_string_is_the_library_s_or_not_written(text: String) {
            let mut writer = Writer::default();
            let outcome = writer.string("", &text);
            let expected = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(written(|w| w.escaped("", &text)), expected.clone());
            match outcome {
                Ok(()) => prop_assert_eq!(writer.into_bytes(), expected.into_bytes()),
                Err(NotPlain) => {
                    prop_assert!(writer.into_bytes().is_empty());
                    prop_assert!(expected.contains('\\'));
                }
            }
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_written_too() {
        for number in [0, 9, 10, 255, u64::MAX] {
            assert_eq!(written(|w| w.number(number)), number.to_string());
        }
    }
}
