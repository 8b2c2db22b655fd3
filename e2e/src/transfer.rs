//! TCP between two namespaces: who answers, whom they see, and how fast it goes.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use dotfour_datapath::Netns;

/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(20);
/// What is sent or read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// What came of a transfer.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// The address that the receiver saw.
    pub seen: IpAddr,
    /// From the connection to the last byte, at the receiver.
    pub took: Duration,
}

/// Sends `bytes` from one namespace to `target`, where a receiver in `at` listens on `port` of any address; `target` is
/// another address and port only if somebody translates.
///
/// # Errors
/// If the connection is not made within `patience`: `TimedOut`, or what the kernel says. If it breaks.
pub fn send(
    (from, target): (&Netns, SocketAddr),
    (at, port): (&Netns, u16),
    bytes: usize,
    patience: Duration,
) -> io::Result<Transfer> {
    let listener = at.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).flatten()?;
    let stream = from.run(|| TcpStream::connect_timeout(&target, patience)).flatten()?;
    // A handshake that is done is one that can be accepted, unless it was with somebody else.
    listener.set_nonblocking(true)?;
    let (receiver, peer) = accept(&listener, patience)?;
    receiver.set_nonblocking(false)?;
    receiver.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let began = Instant::now();
    thread::scope(|scope| {
        let sender = scope.spawn(move || write(stream, bytes));
        let got = read(receiver)?;
        let took = began.elapsed();
        sender.join().unwrap_or_else(|_| Err(io::Error::other("the sender panicked")))?;
        if got == bytes {
            Ok(Transfer { seen: peer.ip(), took })
        } else {
            Err(io::Error::other(format!("{got} of {bytes} bytes came")))
        }
    })
}

/// Takes the connection that is there.
fn accept(listener: &TcpListener, patience: Duration) -> io::Result<(TcpStream, SocketAddr)> {
    let began = Instant::now();
    loop {
        match listener.accept() {
            Err(e) if e.kind() == ErrorKind::WouldBlock && began.elapsed() < patience => {
                thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

fn write(mut stream: TcpStream, bytes: usize) -> io::Result<()> {
    let chunk = [0xd4; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let part = chunk.get(..left.min(CHUNK)).unwrap_or(&chunk);
        stream.write_all(part)?;
        left -= part.len();
    }
    Ok(())
}

fn read(mut stream: TcpStream) -> io::Result<usize> {
    let mut space = vec![0; CHUNK];
    let mut total = 0;
    loop {
        match stream.read(&mut space)? {
            0 => return Ok(total),
            some => total += some,
        }
    }
}
