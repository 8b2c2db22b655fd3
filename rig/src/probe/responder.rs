//! A responder on given addresses and ports that tells its peers, over TCP and UDP, the source address it sees, and keeps
//! a list of them.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dotfour_datapath::Netns;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// A connection. The responder says what it sees at once, and again for whatever it is sent.
    Tcp,
    /// A datagram, which is answered with one.
    Udp,
}

/// Somebody who came to a responder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// How.
    pub transport: Transport,
    /// The responder's own address and port.
    pub at: SocketAddr,
    /// The source address and port it saw.
    pub from: SocketAddr,
}

/// A responder. Ends when dropped.
#[derive(Debug)]
pub struct Responder {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Starts one in a namespace that has all the addresses, or is about to have them.
    pub fn start(netns: &Netns, tcp: &[SocketAddr], udp: &[SocketAddr]) -> io::Result<Self> {
        let open = || -> io::Result<_> {
            let tcp = tcp.iter().map(|at| listen(*at)).collect::<io::Result<Vec<_>>>()?;
            let udp = udp.iter().map(|at| Ok((*at, bind(*at, Type::DGRAM)?.into()))).collect::<io::Result<Vec<_>>>()?;
            Ok((tcp, udp))
        };
        let (tcp, udp) = netns.run(open).flatten()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let list = Arc::clone(&seen);
        let thread = std::thread::Builder::new().name("responder".to_owned()).spawn(move || {
            runtime.block_on(async {
                for (at, listener) in tcp {
                    tokio::spawn(serve_tcp(at, listener, Arc::clone(&list)));
                }
                for (at, socket) in udp {
                    tokio::spawn(serve_udp(at, socket, Arc::clone(&list)));
                }
                let _ = stopped.await;
            });
        })?;
        Ok(Responder { seen, stop: Some(stop), thread: Some(thread) })
    }

    /// Who came so far, oldest first: each connection and each datagram once.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bind(at: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    socket.set_reuse_address(true)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.bind(&SockAddr::from(at))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn listen(at: SocketAddr) -> io::Result<(SocketAddr, std::net::TcpListener)> {
    let socket = bind(at, Type::STREAM)?;
    socket.listen(BACKLOG)?;
    Ok((at, socket.into()))
}

async fn serve_tcp(at: SocketAddr, listener: std::net::TcpListener, seen: Arc<Mutex<Vec<Seen>>>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let Ok((mut stream, from)) = listener.accept().await else { continue };
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { transport: Transport::Tcp, at, from });
        tokio::spawn(async move {
            let line = format!("{from}\n");
            let mut space = [0; 1024];
            // Ends when the peer has gone.
            while stream.write_all(line.as_bytes()).await.is_ok() {
                if !matches!(stream.read(&mut space).await, Ok(length) if length > 0) {
                    break;
                }
            }
        });
    }
}

async fn serve_udp(at: SocketAddr, socket: UdpSocket, seen: Arc<Mutex<Vec<Seen>>>) {
    let Ok(socket) = tokio::net::UdpSocket::from_std(socket) else { return };
    loop {
        // Errors are those of earlier answers, which an ICMP message may bring.
        let Ok((_, from)) = socket.recv_from(&mut [0; 2048]).await else { continue };
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { transport: Transport::Udp, at, from });
        let _ = socket.send_to(format!("{from}\n").as_bytes(), from).await;
    }
}

/// Asks a responder from inside a namespace, from a source address of the caller's choice if one is given, which source
/// address and port it sees. `None`: no answer within `timeout`, no way to get there, or nobody listens.
pub fn ask(
    netns: &Netns,
    transport: Transport,
    source: Option<IpAddr>,
    responder: SocketAddr,
    timeout: Duration,
) -> io::Result<Option<SocketAddr>> {
    let kind = if transport == Transport::Tcp { Type::STREAM } else { Type::DGRAM };
    let socket = netns.run(|| Socket::new(Domain::for_address(responder), kind, None::<Protocol>)).flatten()?;
    socket.set_read_timeout(Some(timeout))?;
    if let Some(source) = source {
        socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
    }
    let answer = exchange(socket, transport, responder, timeout);
    match answer {
        Ok(text) => text.trim().parse().map(Some).map_err(io::Error::other),
        Err(e) if is_silence(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn exchange(socket: Socket, transport: Transport, responder: SocketAddr, timeout: Duration) -> io::Result<String> {
    let mut space = [0; 128];
    let length = match transport {
        Transport::Tcp => {
            socket.connect_timeout(&SockAddr::from(responder), timeout)?;
            io::Read::read(&mut TcpStream::from(socket), &mut space)?
        }
        Transport::Udp => {
            let socket = UdpSocket::from(socket);
            socket.connect(responder)?;
            socket.send(b"whom do you see?")?;
            socket.recv(&mut space)?
        }
    };
    Ok(String::from_utf8_lossy(space.get(..length).unwrap_or_default()).into_owned())
}

fn is_silence(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut, WouldBlock,
    };
    matches!(
        error.kind(),
        WouldBlock | TimedOut | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable
    )
}
