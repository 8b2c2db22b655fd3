//! What the programs say on standard output and standard error. Somebody may have closed these, or not read them for long: that
//! is nothing to wait for, nor to end for.

use std::fmt::Display;
use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

/// What a pipe has room for where it says that it has room (pipe(7), `PIPE_BUF`), in bytes.
const PIPE_ROOM: usize = 4096;

/// Says something on standard output, and what a program that has nothing else to do ends with: `status`, or a failure if it was not
/// heard.
pub fn say(program: &str, text: &str, status: ExitCode) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => status,
        // Whoever read has had enough, as `head` has.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(e) => {
            complain(program, &format_args!("standard output cannot be written: {e}"));
            ExitCode::FAILURE
        }
    }
}

/// Says on standard error what is wrong, if anybody hears it.
pub fn complain(program: &str, what: &dyn Display) {
    let _ = writeln!(io::stderr(), "{program}: {what}");
}

/// The log of a daemon: standard error, a line at a time. Lines for which there is no room are lost, and counted.
#[derive(Debug, Default)]
pub struct Log {
    /// How many since the last that was heard. Locked over a line's write, which does not wait as long as nobody else takes the room.
    lost: Mutex<u64>,
}

impl Log {
    /// A log of which nothing is lost yet.
    pub const fn new() -> Self {
        Log { lost: Mutex::new(0) }
    }

    fn write_line(&self, line: &[u8], to: BorrowedFd<'_>) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if !has_room(to) {
            *lost += 1;
            return;
        }
        match mem::take(&mut *lost) {
            0 => {}
            lost => write_all(format!("{lost} lines of this log were lost, for nobody read them\n").as_bytes(), to),
        }
        write_all(line, to);
    }
}

impl Write for &Log {
    /// Takes a whole line, and never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_line(line, io::stderr().as_fd());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As much as there is room for.
fn write_all(mut bytes: &[u8], to: BorrowedFd<'_>) {
    while let Some(part) = bytes.get(..bytes.len().min(PIPE_ROOM)).filter(|part| !part.is_empty())
        && has_room(to)
    {
        let Ok(written) = retry_on_intr(|| rustix::io::write(to, part)) else { return };
        bytes = bytes.get(written..).unwrap_or_default();
    }
}

/// Whether a write does not wait. What is closed has room: a write to it fails at once.
fn has_room(to: BorrowedFd<'_>) -> bool {
    let mut look = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    retry_on_intr(|| poll(&mut look, Some(&at_once))).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_log_that_nobody_reads_keeps_nobody_waiting_and_says_later_what_was_lost() {
        let (mut reader, writer) = pipe().unwrap();
        let log: &Log = Box::leak(Box::default());
        let line = [b'x'; 100];
        // In a thread, for one that waits would do so for good.
        let write = |lines: Vec<Vec<u8>>| {
            let (writer, (done, all)) = (writer.try_clone().unwrap(), mpsc::channel());
            thread::spawn(move || {
                lines.iter().for_each(|line| log.write_line(line, writer.as_fd()));
                done.send(())
            });
            all.recv_timeout(Duration::from_secs(20)).unwrap();
        };
        // Five times what a pipe holds.
        write(vec![line.to_vec(); 3300]);
        let held = reader.read(&mut [0; 1 << 20]).unwrap();
        // The last is longer than the room that there is.
        write(vec![b"heard\n".to_vec(), vec![b'y'; 1 << 20]]);
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        let (lost, last) = rest.split_once(" lines of this log were lost, for nobody read them\n").unwrap();
        assert_eq!(lost.parse::<usize>().unwrap() + held / line.len(), 3300);
        assert!(last.starts_with("heard\nyyy"), "{last:.9}");
    }

    #[test]
    fn a_log_that_was_closed_is_written_in_vain() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let log = Log::new();
        log.write_line(b"unheard\n", writer.as_fd());
        assert_eq!(log.lost.into_inner().unwrap(), 0);
    }
}
