//! A daemon that knows its answers beforehand, so that a plugin can be timed alone: process, parsing, round trip, printing.

use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::thread;

use dotfour_protocol::{Call, Reply, frame};
use rustix::io::IoSliceMut;
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// The answer to an ADD, as the daemon writes it.
const RESULT: &str = r#"{"cniVersion":"1.1.0","interfaces":[{"name":"azv0123456789a","mac":"aa:aa:aa:aa:aa:aa"},{"name":"eth0","mac":"0a:d4:0a:f0:10:04","sandbox":"/run/netns/cni-01234567-89ab-cdef-0123-456789abcdef"}],"ips":[{"interface":1,"address":"10.240.16.4/32","gateway":"169.254.1.1"}],"routes":[{"dst":"169.254.1.1/32"},{"dst":"0.0.0.0/0","gw":"169.254.1.1"}],"dns":{}}
"#;

/// Serves a socket until the process ends, one call after the other.
pub(crate) fn start(socket: &Path) -> io::Result<()> {
    let listener = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    net::bind(&listener, &SocketAddrUnix::new(socket)?)?;
    net::listen(&listener, 64)?;
    let written = |reply: Reply| {
        let refused = |failure: dotfour_protocol::Failure| io::Error::other(failure.message);
        frame::encode_reply(&reply).map(std::borrow::Cow::into_owned).map_err(refused)
    };
    let (attached, detached) = (written(Reply::Printed(RESULT.to_owned()))?, written(Reply::Detached)?);
    let mut request = vec![0; frame::MAX_REQUEST];
    thread::spawn(move || {
        while let Ok(connection) = net::accept_with(&listener, SocketFlags::CLOEXEC) {
            // What a descriptor is received into is closed with it.
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut request)];
            let received = net::recvmsg(&connection, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC);
            let length = received.map(|message| message.bytes).unwrap_or_default();
            // One that has no answer fails the race, which says what the plugin said.
            let answer = match request.get(..length).map(frame::decode_request) {
                Some(Ok(asked)) if matches!(asked.call, Call::Add(_)) => &attached,
                _ => &detached,
            };
            let _ = net::send(&connection, answer, SendFlags::NOSIGNAL);
        }
    });
    Ok(())
}
