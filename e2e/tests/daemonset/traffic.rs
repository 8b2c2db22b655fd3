//! Packets at a steady rate while something happens to the node.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use dotfour_datapath::Netns;

/// The time between two packets to one target.
const PACE: Duration = Duration::from_millis(10);
/// How long an answer may take. Later is lost.
const LATE: Duration = Duration::from_secs(1);

/// What came of it.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) sent: usize,
    pub(crate) answered: usize,
    /// The longest time between two answers of one target.
    pub(crate) longest_gap: Duration,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { sent, answered, longest_gap } = self;
        let lost = sent - answered;
        write!(f, "{sent} sent, {answered} answered, {lost} lost, longest time between two answers {longest_gap:.0?}")
    }
}

/// Sends until it is told to end.
pub(crate) struct Traffic {
    over: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Tally>>,
}

impl Traffic {
    /// Sends to each responder, from inside a namespace.
    pub(crate) fn start(from: &Netns, responders: &[(Ipv4Addr, u16)]) -> io::Result<Self> {
        let open = |target: &(Ipv4Addr, u16)| {
            let socket = from.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).flatten()?;
            socket.connect(SocketAddr::from(*target))?;
            socket.set_nonblocking(true)?;
            io::Result::Ok((socket, Instant::now()))
        };
        let mut sockets = responders.iter().map(open).collect::<io::Result<Vec<_>>>()?;
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut tally = Tally::default();
            let mut next = Instant::now();
            while !told.load(Ordering::Relaxed) {
                for (socket, _) in &sockets {
                    // An ICMP error of an earlier packet comes out here; that packet counts as lost.
                    if socket.send(b"?").is_err() {
                        let _ = socket.send(b"?");
                    }
                    tally.sent += 1;
                }
                collect(&mut sockets, &mut tally);
                // After a stall of this program not all at once, which no queue may have room for.
                next = (next + PACE).max(Instant::now());
                sleep(next.saturating_duration_since(Instant::now()));
            }
            let end = Instant::now() + LATE;
            while tally.answered < tally.sent && Instant::now() < end {
                collect(&mut sockets, &mut tally);
                sleep(PACE);
            }
            // The answers may have come while this program did not run.
            collect(&mut sockets, &mut tally);
            Ok(tally)
        });
        Ok(Traffic { over, thread })
    }

    /// Ends it and waits for late answers.
    pub(crate) fn end(self) -> io::Result<Tally> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the sender panicked"))?
    }
}

fn collect(sockets: &mut [(UdpSocket, Instant)], tally: &mut Tally) {
    for (socket, last) in sockets {
        while socket.recv(&mut [0; 64]).is_ok() {
            tally.answered += 1;
            tally.longest_gap = tally.longest_gap.max(last.elapsed());
            *last = Instant::now();
        }
    }
}
