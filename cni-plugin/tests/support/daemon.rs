//! The plugin's peer, for tests: a daemon that speaks the real protocol over a real socket and answers as it is told.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dotfour_protocol::{Request, frame};
use rustix::io::IoSliceMut;
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType,
};

/// What is done with a call that has come in.
pub(crate) enum Deed {
    /// Send these bytes and close the connection.
    Say(Vec<u8>),
    /// Send these bytes and keep the connection open for a while, as the real one does.
    SayAndStay(Vec<u8>),
    /// Close the connection without a word.
    Close,
    /// Keep the connection open, and never answer.
    Nothing,
}

/// A listener with a thread that takes one call after the other, until it is dropped.
pub(crate) struct Daemon {
    socket: PathBuf,
    listener: OwnedFd,
    calls: Receiver<(Request, Vec<OwnedFd>)>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    pub(crate) fn start(socket: &Path, deed: impl Fn(&Request) -> Deed + Send + 'static) -> Daemon {
        let listener = listen(socket, SocketType::SEQPACKET, 64);
        let accepting = listener.try_clone().unwrap();
        let (sender, calls) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut kept = Vec::new();
            while let Ok(connection) = net::accept_with(&accepting, SocketFlags::CLOEXEC) {
                // A plugin that sends nothing is one that has been ended by its test.
                let Some((request, descriptors)) = receive(&connection) else { continue };
                match deed(&request) {
                    Deed::Say(reply) => drop(net::send(&connection, &reply, SendFlags::NOSIGNAL)),
                    Deed::SayAndStay(reply) => {
                        let _ = net::send(&connection, &reply, SendFlags::NOSIGNAL);
                        kept.push(connection);
                    }
                    Deed::Close => {}
                    Deed::Nothing => kept.push(connection),
                }
                if sender.send((request, descriptors)).is_err() {
                    return;
                }
            }
        });
        Daemon { socket: socket.to_owned(), listener, calls, thread: Some(thread) }
    }

    pub(crate) fn socket(&self) -> &str {
        self.socket.to_str().unwrap()
    }

    /// The next call that came in, with its descriptors.
    pub(crate) fn call(&self) -> (Request, Vec<OwnedFd>) {
        self.calls.recv_timeout(Duration::from_secs(10)).expect("no call has come in")
    }

    /// Whether every call that came in has been looked at.
    pub(crate) fn idle(&self) -> bool {
        self.calls.try_recv().is_err()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Wakes the thread out of accept.
        net::shutdown(&self.listener, Shutdown::Both).unwrap();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A listening socket of any type, which nobody serves yet.
pub(crate) fn listen(path: &Path, kind: SocketType, backlog: i32) -> OwnedFd {
    let listener = net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    net::bind(&listener, &SocketAddrUnix::new(path).unwrap()).unwrap();
    net::listen(&listener, backlog).unwrap();
    listener
}

fn receive(connection: &OwnedFd) -> Option<(Request, Vec<OwnedFd>)> {
    let mut bytes = vec![0; frame::MAX_REQUEST];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = net::recvmsg(connection, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let request = bytes.get(..received.bytes).filter(|request| !request.is_empty())?;
    Some((frame::decode_request(request).expect("the plugin sent what the daemon cannot read"), descriptors))
}
