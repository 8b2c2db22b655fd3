//! The journal's records as bytes. Pure.
//!
//! A record is a frame: length (4 bytes, little endian), CRC-32 of the payload (4 bytes), payload in JSON. The file
//! begins with a [`Record::Header`].
//!
//! Versions: a record of a kind that this version does not know is skipped and counted, so that a later version can add
//! kinds; [`SCHEMA`] moves only when records change their meaning, and a file says with `oldest_reader` who still
//! understands it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dotfour_protocol::frame::MAX_MESSAGE;
use dotfour_protocol::plain::{NotPlain, Writer};
use dotfour_protocol::{AttachmentKey, PodName};
use serde::{Deserialize, Serialize};

/// The version of the records in this module.
pub const SCHEMA: u16 = 1;

/// The longest payload that is believed. A pod's record has some 300 bytes, and none has much more than the message that it is
/// made of.
const MAX_PAYLOAD: usize = 2 * MAX_MESSAGE;

const FRAME_HEADER: usize = 8;

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    /// The first record of a file.
    Header {
        /// [`SCHEMA`] of the writer.
        schema: u16,
        /// The lowest schema whose reader understands the file.
        oldest_reader: u16,
        /// The kernel's boot id: another one means that no pod of the file lives.
        boot_id: String,
        /// The VM's unique id, empty where there is none.
        machine_id: String,
    },
    /// A key got its addresses.
    Assigned {
        /// Whose they are.
        key: Arc<AttachmentKey>,
        /// The pod's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<Arc<PodName>>,
        /// The addresses.
        addresses: Vec<IpAddr>,
        /// When its ADD was started.
        started: Duration,
        /// Whether another plugin wires the pod. Absent where it does not, as in files from before there was such a thing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        delegated: bool,
    },
    /// A key's addresses were released and cool down.
    Released {
        /// Whose they were.
        key: Arc<AttachmentKey>,
        /// When.
        since: Duration,
    },
    /// A key's addresses were taken back unused.
    Cancelled {
        /// Whose they were.
        key: Arc<AttachmentKey>,
    },
    /// An address cools down; stands in a compacted file for the records that led to it.
    Cooling {
        /// The address.
        address: IpAddr,
        /// Since when.
        since: Duration,
    },
    /// A DEL came for a key without a lease.
    Ended {
        /// The key.
        key: Arc<AttachmentKey>,
        /// When the DEL was started.
        at: Duration,
    },
}

impl Record {
    /// Appends the record's frame.
    pub fn append_to(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        bytes.extend([0; FRAME_HEADER]);
        let mut out = Writer::behind(std::mem::take(bytes));
        let written = self.write_plainly(&mut out);
        *bytes = out.into_bytes();
        if written.is_err() {
            bytes.truncate(start + FRAME_HEADER);
            // Serialising these types into memory cannot fail; a frame without payload would read as damage.
            let _ = serde_json::to_writer(&mut *bytes, self);
        }
        let payload = bytes.get(start + FRAME_HEADER..).unwrap_or_default();
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
        let checksum = crc32fast::hash(payload).to_le_bytes();
        if let Some(header) = bytes.get_mut(start..start + FRAME_HEADER) {
            for (place, byte) in header.iter_mut().zip(length.into_iter().chain(checksum)) {
                *place = byte;
            }
        }
    }
}

