//! The time of an answer: one byte there, one byte back, and again, as netperf's TCP_RR.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use super::stage::Ends;
use super::{TURN, WARM_UP, processors};
use crate::samples::{Sample, Samples};

/// Every answer of a turn.
pub(super) fn answers(ends: &Ends<'_>) -> io::Result<Samples> {
    let [near, far] = ends.connect()?;
    thread::scope(|scope| {
        let answering = scope.spawn(|| answer(far));
        let asking = scope.spawn(|| ask(near));
        let panicked = || io::Error::other("an end's thread panicked");
        let answers = asking.join().unwrap_or_else(|_| Err(panicked()))?;
        answering.join().unwrap_or_else(|_| Err(panicked()))?;
        Ok(answers)
    })
}

fn ask(mut connection: TcpStream) -> io::Result<Samples> {
    processors::stay(0);
    let mut answers = Samples::default();
    let started = Instant::now();
    let mut asked = started;
    // A machine that is busy may take longer than a turn for the first ones: one at least is counted.
    while answers.times().is_empty() || asked.duration_since(started) < WARM_UP + TURN {
        connection.write_all(&[1])?;
        connection.read_exact(&mut [0])?;
        let answered = Instant::now();
        if asked.duration_since(started) >= WARM_UP {
            answers.push(Sample { took: answered.duration_since(asked), ..Sample::default() });
        }
        asked = answered;
    }
    Ok(answers)
}

/// Sends back what comes, until the other end is closed.
fn answer(mut connection: TcpStream) -> io::Result<()> {
    processors::stay(0);
    let mut message = [0];
    while connection.read(&mut message)? > 0 {
        connection.write_all(&message)?;
    }
    Ok(())
}
