//! The load balancer's health probes: TCP connections from Azure's platform address to an address of a NIC.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream};
use std::time::Duration;

use dotfour_datapath::Netns;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{GATEWAY_V6, WIRESERVER};

/// What came back from a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// The connection stood. With what the target said first, if it spoke before the time was over.
    Connected(String),
    /// The target refused it.
    Refused,
    /// Nothing came back.
    Silent,
}

/// Probes from the fabric's namespace. `link` is the NIC's, by which IPv6 has to leave.
pub(crate) fn probe(fabric: &Netns, target: SocketAddr, link: u32, timeout: Duration) -> io::Result<ProbeAnswer> {
    let source = match target.ip() {
        IpAddr::V4(_) => SocketAddr::from((WIRESERVER, 0)),
        IpAddr::V6(_) => SocketAddrV6::new(GATEWAY_V6, 0, 0, link).into(),
    };
    let socket = fabric.run(|| Socket::new(Domain::for_address(target), Type::STREAM, None)).flatten()?;
    socket.bind(&SockAddr::from(source))?;
    match socket.connect_timeout(&SockAddr::from(target), timeout) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Ok(ProbeAnswer::Refused),
        Err(e) if e.kind() == io::ErrorKind::TimedOut => return Ok(ProbeAnswer::Silent),
        Err(e) => return Err(e),
    }
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(timeout))?;
    let mut said = [0; 128];
    // Most health endpoints wait for a request: then the connection alone is the answer.
    let length = stream.read(&mut said).unwrap_or_default();
    Ok(ProbeAnswer::Connected(String::from_utf8_lossy(said.get(..length).unwrap_or_default()).trim().to_owned()))
}
