//! The table of connections of a real kernel, in network namespaces of the tests' own: which entries go, which stay, and
//! what that takes.

// Clippy allows these in test functions only, not in what test functions share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Instant;

use dotfour_datapath::address::PrefixRoute;
use dotfour_datapath::conntrack::{Entry, Place, Swept, Way};
use dotfour_datapath::link::{LinkChange, LinkId};
use dotfour_datapath::{Batch, Conntrack, Netns, Socket};
use ipnet::IpNet;
use rustix::io::Errno;

/// Has connections tracked, and gives 127.0.0.2 two more names: 127.0.0.9 leads to it, and what goes to 127.0.0.50 seems to
/// come from it.
const RULES: &str = "
table inet test {
  chain tracked { type filter hook output priority 0; ct state new accept; }
  chain output { type nat hook output priority -100; ip daddr 127.0.0.9 dnat ip to 127.0.0.2; }
  chain postrouting { type nat hook postrouting priority 100; ip daddr 127.0.0.50 snat ip to 127.0.0.2; }
}";

fn pod() -> IpAddr {
    local(2).into()
}

fn local(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// Runs a test in a namespace with a loopback link and rules that track.
fn in_namespace(work: impl FnOnce() + Send) {
    let netns =
        Netns::create().expect("network namespaces need root, or `make test`, which makes user namespaces first");
    netns
        .run(|| {
            let mut batch = Batch::new();
            let up = LinkChange { up: Some(true), ..LinkChange::default() };
            batch.change_link("set up the loopback link", LinkId::Name("lo"), &up);
            Socket::open().unwrap().run(batch).unwrap();
            let mut nft =
                Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft is installed");
            nft.stdin.take().unwrap().write_all(RULES.as_bytes()).unwrap();
            assert!(nft.wait().unwrap().success());
            work();
        })
        .unwrap();
}

fn datagram(from: impl Into<IpAddr>, to: impl Into<IpAddr>) {
    UdpSocket::bind((from.into(), 0)).unwrap().send_to(b"x", (to.into(), 9)).unwrap();
}

fn connection(from: u8, to: u8) -> (TcpStream, TcpListener) {
    let listener = TcpListener::bind((local(to), 0)).unwrap();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((local(from), 0)).into()).unwrap();
    socket.connect(&listener.local_addr().unwrap().into()).unwrap();
    (socket.into(), listener)
}

/// In an order of their own: UDP and TCP between the same two are two equal entries.
fn entries(table: &mut Conntrack) -> Vec<Entry> {
    let mut entries = table.entries().unwrap();
    entries.sort();
    entries
}

fn goes_in_every_place_and_nothing_else(sweep: fn(&mut Conntrack, &[(IpAddr, Place)])) {
    in_namespace(|| {
        let listener = TcpListener::bind((local(2), 1234)).unwrap();
        let to_pod = TcpStream::connect((local(9), 1234)).unwrap();
        let open = {
            datagram(local(2), local(5));
            datagram(local(3), local(2));
            datagram(local(3), local(9));
            datagram(local(4), local(50));
            for last in [5, 6, 20, 22] {
                datagram(local(3), local(last));
            }
            datagram(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
            [connection(3, 2), connection(2, 5), connection(3, 5)]
        };
        let mut table = Conntrack::open().unwrap().unwrap();
        let before = entries(&mut table);
        let named = HashSet::from([pod()]);
        let (doomed, spared): (Vec<Entry>, Vec<Entry>) = before.into_iter().partition(|entry| entry.names(&named));
        // Each place at least once where no other names it, or the test would say nothing of that one.
        for place in [|e: &Entry| e.original.0, |e: &Entry| e.original.1, |e: &Entry| e.reply.0, |e: &Entry| e.reply.1]
        {
            assert!(doomed.iter().any(|entry| place(entry) == pod()), "{doomed:?}");
        }
        assert!(doomed.iter().any(|entry| entry.original != (pod(), local(5).into()) && entry.reply.0 == pod()));
        assert_eq!((doomed.len(), spared.len()), (7, 6), "{doomed:#?} {spared:#?}");
        sweep(&mut table, &[(pod(), Place::Anywhere)]);
        assert_eq!(entries(&mut table), spared);
        // Once more, and with nothing to find.
        sweep(&mut table, &[(pod(), Place::Anywhere)]);
        assert_eq!(entries(&mut table), spared);
        drop((open, to_pod, listener));
    });
}

#[test]
fn by_the_kernels_filter_an_address_goes_from_every_place_and_no_other_entry_does() {
    goes_in_every_place_and_nothing_else(|table, addresses| {
        table.sweep_by(Way::Filter, addresses).unwrap();
    });
}

#[test]
fn by_a_dump_an_address_goes_from_every_place_and_no_other_entry_does() {
    goes_in_every_place_and_nothing_else(|table, addresses| {
        table.sweep_by(Way::Dump, addresses).unwrap();
    });
}

#[test]
fn of_ipv6_an_address_goes_and_the_others_stay() {
    in_namespace(|| {
        let [pod, peer, other] = [2, 3, 4].map(|last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last));
        let mut batch = Batch::new();
        for address in [pod, peer, other] {
            batch.add_address("give an address", 1, IpNet::from(IpAddr::from(address)), PrefixRoute::Omit);
            // Otherwise it can be used only a moment after the kernel has taken it.
            batch.add_local_route("make it local", 1, address.into());
            batch.tolerate(Errno::EXIST);
        }
        Socket::open().unwrap().run(batch).unwrap();
        datagram(peer, pod);
        datagram(pod, other);
        datagram(peer, other);
        datagram(local(3), local(2));
        let mut table = Conntrack::open().unwrap().unwrap();
        assert_eq!(table.entries().unwrap().len(), 4);
        assert_eq!(table.sweep(&[(pod.into(), Place::Anywhere)]).unwrap(), Swept::Clean);
        let left = entries(&mut table);
        assert_eq!(left.len(), 2);
        assert!(left.iter().any(|entry| entry.original == (peer.into(), other.into())), "{left:?}");
        assert!(table.sweep_by(Way::Filter, &[(pod.into(), Place::Anywhere)]).is_err());
    });
}

