//! A node in network namespaces of its own: a NIC, the real daemon, and callers that speak the daemon's protocol.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use dotfour_datapath::address::PrefixRoute;
use dotfour_datapath::link::{Link, LinkChange, LinkId, VethEnd, VethPair};
use dotfour_datapath::route::{IfPresent, Route};
use dotfour_datapath::{Batch, Netns, Socket};
use dotfour_protocol::frame::{MAX_MESSAGE, decode_reply, encode_request};
use dotfour_protocol::{
    Add, Attachment, AttachmentKey, Call, Del, Failure, NodeStatus, PodName, Reply, Request, Status,
};
use ipnet::IpNet;
use rustix::io::retry_on_intr;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, recv, sendmsg, socket_with,
};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

pub(crate) const NIC_MAC: &str = "00:0d:3a:1b:c7:21";
pub(crate) const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 4);
pub(crate) const NODE_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 4);

/// How long anything may take before a test gives it up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A namespace with a NIC whose far end is in another namespace.
pub(crate) struct Node {
    pub(crate) netns: Netns,
    /// Holds the far end of the NIC, and whatever else a test puts into the world.
    pub(crate) wire: Netns,
    pub(crate) directory: tempfile::TempDir,
}

impl Node {
    pub(crate) fn new() -> Self {
        let netns = Netns::create().expect("network namespaces need root; `make test` makes user namespaces first");
        let wire = Netns::create().unwrap();
        netns
            .run(|| {
                let mut socket = Socket::open().unwrap();
                let mut batch = Batch::new();
                batch.create_veth(
                    "create the NIC",
                    &VethPair {
                        near: VethEnd { name: "eth0", mac: Some(NIC_MAC.parse().unwrap()), index: Some(2) },
                        far: VethEnd { name: "nic0", mac: None, index: Some(2) },
                        far_netns: Some(wire.as_fd()),
                        mtu: 1500,
                    },
                );
                let up = LinkChange { up: Some(true), ..LinkChange::default() };
                batch.change_link("set lo up", LinkId::Index(1), &up);
                batch.add_address("address", 2, "10.240.0.4/16".parse().unwrap(), PrefixRoute::Add);
                socket.run(batch).unwrap();
            })
            .unwrap();
        wire.run(|| {
            let mut batch = Batch::new();
            let up = LinkChange { up: Some(true), ..LinkChange::default() };
            batch.change_link("set the far end up", LinkId::Index(2), &up);
            Socket::open().unwrap().run(batch).unwrap();
        })
        .unwrap();
        netns
            .run(|| {
                let mut batch = Batch::new();
                let default = Route {
                    destination: "0.0.0.0/0".parse().unwrap(),
                    gateway: Some("10.240.0.1".parse().unwrap()),
                    link: 2,
                    preferred_source: None,
                    protocol: 3,
                };
                batch.add_route("default route", &default, IfPresent::Refuse);
                Socket::open().unwrap().run(batch).unwrap();
            })
            .unwrap();
        Node { netns, wire, directory: tempfile::tempdir().unwrap() }
    }

    /// Gives the NIC the node's IPv6 address, as Azure's DHCPv6 does.
    pub(crate) fn with_ipv6(self) -> Self {
        self.netns
            .run(|| {
                let mut batch = Batch::new();
                batch.add_address(
                    "IPv6 address",
                    2,
                    IpNet::new(NODE_ADDRESS_V6.into(), 128).unwrap(),
                    PrefixRoute::Add,
                );
                Socket::open().unwrap().run(batch).unwrap();
            })
            .unwrap();
        self
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("state/ipamd.sock")
    }

    /// A configuration for this node with the given `source:` block.
    pub(crate) fn config(&self, rest: &str) -> PathBuf {
        let state = self.directory.path().join("state");
        let path = self.directory.path().join("ipamd.yaml");
        let text = format!("socket: {}\nstateDir: {}\n{rest}", self.socket().display(), state.display());
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The configuration of most tests: `count` addresses from 10.240.0.5 on.
    pub(crate) fn static_config(&self, count: u8) -> PathBuf {
        self.config(&format!(
            "cooldown: 2s\nsource: {{kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.4-10.240.0.{}]}}\n",
            4 + count
        ))
    }

    /// Starts the daemon and does not wait for it. Programs are looked for in the directory of [`Node::put_tool`] first.
    pub(crate) fn spawn(&self, config: &Path) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dotfour-ipamd"));
        command.arg("run").arg("--config").arg(config);
        self.spawn_as(&mut command)
    }

