//! "Who came by?": the addresses of all IP packets that arrive in a namespace, forwarded ones too.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use dotfour_datapath::Netns;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use socket2::{Domain, Protocol, Socket, Type};

/// `ETH_P_IP` and `ETH_P_IPV6` of linux/if_ether.h.
const ETHERTYPES: [u16; 2] = [0x0800, 0x86dd];

/// How often each pair of source and destination came by.
type Passers = BTreeMap<(IpAddr, IpAddr), u64>;

/// Counts arriving packets by source and destination. Ends when dropped.
#[derive(Debug)]
pub struct Witness {
    post: Arc<Post>,
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// Where it stands, and what it wrote down. What is not written down yet waits in the sockets; a look at the list reads
/// them first, so that a packet whose answer has come is never missing.
#[derive(Debug)]
struct Post {
    sockets: Vec<Socket>,
    passers: Mutex<Passers>,
}

impl Witness {
    /// Starts to look, at the packets of all links of the namespace.
    pub fn start(netns: &Netns) -> io::Result<Self> {
        let open = || ETHERTYPES.iter().map(|ethertype| packet_socket(*ethertype)).collect::<io::Result<Vec<_>>>();
        let sockets = netns.run(open).flatten()?;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let post = Arc::new(Post { sockets, passers: Mutex::default() });
        let watched = Arc::clone(&post);
        let thread = std::thread::Builder::new().name("witness".to_owned()).spawn(move || watch(&watched, &stopped))?;
        Ok(Witness { post, stop: Some(stop), thread: Some(thread) })
    }

    /// How many packets from `source` to `destination` have arrived so far.
    pub fn count(&self, source: IpAddr, destination: IpAddr) -> u64 {
        self.post.passers().get(&(source, destination)).copied().unwrap_or_default()
    }

    /// Which source addresses have sent to `destination` so far.
    pub fn sources_to(&self, destination: IpAddr) -> Vec<IpAddr> {
        self.post.passers().keys().filter(|(_, to)| *to == destination).map(|(from, _)| *from).collect()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Post {
    /// All that have come by until now.
    fn passers(&self) -> MutexGuard<'_, Passers> {
        // Held while the sockets are read, which never blocks, so that nothing is between a socket and the list.
        let mut passers = self.passers.lock().unwrap_or_else(PoisonError::into_inner);
        for mut socket in &self.sockets {
            let mut header = [0; 40];
            while let Ok(length) = socket.read(&mut header) {
                if let Some(pair) = header.get(..length).and_then(addresses) {
                    let count = passers.entry(pair).or_default();
                    *count = count.saturating_add(1);
                }
            }
        }
        passers
    }
}

fn packet_socket(ethertype: u16) -> io::Result<Socket> {
    // Without the Ethernet header: what is read starts with the IP header.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(ethertype.to_be()))))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn watch(post: &Post, stopped: &OwnedFd) {
    loop {
        let mut ready: Vec<PollFd<'_>> = post.sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        ready.push(PollFd::new(stopped, PollFlags::IN));
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(e) => return eprintln!("witness: {e}"),
        }
        if ready.last().is_some_and(|end| !end.revents().is_empty()) {
            return;
        }
        drop(post.passers());
    }
}

/// Source and destination of a packet that starts with its IP header (RFC 791, RFC 8200).
fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| packet.get(at..)?.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into());
    let v6 = |at: usize| packet.get(at..)?.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into());
    match packet.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}