#[test]
fn many_addresses_go_at_once() {
    in_namespace(|| {
        (1..=200).for_each(|last| datagram(local(3), local(last)));
        let mut table = Conntrack::open().unwrap().unwrap();
        let some: Vec<_> = (10..=150).map(|last| (local(last).into(), Place::Anywhere)).collect();
        assert_eq!(table.sweep(&some).unwrap(), Swept::Clean);
        // .50 seems to come from .2, and was told to go as well.
        assert_eq!(table.entries().unwrap().len(), 200 - 141);
    });
}

#[test]
fn the_target_alone_goes_where_only_that_is_asked() {
    in_namespace(|| {
        // Led to the pod by NAT and without; from the pod; and between others.
        datagram(local(3), local(9));
        datagram(local(3), local(2));
        datagram(local(2), local(5));
        datagram(local(3), local(4));
        let mut table = Conntrack::open().unwrap().unwrap();
        assert_eq!(table.count().unwrap(), 4);
        table.sweep_by(Way::Filter, &[(pod(), Place::Target)]).unwrap();
        let left: Vec<_> = entries(&mut table).into_iter().map(|entry| entry.original).collect();
        assert_eq!(left, [(pod(), local(5).into()), (local(3).into(), local(4).into())]);
    });
}

#[test]
fn an_empty_sweep_removes_nothing() {
    in_namespace(|| {
        datagram(local(3), local(4));
        let mut table = Conntrack::open().unwrap().unwrap();
        assert_eq!(table.sweep(&[]).unwrap(), Swept::Clean);
        assert_eq!(table.entries().unwrap().len(), 1);
    });
}

#[test]
#[ignore = "measures"]
fn what_a_sweep_of_fifty_thousand_entries_takes() {
    in_namespace(|| {
        let mut table = Conntrack::open().unwrap().unwrap();
        let sender = UdpSocket::bind((local(3), 0)).unwrap();
        let time = |table: &mut Conntrack, way, addresses: &[(IpAddr, Place)]| {
            let begun = Instant::now();
            table.sweep_by(way, addresses).unwrap();
            begun.elapsed()
        };
        for size in [0_u32, 1_000, 50_000] {
            for number in 0..size {
                let _ = sender.send_to(b"x", (Ipv4Addr::from_bits(0x7f01_0000 + number), 9));
            }
            for _ in 0..3 {
                let present = table.entries().unwrap().len();
                let begun = Instant::now();
                assert_eq!(usize::try_from(table.count().unwrap()).unwrap(), present);
                let count = begun.elapsed();
                let target = time(&mut table, Way::Filter, &[(pod(), Place::Target)]);
                let one = time(&mut table, Way::Filter, &[(pod(), Place::Anywhere)]);
                let dump = time(&mut table, Way::Dump, &[(pod(), Place::Anywhere)]);
                let many: Vec<_> = (1..=250).map(|last| ([127, 2, 0, last].into(), Place::Anywhere)).collect();
                let dump_many = time(&mut table, Way::Dump, &many);
                println!(
                    "{present} entries: count {count:?}, filter {one:?}, of targets {target:?}, dump {dump:?}, for 250 \
                     {dump_many:?}"
                );
            }
        }
        let hits: Vec<_> =
            (0..250).map(|number| (Ipv4Addr::from_bits(0x7f01_0000 + number).into(), Place::Anywhere)).collect();
        println!("250 addresses with an entry each: {:?}", time(&mut table, Way::Dump, &hits));
    });
}
