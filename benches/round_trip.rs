//! What does a call cost without its kernel work?
//!
//! The daemon's own server threads and the plugin's own call, in one process: a connection of its own for each call, one
//! message each way, on a real `SOCK_SEQPACKET` socket. The daemon's journal is on a tmpfs (`/dev/shm`).
//!
//! Cases (time per call, as the caller feels it):
//! - `round_trip/bare`: what the kernel takes for it: a connection over which a thread returns as many bytes as it gets. The
//!   rest are to be seen in times of this one. It is mostly the wake-ups, and these take several times as long where a
//!   sleeping processor has to be woken; `taskset -c 0 cargo bench ...` has all on one.
//! - `round_trip/add refused`: an ADD to which its namespace is missing. Nothing is assigned and nothing recorded.
//! - `round_trip/del unknown`: a DEL of what nobody knows, which is put on record.
//! - `round_trip/status`: what `dotfourctl` asks, of a node without pods.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use dotfour_benches::{NIC, REST, key, view};
use dotfour_datapath::Socket;
use dotfour_ipamd::client;
use dotfour_ipamd::lease::{Identity, Journal, Ledger};
use dotfour_ipamd::metrics::Metrics;
use dotfour_ipamd::nic::Nic;
use dotfour_ipamd::pool::{Families, Pool};
use dotfour_ipamd::server::Server;
use dotfour_ipamd::verbs::{Node, Served};
use dotfour_ipamd::wiring::Janitor;
use dotfour_ipamd::wiring::pod::LinkIndices;
use dotfour_plugin::answer::Answer;
use dotfour_plugin::call::{ADD_DEADLINE, DEL_DEADLINE, call};
use dotfour_protocol::{Add, AttachmentKey, Call, CniVersion, Del, PodName, Request, ResultFormat};

/// About as long as a request and its answer are.
const MESSAGE: usize = 300;

/// A daemon without its watch on the world. It opens netlink sockets, and has no reason to use them.
fn serve(directory: &Path, socket: &Path) -> Server {
    let mut pool = Pool::new(REST);
    pool.apply_view(&view(256));
    let identity = Identity { boot_id: "b".into(), machine_id: String::new() };
    let ledger = Ledger::new(pool, Journal::new(directory, identity));
    let address = "10.240.0.4".parse().unwrap();
    let nic = Nic { index: NIC, name: "eth0".into(), mtu: 1500, address, address_v6: None };
    let (janitor, _) = Janitor::start(Socket::open().unwrap()).unwrap();
    let metrics = Metrics::new(Duration::from_secs(1));
    let node = Node::new(ledger, nic, Families::V4, Served::default(), "static", janitor, metrics).unwrap();
    Server::start(socket, &node, &Arc::new(LinkIndices::starting_at(0))).unwrap()
}

fn round_trip(c: &mut Criterion) {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let socket = directory.path().join("ipamd.sock");
    let server = serve(directory.path(), &socket);
    let path = socket.to_str().unwrap();

    let key = AttachmentKey::clone(&key(0));
    let pod = Some(PodName { namespace: "default".into(), name: "web-6d4cf56db6-x7k2p".into() });
    let print = Some(ResultFormat { version: CniVersion::V1_1_0, sandbox: Some("/run/netns/cni-0123456789".into()) });
    let add = Add { key: key.clone(), pod, started_ns: Some(1), asked: Vec::new(), print };
    let (add, del) = (Request::new(Call::Add(add)), Request::new(Call::Del(Del { key, started_ns: None })));
    let mut group = c.benchmark_group("round_trip");
    let echo = directory.path().join("echo.sock");
    let listener = UnixListener::bind(&echo).unwrap();
    // Ends with the process.
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut message = [0; MESSAGE];
            connection.read_exact(&mut message).and_then(|()| connection.write_all(&message)).unwrap();
        }
    });
    group.bench_function("bare", |b| {
        b.iter(|| {
            let mut message = [0; MESSAGE];
            let mut connection = UnixStream::connect(&echo).unwrap();
            connection.write_all(&message).and_then(|()| connection.read_exact(&mut message)).unwrap();
            message
        });
    });
    group.bench_function("add refused", |b| {
        b.iter(|| match call(path, &add, None, ADD_DEADLINE) {
            Ok(Answer::Failed(failure)) => failure,
            other => panic!("{other:?}"),
        });
    });
    group.bench_function("del unknown", |b| {
        b.iter(|| match call(path, &del, None, DEL_DEADLINE) {
            Ok(Answer::Detached) => {}
            other => panic!("{other:?}"),
        });
    });
    group.bench_function("status", |b| b.iter(|| client::status(&socket).unwrap()));
    group.finish();
    server.stop();
}

criterion_group!(benches, round_trip);
criterion_main!(benches);
