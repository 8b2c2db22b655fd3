//! A router that nobody asked for.

use std::io;
use std::net::SocketAddrV6;

use dotfour_datapath::Netns;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::fabric::{ALL_NODES, router_advertisement};

/// Sends one router advertisement to everybody on a link, as a default router would: a node that believes it sends the
/// world's packets to whoever sent it.
///
/// # Errors
/// As the kernel refuses it: while the link has no link-local address of its own yet, among others.
pub fn advertise_as_router(netns: &Netns, link: u32) -> io::Result<()> {
    netns
        .run(|| {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
            // RFC 4861: what comes with less is ignored.
            socket.set_multicast_hops_v6(255)?;
            socket.set_multicast_if_v6(link)?;
            let everybody = SocketAddrV6::new(ALL_NODES, 0, 0, link);
            socket.send_to(&router_advertisement(), &SockAddr::from(everybody)).map(drop)
        })
        .flatten()
}
