//! The gateway's side of IPv6 neighbour discovery: router advertisements, and an answer with the fabric's MAC to whoever
//! asks for any address.
//!
//! The kernel answers for the gateway's own address; everything else is answered here, on one thread, from a packet
//! socket whose filter lets solicitations through and nothing else. So traffic wakes nobody.

mod packet;

pub(crate) use packet::{ALL_NODES, router_advertisement};

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::net::SocketAddrV6;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dotfour_datapath::Netns;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

/// `ETH_P_IPV6` of linux/if_ether.h.
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// How often every NIC hears of its router without asking.
const EVERY: Duration = Duration::from_secs(600);

/// Neighbour discovery in a fabric. Ends when dropped.
#[derive(Debug)]
pub(super) struct Discovery {
    sender: Sender,
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Discovery {
    /// Starts it in the fabric's namespace.
    pub(super) fn start(fabric: &Netns) -> io::Result<Self> {
        let (sender, packets) = fabric.run(|| Ok::<_, io::Error>((Sender::open()?, packet_socket()?))).flatten()?;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let advertiser = sender.clone();
        let thread = std::thread::Builder::new()
            .name("discovery".to_owned())
            .spawn(move || serve(&packets, &stopped, &advertiser))?;
        Ok(Discovery { sender, stop: Some(stop), thread: Some(thread) })
    }

    /// Sends a router advertisement out of a link, and from now on every ten minutes.
    pub(super) fn advertise(&self, link: u32) -> io::Result<()> {
        self.sender.links().insert(link);
        self.sender.advertise(link)
    }

    /// Forgets a link.
    pub(super) fn forget(&self, link: u32) {
        self.sender.links().remove(&link);
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends what nobody asked for.
#[derive(Debug, Clone)]
struct Sender {
    socket: Arc<Socket>,
    links: Arc<Mutex<BTreeSet<u32>>>,
}

impl Sender {
    fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        // RFC 4861: what comes with less may have come from elsewhere, and is ignored.
        socket.set_multicast_hops_v6(255)?;
        // Nor is the fabric a node.
        socket.set_multicast_loop_v6(false)?;
        // It hears nothing: all that comes is for the kernel and for the packet socket.
        socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
        Ok(Sender { socket: Arc::new(socket), links: Arc::default() })
    }

    fn advertise(&self, link: u32) -> io::Result<()> {
        let everybody = SocketAddrV6::new(packet::ALL_NODES, 0, 0, link);
        self.socket.send_to(&packet::router_advertisement(), &SockAddr::from(everybody)).map(drop)
    }

    /// Guards a few numbers; never held over IO.
    fn links(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(packets: &Socket, stopped: &OwnedFd, advertiser: &Sender) {
    let every = Timespec::try_from(EVERY).ok();
    loop {
        let mut ready = [PollFd::new(packets, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut ready, every.as_ref()) {
            Ok(0) => {
                let links = advertiser.links().clone();
                // A link that is down just misses it.
                links.into_iter().for_each(|link| drop(advertiser.advertise(link)));
                continue;
            }
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(e) => return eprintln!("neighbour discovery: {e}"),
        }
        let [packet, end] = ready;
        if !end.revents().is_empty() {
            return;
        }
        if !packet.revents().is_empty() {
            answer_one(packets);
        }
    }
}

/// A solicitation that cannot be read or answered is repeated by whoever sent it.
fn answer_one(packets: &Socket) {
    // This address names the link it came by, and an answer to it leaves by the same.
    let Ok(from) = packets.peek_sender() else { return };
    let mut frame = [0; 256];
    let Ok(length) = (&mut &*packets).read(&mut frame) else { return };
    if let Some(question) = frame.get(..length).and_then(packet::read) {
        let _ = packets.send_to(&packet::answer(&question), &from);
    }
}

const LOAD_BYTE: u16 = 0x30;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// A socket that hears router and neighbour solicitations on every link, with their Ethernet headers.
fn packet_socket() -> io::Result<Socket> {
    let protocol = Protocol::from(i32::from(ETHERTYPE_IPV6.to_be()));
    // Without a protocol it hears nothing, so nothing comes before the filter is there.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    socket.attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, 20),
        SockFilter::new(JUMP_IF_EQUAL, 0, 4, 58),
        SockFilter::new(LOAD_BYTE, 0, 0, 54),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, 133),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 135),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ])?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
