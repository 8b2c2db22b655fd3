//! Several netlink requests in one send.
//!
//! The kernel works through the messages of one `sendto` in order and answers each failed one, so a whole pod costs one
//! system call. A batch is not a transaction: a message behind a failed one is still carried out. Whoever builds a
//! batch must be able to undo all of it.

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;

/// How many requests go out in one send. The kernel queues an answer for each that it refuses, also for those whose
/// refusal is tolerated, and drops what is too much: of 832 bytes each, the usual buffer of 208 KiB takes 256.
pub(crate) const PART: usize = 64;

/// Requests to be sent together, each with the name of its step for error messages.
#[derive(Debug)]
pub struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) steps: Vec<Step>,
}

/// One request of a batch, as its answer is judged.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) tolerated: Option<Errno>,
    /// The object asked for is the answer; there is no acknowledgement behind it.
    pub(crate) answered_by_object: bool,
    pub(crate) starts_at: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Batch::new()
    }
}

/// Room for as much as a pod's end needs, in bytes and in requests.
const USUAL: (usize, usize) = (1024, 8);

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        let (bytes, steps) = USUAL;
        Batch { bytes: Vec::with_capacity(bytes), steps: Vec::with_capacity(steps) }
    }

    /// This batch, empty, with the room it has if that is a usual one's.
    pub(crate) fn emptied(mut self) -> Self {
        let (bytes, steps) = USUAL;
        self.bytes.clear();
        self.steps.clear();
        self.bytes.shrink_to(2 * bytes);
        self.steps.shrink_to(2 * steps);
        self
    }

    /// Adds a request. `step` says in an operator's words what it does ("add the host route"). `flags` come on top of
    /// `NLM_F_REQUEST`.
    ///
    /// Building a request this way is slow where it is done once in a while: the path of a pod has its own, `request.rs`.
    pub fn push(&mut self, step: &'static str, message: RouteNetlinkMessage, flags: u16) {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let starts_at = self.bytes.len();
        self.bytes.resize(starts_at + message.buffer_len(), 0);
        if let Some(space) = self.bytes.get_mut(starts_at..) {
            message.serialize(space);
        }
        self.end_request(step, starts_at);
    }

    /// [`Batch::push`], for another protocol than route netlink's.
    pub(crate) fn push_raw(&mut self, step: &'static str, message_type: u16, flags: u16, payload: &[u8]) {
        let starts_at = self.begin_request(message_type, flags);
        self.bytes.extend_from_slice(payload);
        self.end_request(step, starts_at);
    }

    /// Writes a request's header, and says where it begins. What is written up to [`Batch::end_request`] is the request's.
    pub(crate) fn begin_request(&mut self, message_type: u16, flags: u16) -> usize {
        let starts_at = self.bytes.len();
        // The length is known at the end, the sequence number when it is sent, and the kernel gives the port's.
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&message_type.to_ne_bytes());
        self.bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        starts_at
    }

    /// Ends the request that began there.
    pub(crate) fn end_request(&mut self, step: &'static str, starts_at: usize) {
        let length = u32::try_from(self.bytes.len() - starts_at).unwrap_or(u32::MAX);
        if let Some(field) = self.bytes.get_mut(starts_at..starts_at + 4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        // Netlink wants messages at multiples of four.
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.steps.push(Step { name: step, tolerated: None, answered_by_object: false, starts_at });
    }

    /// Makes the object that the request added last asks for its answer: an acknowledgement behind it would be one more to
    /// read.
    pub(crate) fn answered_by_object(&mut self) {
        if let Some(last) = self.steps.last_mut() {
            last.answered_by_object = true;
        }
    }

    /// Lets the kernel refuse the request added last for one reason, which then counts as success. For requests whose
    /// goal is reached already: deleting what is gone, adding what is there.
    pub fn tolerate(&mut self, errno: Errno) {
        if let Some(last) = self.steps.last_mut() {
            last.tolerated = Some(errno);
        }
    }

    /// How many requests it holds.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Makes it ready to be sent: its requests are numbered from `first`, with an acknowledgement asked for the last of each [`PART`]
    /// only: errors are answered anyway, and each acknowledgement spared is a socket buffer spared.
    pub(crate) fn number(&mut self, first: u32) {
        const FLAGS_OFFSET: usize = 6;
        const SEQUENCE_OFFSET: usize = 8;
        for (sequence, step) in (0..).map(|place| first.wrapping_add(place)).zip(&self.steps) {
            let place = step.starts_at + SEQUENCE_OFFSET;
            if let Some(field) = self.bytes.get_mut(place..place + 4) {
                field.copy_from_slice(&sequence.to_ne_bytes());
            }
        }
        for last in self.steps.chunks(PART).filter_map(<[Step]>::last).filter(|last| !last.answered_by_object) {
            if let Some(flags) = self.bytes.get_mut(last.starts_at + FLAGS_OFFSET..last.starts_at + FLAGS_OFFSET + 2)
                && let [low, high] = flags
            {
                let with_ack = u16::from_ne_bytes([*low, *high]) | NLM_F_ACK;
                [*low, *high] = with_ack.to_ne_bytes();
            }
        }
    }
}

/// One answer of the kernel, as far as it has to be taken apart.
#[derive(Debug)]
pub(crate) enum Answer<'d> {
    /// The request was carried out.
    Acknowledged,
    /// The request failed, or a dump did half way.
    Failed(Errno),
    /// An object that was asked for. Not everybody who asks wants to read it.
    Object(Object<'d>),
    /// The end of a dump.
    Done,
    /// Nothing of interest.
    Noise,
}