impl Record {
    /// Writes what serde_json would, of the records that ADDs and DELs wait for. What was written before an error is void.
    fn write_plainly(&self, out: &mut Writer) -> Result<(), NotPlain> {
        match self {
            Record::Assigned { key, pod, addresses, started, delegated } => {
                out.key(r#"{"assigned":{"key":"#, key)?;
                if let Some(pod) = pod {
                    out.pod(r#","pod":"#, pod)?;
                }
                out.raw(r#","addresses":["#);
                for (place, address) in addresses.iter().enumerate() {
                    out.raw(if place == 0 { "\"" } else { ",\"" });
                    out.address(*address);
                    out.raw("\"");
                }
                write_moment(out, r#"],"started":"#, *started);
                if *delegated {
                    out.raw(r#","delegated":true"#);
                }
            }
            Record::Released { key, since } => {
                out.key(r#"{"released":{"key":"#, key)?;
                write_moment(out, r#","since":"#, *since);
            }
            Record::Ended { key, at } => {
                out.key(r#"{"ended":{"key":"#, key)?;
                write_moment(out, r#","at":"#, *at);
            }
            Record::Header { .. } | Record::Cancelled { .. } | Record::Cooling { .. } => return Err(NotPlain),
        }
        out.raw("}}");
        Ok(())
    }
}

/// A member that is a duration, as serde has it.
fn write_moment(out: &mut Writer, before: &str, moment: Duration) {
    out.raw(before);
    out.raw(r#"{"secs":"#);
    out.number(moment.as_secs());
    out.raw(r#","nanos":"#);
    out.number(moment.subsec_nanos().into());
    out.raw("}");
}

/// What a file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The records up to the first damage.
    pub records: Vec<Record>,
    /// How many records are of a kind that this version does not know.
    pub unknown: usize,
    /// Where the file stops making sense, and how many bytes are behind that.
    pub damage: Option<Damage>,
}

/// The end of a file that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// The first byte that makes no sense.
    pub offset: usize,
    /// How many bytes are dropped.
    pub dropped: usize,
}

/// Reads a file. Any bytes are accepted.
pub fn read(bytes: &[u8]) -> Contents {
    let mut contents = Contents::default();
    let mut offset = 0;
    while offset < bytes.len() {
        let rest = bytes.get(offset..).unwrap_or_default();
        let Some(payload) = frame(rest) else {
            contents.damage = Some(Damage { offset, dropped: rest.len() });
            break;
        };
        match serde_json::from_slice(payload) {
            Ok(record) => contents.records.push(record),
            // The checksum is right, so somebody wrote exactly this: a later version.
            Err(_) => contents.unknown += 1,
        }
        offset += FRAME_HEADER + payload.len();
    }
    contents
}

/// The payload of the frame at the beginning of these bytes, if there is a whole one.
fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let (header, rest) = bytes.split_at_checked(FRAME_HEADER)?;
    let (length, checksum) = header.split_at_checked(4)?;
    let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
    if length == 0 || length > MAX_PAYLOAD {
        return None;
    }
    let payload = rest.get(..length)?;
    (crc32fast::hash(payload) == u32::from_le_bytes(checksum.try_into().ok()?)).then_some(payload)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> Vec<Record> {
        let key = |n: u32| {
            Arc::new(AttachmentKey { network: "azure".into(), container_id: format!("c{n}"), ifname: "eth0".into() })
        };
        vec![
            Record::Header { schema: 1, oldest_reader: 1, boot_id: "b".into(), machine_id: String::new() },
            Record::Assigned {
                key: key(1),
                pod: Some(Arc::new(PodName { namespace: "default".into(), name: "web-0".into() })),
                addresses: vec!["10.240.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
                started: Duration::from_nanos(1_234_567_890_123),
                delegated: false,
            },
            Record::Assigned {
                key: key(4),
                pod: None,
                addresses: vec!["10.240.0.6".parse().unwrap()],
                started: Duration::from_nanos(7),
                delegated: true,
            },
            Record::Released { key: key(1), since: Duration::from_secs(7) },
            Record::Cancelled { key: key(2) },
            Record::Cooling { address: "10.240.0.9".parse().unwrap(), since: Duration::from_secs(3) },
            Record::Ended { key: key(3), at: Duration::from_secs(4) },
        ]
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![8 => "[a-z0-9._-]{0,30}", 1 => any::<String>()]
    }

    proptest! {
        #[test]
        fn a_record_s_payload_is_what_serde_json_writes(
            names in [text(), text(), text(), text()],
            addresses in prop::collection::vec(prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from),
                any::<[u8; 16]>().prop_map(IpAddr::from)], 0..3),
            moment: Duration,
            named: bool,
            delegated: bool,
        ) {
            let [network, container_id, ifname, name] = names;
            let pod = named.then(|| Arc::new(PodName { namespace: name.clone(), name }));
            let key = Arc::new(AttachmentKey { network, container_id, ifname });
            for record in [
                Record::Assigned { key: key.clone(), pod, addresses, started: moment, delegated },
                Record::Released { key: key.clone(), since: moment },
                Record::Cancelled { key: key.clone() },
                Record::Ended { key, at: moment },
            ] {
                let mut bytes = vec![1, 2, 3];
                record.append_to(&mut bytes);
                prop_assert_eq!(&bytes[..3], &[1, 2, 3]);
                prop_assert_eq!(&bytes[3 + FRAME_HEADER..], &serde_json::to_vec(&record).unwrap()[..]);
            }
        }
    }

    fn bytes() -> Vec<u8> {
        let mut bytes = Vec::new();
        records().iter().for_each(|record| record.append_to(&mut bytes));
        bytes
    }

    #[test]
    fn every_kind_of_record_is_read_back() {
        assert_eq!(read(&bytes()), Contents { records: records(), unknown: 0, damage: None });
    }

    #[test]
    fn a_file_cut_anywhere_gives_the_whole_records_before_the_cut() {
        let whole = bytes();
        for end in 0..whole.len() {
            let contents = read(&whole[..end]);
            assert_eq!(contents.records, records()[..contents.records.len()]);
            let kept: usize = {
                let mut kept = Vec::new();
                contents.records.iter().for_each(|record| record.append_to(&mut kept));
                kept.len()
            };
            let expected = (kept < end).then_some(Damage { offset: kept, dropped: end - kept });
            assert_eq!(contents.damage, expected, "cut at {end}");
        }
    }

    #[test]
    fn a_byte_changed_anywhere_is_noticed() {
        let whole = bytes();
        for offset in 0..whole.len() {
            let mut changed = whole.clone();
            changed[offset] ^= 0x20;
            let contents = read(&changed);
            assert!(contents.damage.is_some_and(|damage| damage.offset <= offset), "at {offset}");
            assert_eq!(contents.records, records()[..contents.records.len()]);
        }
    }

    #[test]
    fn a_later_version_s_record_is_skipped_and_counted() {
        let mut bytes = Vec::new();
        records()[0].append_to(&mut bytes);
        let payload = br#"{"teleported":{"to":"mars"}}"#;
        bytes.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
        bytes.extend(crc32fast::hash(payload).to_le_bytes());
        bytes.extend(payload);
        records()[2].append_to(&mut bytes);
        let contents = read(&bytes);
        assert_eq!((contents.records.len(), contents.unknown, contents.damage), (2, 1, None));
    }

    #[test]
    fn zeroes_and_nothing_are_read_without_a_record() {
        assert_eq!(read(&[]), Contents::default());
        assert_eq!(read(&[0; 4096]).damage, Some(Damage { offset: 0, dropped: 4096 }));
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&bytes);
        }
    }

    #[test]
    fn the_records_of_the_longest_messages_are_read_again() {
        // Of six bytes each in a message, as in a record.
        let longest = |room: usize| vec!["\u{1}"; room / 6].concat();
        let key = |room| {
            Arc::new(AttachmentKey { network: "azure".into(), container_id: longest(room), ifname: "eth0".into() })
        };
        let ended = Record::Ended { key: key(MAX_MESSAGE), at: Duration::MAX };
        let assigned = Record::Assigned {
            key: key(MAX_MESSAGE / 2),
            pod: Some(Arc::new(PodName { namespace: "default".into(), name: longest(MAX_MESSAGE / 2) })),
            addresses: vec![
                "255.255.255.255".parse().unwrap(),
                "fd00:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(),
            ],
            started: Duration::MAX,
            delegated: true,
        };
        for record in [ended, assigned] {
            let mut bytes = Vec::new();
            record.append_to(&mut bytes);
            assert!(bytes.len() > MAX_MESSAGE - 10);
            assert_eq!(read(&bytes), Contents { records: vec![record], unknown: 0, damage: None });
        }
    }
}
