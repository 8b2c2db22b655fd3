//! A netlink socket on which the kernel tells of changes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use socket2::{SockFilter, SockRef};

/// Room for a thousand changes at once, and for a reload of all of kube-proxy's rules; the kernel charges some 2 KiB for
/// each. In bytes.
const ROOM: usize = 4 * 1024 * 1024;
/// The longest datagram, in bytes.
const LONGEST: usize = 64 * 1024;

/// Who tells of what.
#[derive(Debug, Clone, Copy)]
pub struct Group<'g> {
    /// The part of the kernel; route netlink where none is given.
    pub protocol: Option<Protocol>,
    /// The group, as a bit.
    pub bit: u32,
    /// A classic BPF program that says what is worth waking somebody for; everything where it is empty.
    pub filter: &'g [SockFilter],
}

/// What was heard.
#[derive(Debug)]
pub enum Heard<'l> {
    /// One datagram, which may hold several messages.
    Messages(&'l [u8]),
    /// There was more than the socket had room for: some of it is lost.
    Missed,
}

/// A socket that listens. It belongs for life to the network namespace it was opened in.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Listener {
    /// Listens in the calling thread's network namespace, from this moment on.
    pub fn open(group: Group<'_>) -> io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, group.protocol)?;
        // Without the privilege the default room has to do; what does not fit is reported as missed.
        let _ = set_socket_recv_buffer_size_force(&fd, ROOM);
        if !group.filter.is_empty() {
            SockRef::from(&fd).attach_filter(group.filter)?;
        }
        bind(&fd, &SocketAddrNetlink::new(0, group.bit))?;
        Ok(Listener { fd, buffer: vec![0; LONGEST] })
    }

    /// Waits for the next.
    pub fn wait(&mut self) -> io::Result<Heard<'_>> {
        self.receive(RecvFlags::empty())
    }

    /// The next, if there is one.
    pub fn poll(&mut self) -> io::Result<Option<Heard<'_>>> {
        match self.receive(RecvFlags::DONTWAIT) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            heard => heard.map(Some),
        }
    }

    fn receive(&mut self, flags: RecvFlags) -> io::Result<Heard<'_>> {
        match rustix::io::retry_on_intr(|| recv(&self.fd, &mut *self.buffer, flags)) {
            Ok((length, _)) => Ok(Heard::Messages(self.buffer.get(..length).unwrap_or_default())),
            Err(Errno::NOBUFS) => Ok(Heard::Missed),
            Err(e) => Err(e.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