/// An object as the kernel sent it.
#[derive(Debug)]
pub(crate) struct Object<'d>(&'d [u8]);

impl Object<'_> {
    /// Reads it. `None` if it is no object of route netlink.
    pub(crate) fn read(&self) -> Result<Option<RouteNetlinkMessage>, DecodeError> {
        Ok(match NetlinkMessage::<RouteNetlinkMessage>::deserialize(self.0)?.payload {
            NetlinkPayload::InnerMessage(object) => Some(object),
            _ => None,
        })
    }
}

impl<'d> Object<'d> {
    /// What it is, and what is said of it (`RTM_*`).
    pub(crate) fn kind(&self) -> Option<u16> {
        self.0.get(4..)?.first_chunk().map(|kind| u16::from_ne_bytes(*kind))
    }

    /// What is behind the message's header.
    pub(crate) fn payload(&self) -> &'d [u8] {
        self.0.get(HEADER..).unwrap_or_default()
    }

    /// The interface index of a link (`struct ifinfomsg`, the second word), without reading all that is said of it.
    pub(crate) fn link_index(&self) -> Option<u32> {
        self.payload().get(4..)?.first_chunk().map(|index| u32::from_ne_bytes(*index))
    }
}

/// The first message type that is not netlink's own (netlink(7), `NLMSG_MIN_TYPE`).
const FIRST_OBJECT_TYPE: u16 = 16;

/// The length of a message's header, in bytes.
const HEADER: usize = 16;

/// One message of the kernel's: whose it is, and what it says.
#[derive(Debug)]
pub(crate) struct Said<'d> {
    /// The sequence number of the request.
    pub(crate) sequence: u32,
    /// Whether what is dumped has changed meanwhile, so that something may be missing in all that is dumped. One message of a dump
    /// says so, and not the last.
    pub(crate) interrupted: bool,
    pub(crate) answer: Answer<'d>,
}

/// Takes a datagram from the kernel apart.
pub(crate) fn answers(mut datagram: &[u8]) -> impl Iterator<Item = Result<Said<'_>, DecodeError>> {
    std::iter::from_fn(move || {
        if datagram.len() < HEADER {
            return None;
        }
        let message = match NetlinkBuffer::new_checked(datagram) {
            Ok(message) => message,
            Err(e) => {
                datagram = &[];
                return Some(Err(e));
            }
        };
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        let object = Object(datagram.get(..length).unwrap_or(datagram));
        let answer = match message.message_type() {
            FIRST_OBJECT_TYPE.. => Ok(Answer::Object(object)),
            own => control(own, object.payload()),
        };
        let (sequence, interrupted) = (message.sequence_number(), message.flags() & NLM_F_DUMP_INTR != 0);
        let answer = answer.map(|answer| Said { sequence, interrupted, answer });
        let length = length.max(HEADER);
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(answer)
    })
}

/// Reads one of netlink's own messages (netlink(7), "Netlink messages"): its type, and what is behind its header.
fn control(message_type: u16, payload: &[u8]) -> Result<Answer<'static>, DecodeError> {
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;
    let code = || payload.first_chunk().map(|code| i32::from_ne_bytes(*code));
    let failed = |code: i32| Answer::Failed(Errno::from_raw_os_error(code.saturating_abs()));
    Ok(match message_type {
        NLMSG_ERROR => match code() {
            Some(0) => Answer::Acknowledged,
            Some(code) => failed(code),
            None => return Err(DecodeError::from("an error without its number")),
        },
        // What is positive is how much there was.
        NLMSG_DONE => code().filter(|code| *code < 0).map_or(Answer::Done, failed),
        _ => Answer::Noise,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as the kernel would send it.
    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn read(datagram: &[u8]) -> Vec<(u32, String)> {
        let word = |answer: Answer<'_>| match answer {
            Answer::Object(object) => format!("object of {}", object.payload().len()),
            other => format!("{other:?}"),
        };
        let read = answers(datagram);
        read.map(|said| said.map_or((0, "unreadable".into()), |said| (said.sequence, word(said.answer)))).collect()
    }

    #[test]
    fn each_message_of_a_datagram_is_read_also_behind_one_of_odd_length() {
        let datagram = [
            message(16, 0, 7, &[1, 2, 3]),
            message(2, 0, 8, &(-3_i32).to_ne_bytes()),
            message(2, 0, 9, &0_i32.to_ne_bytes()),
            message(1, 0, 10, &[]),
        ]
        .concat();
        let said = [(7, "object of 3".to_owned()), (8, format!("Failed({:?})", Errno::SRCH))];
        let said = said.into_iter().chain([(9, "Acknowledged".to_owned()), (10, "Noise".to_owned())]);
        assert_eq!(read(&datagram), said.collect::<Vec<_>>());
    }

    #[test]
    fn a_dump_that_failed_is_not_done() {
        let done = |code: i32| read(&message(3, 2, 1, &code.to_ne_bytes()));
        assert_eq!(done(0), [(1, "Done".to_owned())]);
        assert_eq!(done(40), [(1, "Done".to_owned())]);
        assert_eq!(done(-12), [(1, format!("Failed({:?})", Errno::NOMEM))]);
    }

    #[test]
    fn what_is_cut_off_is_unreadable() {
        let whole = message(2, 0, 1, &0_i32.to_ne_bytes());
        assert_eq!(read(&whole[..18]), [(0, "unreadable".to_owned())]);
        assert_eq!(read(&message(2, 0, 1, &[0, 0])), [(0, "unreadable".to_owned())]);
        assert_eq!(read(&whole[..15]), []);
    }
}
