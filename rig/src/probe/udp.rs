//! "Whom do you see?": a responder that tells its peer the source address it saw.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dotfour_datapath::Netns;

/// A responder inside a namespace. Ends when dropped.
#[derive(Debug)]
pub struct Mirror {
    port: u16,
    socket: UdpSocket,
    wanted: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    /// Starts a responder on a free port of a namespace, for both families.
    pub fn start(netns: &Netns) -> io::Result<Self> {
        // IPv4 comes to it as well, with addresses written as IPv6 ones.
        let socket = netns.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).flatten()?;
        let port = socket.local_addr()?.port();
        let own = socket.try_clone()?;
        let wanted = Arc::new(AtomicBool::new(true));
        let still_wanted = Arc::clone(&wanted);
        let thread = std::thread::Builder::new().name("mirror".to_owned()).spawn(move || {
            // Errors are those of earlier answers, which an ICMP message may bring.
            loop {
                let Ok((_, peer)) = socket.recv_from(&mut [0; 16]) else { continue };
                if !still_wanted.load(Ordering::Relaxed) {
                    break;
                }
                let seen = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let _ = socket.send_to(seen.to_string().as_bytes(), peer);
            }
        })?;
        Ok(Mirror { port, socket: own, wanted, thread: Some(thread) })
    }

    /// The port it answers on.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
        // It waits for a packet: this one, over the namespace's loopback link.
        let woken = self.socket.send_to(&[], (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), self.port)).is_ok();
        if !woken {
            return;
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks a responder from inside a namespace which address it sees. `None`: no answer within `timeout`.
pub fn seen_as(netns: &Netns, responder: SocketAddr, timeout: Duration) -> io::Result<Option<IpAddr>> {
    let any = if responder.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = netns.run(|| UdpSocket::bind((any, 0))).flatten()?;
    socket.set_read_timeout(Some(timeout))?;
    socket.connect(responder)?;
    socket.send(b"whom do you see?")?;
    let mut answer = [0; 64];
    match socket.recv(&mut answer) {
        Ok(length) => {
            let text = String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned();
            text.parse().map(|seen: SocketAddr| Some(seen.ip())).map_err(io::Error::other)
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
        Err(e) => Err(e),
    }
}
