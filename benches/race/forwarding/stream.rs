//! Throughput: one end of each connection writes as fast as it can, the other reads.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use super::stage::Ends;
use super::{PATIENCE, TURN, WARM_UP, processors};
use crate::cpu;
use crate::samples::Sample;

/// What is written and read at once, in bytes: iperf3's default.
const PIECE: usize = 128 << 10;
/// How often to look, when nothing has arrived yet.
const LOOK: Duration = Duration::from_millis(1);

/// How long it takes until a gigabyte has arrived over so many connections together, by what arrives in a turn, and what
/// processor time both ends spend on it.
pub(super) fn gigabyte(ends: &Ends<'_>, connections: usize) -> io::Result<Sample> {
    let connected = (0..connections).map(|_| ends.connect()).collect::<io::Result<Vec<_>>>()?;
    let (arrived, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let ((bytes_before, started), (bytes, ended), cpu) = scope(|scope| {
        let mut threads = Vec::new();
        for (number, [near, far]) in (0..).zip(connected) {
            let (arrived, over) = (&arrived, &over);
            threads.push(scope.spawn(move || send(near, number, over)));
            threads.push(scope.spawn(move || receive(far, number, arrived)));
        }
        let first = more(&arrived, 0, WARM_UP);
        let last = more(&arrived, first.0, TURN);
        over.store(true, Ordering::Relaxed);
        let panicked = || io::Error::other("an end's thread panicked");
        let spent = threads.into_iter().map(|end| end.join().unwrap_or_else(|_| Err(panicked())));
        Ok::<_, io::Error>((first, last, spent.sum::<io::Result<Duration>>()?))
    })?;
    let nothing = || io::Error::new(io::ErrorKind::TimedOut, "nothing arrived");
    let took = ended.saturating_duration_since(started);
    let took = per_gigabyte(bytes.saturating_sub(bytes_before), took).ok_or_else(nothing)?;
    // The ends' time is that of the whole connection, so it goes with all that arrived.
    let cpu = per_gigabyte(arrived.into_inner(), cpu).ok_or_else(nothing)?;
    Ok(Sample { took, cpu })
}

/// What has arrived after a time, and when: more than before, if the machine lets anything arrive at all.
fn more(arrived: &AtomicU64, before: u64, after: Duration) -> (u64, Instant) {
    let started = Instant::now();
    sleep(after);
    loop {
        let (bytes, now) = (arrived.load(Ordering::Relaxed), Instant::now());
        if bytes > before || now.duration_since(started) > PATIENCE {
            return (bytes, now);
        }
        sleep(LOOK);
    }
}

/// Writes until it is over, and says so to the other end. Returns the processor time spent.
fn send(mut connection: TcpStream, number: usize, over: &AtomicBool) -> io::Result<Duration> {
    processors::stay(number);
    let piece = vec![0_u8; PIECE];
    while !over.load(Ordering::Relaxed) {
        connection.write_all(&piece)?;
    }
    Ok(cpu::of_this_thread())
}

/// Reads until the other end is closed. Returns the processor time spent.
fn receive(mut connection: TcpStream, number: usize, arrived: &AtomicU64) -> io::Result<Duration> {
    processors::stay(number);
    let mut piece = vec![0_u8; PIECE];
    loop {
        match connection.read(&mut piece)? {
            0 => return Ok(cpu::of_this_thread()),
            bytes => arrived.fetch_add(u64::try_from(bytes).unwrap_or_default(), Ordering::Relaxed),
        };
    }
}

/// `None` if it would never be over.
fn per_gigabyte(bytes: u64, took: Duration) -> Option<Duration> {
    const GIGABYTE: u128 = 1_000_000_000;
    let nanoseconds = took.as_nanos().saturating_mul(GIGABYTE).checked_div(bytes.into())?;
    u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_in_a_turn_says_how_long_a_gigabyte_takes() {
        let quarter = per_gigabyte(250_000_000, Duration::from_millis(40));
        assert_eq!(quarter, Some(Duration::from_millis(160)));
        assert_eq!(per_gigabyte(0, Duration::from_millis(40)), None);
    }

    #[test]
    fn a_turn_is_not_over_before_something_has_arrived() {
        let arrived = AtomicU64::new(7);
        scope(|scope| {
            scope.spawn(|| {
                sleep(Duration::from_millis(30));
                arrived.store(9, Ordering::Relaxed);
            });
            assert_eq!(more(&arrived, 7, Duration::from_millis(2)).0, 9);
        });
        assert_eq!(more(&arrived, 7, Duration::ZERO).0, 9);
    }
}