    fn spawn_as(&self, command: &mut Command) -> Daemon {
        let log = std::fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.tools().display())).stdin(Stdio::null()).stderr(log);
        Daemon(self.netns.run(|| command.spawn().unwrap()).unwrap())
    }

    /// Starts the daemon and waits until it serves.
    pub(crate) fn start(&self, config: &Path) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dotfour-ipamd"));
        command.arg("run").arg("--config").arg(config);
        self.start_as(&mut command)
    }

    /// Starts the daemon by a command that becomes it, and waits until it serves.
    pub(crate) fn start_as(&self, command: &mut Command) -> Daemon {
        // A daemon that was killed leaves it, and its successor replaces it.
        let _ = std::fs::remove_file(self.socket());
        let mut daemon = self.spawn_as(command);
        let begun = Instant::now();
        while !self.socket().exists() {
            if let Some(status) = daemon.0.try_wait().unwrap() {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            assert!(begun.elapsed() < PATIENCE, "the daemon does not serve:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon
    }

    /// Runs a daemon that is expected to fail; returns its status and what it said.
    pub(crate) fn fail(&self, config: &Path) -> (ExitStatus, String) {
        let mut daemon = self.spawn(config);
        let status = daemon.wait();
        assert!(!self.socket().exists(), "a daemon that failed left its socket");
        (status, self.log())
    }

    fn tools(&self) -> PathBuf {
        self.directory.path().join("tools")
    }

    /// Puts a script in the place of a program that the daemon runs.
    pub(crate) fn put_tool(&self, name: &str, script: &str) {
        std::fs::create_dir_all(self.tools()).unwrap();
        write_program(&self.tools().join(name), format!("#!/bin/sh\n{script}\n").as_bytes());
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        std::fs::File::open(self.log_path()).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// The node's links apart from lo and eth0.
    pub(crate) fn pod_links(&self) -> Vec<Link> {
        let links = self.netns.run(|| Socket::open().unwrap().links().unwrap()).unwrap();
        // Some kernels put fallback tunnels into every namespace.
        links.into_iter().filter(|link| link.kind.as_deref() == Some("veth") && link.name != "eth0").collect()
    }

    /// How many routes the node has by our protocol number.
    pub(crate) fn pod_routes(&self) -> Vec<String> {
        ip(&self.netns, "route show proto 44").lines().map(str::to_owned).collect()
    }

    pub(crate) fn call(&self, call: Call, netns: Option<BorrowedFd<'_>>) -> Reply {
        let caller = self.connect();
        send(&caller, &encode_request(&Request::new(call)).unwrap(), netns);
        receive(&caller)
    }

    pub(crate) fn connect(&self) -> OwnedFd {
        let caller = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        set_socket_timeout(&caller, Timeout::Recv, Some(PATIENCE)).unwrap();
        connect(&caller, &SocketAddrUnix::new(self.socket()).unwrap()).unwrap();
        caller
    }

    /// A connection, if the daemon is there.
    pub(crate) fn try_connect(&self) -> Option<OwnedFd> {
        let caller = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        set_socket_timeout(&caller, Timeout::Recv, Some(PATIENCE)).unwrap();
        connect(&caller, &SocketAddrUnix::new(self.socket()).unwrap()).ok().map(|()| caller)
    }

    pub(crate) fn add(&self, key: &AttachmentKey, pod: &str, netns: BorrowedFd<'_>) -> Result<Attachment, Failure> {
        match self.call(add_call(key, pod), Some(netns)) {
            Reply::Attached(attachment) => Ok(attachment),
            Reply::Failed(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn del(&self, key: &AttachmentKey) {
        assert_eq!(self.call(del_call(key, None), None), Reply::Detached);
    }

    pub(crate) fn status(&self) -> NodeStatus {
        match self.call(Call::Status(Status { after: None }), None) {
            Reply::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the janitor has deleted all pods' links.
    pub(crate) fn wait_until_clean(&self) {
        eventually("the links are deleted", || self.pod_links().is_empty());
    }
}

/// Writes a file that can be run. Another process does it: a descriptor of this one, open to write, might be in a child of another
/// test's just then, and who runs the file would be told that it is busy.
pub(crate) fn write_program(path: &Path, content: &[u8]) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"]).arg(path).stdin(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    shell.stdin.take().unwrap().write_all(content).unwrap();
    assert!(shell.wait().unwrap().success(), "{} cannot be written", path.display());
}

/// The shortest of up to three tries of something that should be below this limit. A machine that has others to serve makes it
/// longer, and never shorter.
pub(crate) fn quickest(limit: Duration, mut attempt: impl FnMut() -> Duration) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        shortest = shortest.min(attempt());
        if shortest < limit {
            break;
        }
    }
    shortest
}

/// Runs `ip` in a namespace, which must succeed; what it prints.
pub(crate) fn ip(netns: &Netns, arguments: &str) -> String {
    let run = || Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    let output = netns.run(run).unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) struct Daemon(pub(crate) Child);

impl Daemon {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Stops every thread of the daemon where it is; returns once they are. `Signal::CONT` lets them go on.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        let stopped = waitpid(Some(Pid::from_child(&self.0)), WaitOptions::UNTRACED).unwrap();
        assert!(stopped.is_some_and(|(_, status)| status.stopped()), "the daemon ended instead of stopping");
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn add_call(key: &AttachmentKey, pod: &str) -> Call {
    Call::Add(Add {
        key: key.clone(),
        pod: Some(PodName { namespace: "default".into(), name: pod.into() }),
        started_ns: None,
        asked: Vec::new(),
        print: None,
    })
}

pub(crate) fn del_call(key: &AttachmentKey, started_ns: Option<u64>) -> Call {
    Call::Del(Del { key: key.clone(), started_ns })
}

pub(crate) fn send(caller: &OwnedFd, bytes: &[u8], netns: Option<BorrowedFd<'_>>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if let Some(netns) = &netns {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(netns))));
    }
    sendmsg(caller, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
}

/// A call whose daemon may die at any moment.
pub(crate) fn try_call(caller: &OwnedFd, bytes: &[u8], netns: BorrowedFd<'_>) {
    let descriptors = [netns];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    if sendmsg(caller, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).is_ok() {
        let _ = recv(caller, &mut [0; 4096], RecvFlags::empty());
    }
}

pub(crate) fn receive(caller: &OwnedFd) -> Reply {
    let mut buffer = vec![0; MAX_MESSAGE];
    // A wait with a time limit may be interrupted although nobody sent a signal: the kernel does not go on with it.
    let (length, _) = retry_on_intr(|| recv(caller, &mut *buffer, RecvFlags::empty())).unwrap();
    assert!(length > 0, "the daemon closed without an answer");
    decode_reply(&buffer[..length]).unwrap()
}

pub(crate) fn key(id: &str) -> AttachmentKey {
    AttachmentKey { network: "azure".into(), container_id: id.into(), ifname: "eth0".into() }
}

pub(crate) fn address(attachment: &Attachment) -> IpAddr {
    attachment.addresses[0].address.addr()
}

pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A socket at an address. Another test's child, between fork and exec, may still hold the one that was there before.
pub(crate) fn receiver(netns: &Netns, address: IpAddr, port: u16) -> UdpSocket {
    let mut socket = None;
    eventually("the port is free", || {
        socket = netns.run(|| UdpSocket::bind((address, port)).ok()).unwrap();
        socket.is_some()
    });
    let socket = socket.unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket
}

/// Sends a datagram from one namespace to an address in another and returns the source address seen there. No second
/// try: the first packet has to arrive. From a port that no connection had before: what is known to the kernel keeps its
/// source, whatever becomes of the rules.
pub(crate) fn source_seen(from: &Netns, to: &Netns, address: IpAddr) -> Option<IpAddr> {
    static PORT: AtomicU16 = AtomicU16::new(10_000);
    let receiver = receiver(to, address, 7007);
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let from_port = PORT.fetch_add(1, Ordering::Relaxed);
    from.run(|| UdpSocket::bind((any, from_port)).unwrap().send_to(b"who", (address, 7007)).unwrap()).unwrap();
    receiver.recv_from(&mut [0; 16]).ok().map(|(_, source)| source.ip())
}
