//! Programs of others, which may hang, and may say more than anybody wants to hear.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, kill_process_group};

/// How often to look whether a program has ended that has said all.
const LOOK: Duration = Duration::from_millis(1);

/// What a program is granted.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long it may take.
    pub patience: Duration,
    /// How much it may say, on standard output and on standard error each, in bytes.
    pub longest: usize,
}

/// Runs a program to its end, with `input` as its standard input. Returns its process id and what it said where the command has
/// a pipe. Blocks, for no longer than the program is granted, unless the kernel does not let it be killed.
///
/// # Errors
/// It cannot be run. `TimedOut`, `FileTooLarge`: it took longer, or said more, and was killed, with what it had started. What it
/// was to do may be done all the same.
pub fn run(command: &mut Command, input: &[u8], limits: Limits) -> io::Result<(u32, Output)> {
    let by = Instant::now() + limits.patience;
    // A file in memory, and no pipe: nobody waits for a program that does not read.
    let mut stdin = File::from(memfd_create("stdin", MemfdFlags::CLOEXEC)?);
    stdin.write_all(input)?;
    stdin.rewind()?;
    // A group of its own, for a script's programs are to be killed with it.
    let mut child = command.stdin(stdin).process_group(0).spawn()?;
    let outcome = hear(&mut child, limits.longest, by).and_then(|said| Ok((said, end(&mut child, by)?)));
    if outcome.is_err() {
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        let _ = child.wait();
    }
    let ((stdout, stderr), status) = outcome?;
    Ok((child.id(), Output { status, stdout, stderr }))
}

/// What is said on a pipe.
struct Pipe {
    /// Absent when all is said.
    from: Option<File>,
    said: Vec<u8>,
}

impl Pipe {
    fn new(end: Option<impl Into<OwnedFd>>) -> Self {
        Pipe { from: end.map(|end| File::from(end.into())), said: Vec::new() }
    }

    /// Reads what is there, which must be something, if only the end.
    fn read(&mut self, longest: usize) -> io::Result<()> {
        let Some(from) = &mut self.from else { return Ok(()) };
        let mut buffer = [0; 16 * 1024];
        match from.read(&mut buffer)? {
            0 => self.from = None,
            length if self.said.len() + length > longest => return Err(io::ErrorKind::FileTooLarge.into()),
            length => self.said.extend(buffer.get(..length).unwrap_or_default()),
        }
        Ok(())
    }
}

/// What a program says on standard output and standard error before it closes them, which has to be done by then.
fn hear(child: &mut Child, longest: usize, by: Instant) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut pipes = [Pipe::new(child.stdout.take()), Pipe::new(child.stderr.take())];
    while pipes.iter().any(|pipe| pipe.from.is_some()) {
        let left = by.saturating_duration_since(Instant::now());
        let patience = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        let open = pipes.iter().filter_map(|pipe| pipe.from.as_ref());
        let mut fds: Vec<PollFd<'_>> = open.map(|from| PollFd::new(from, PollFlags::IN)).collect();
        if retry_on_intr(|| poll(&mut fds, Some(&patience)))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let open = pipes.iter_mut().filter(|pipe| pipe.from.is_some());
        for (pipe, _) in open.zip(ready).filter(|(_, ready)| *ready) {
            pipe.read(longest)?;
        }
    }
    let [stdout, stderr] = pipes;
    Ok((stdout.said, stderr.said))
}

/// How a program ends that has closed its output: at once, as a rule.
fn end(child: &mut Child, by: Instant) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= by {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    const AMPLE: Limits = Limits { patience: Duration::from_mins(1), longest: 1 << 22 };

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[test]
    fn all_that_is_said_is_heard_and_all_that_is_to_be_read_is_there() {
        // More than a pipe holds, each way and on both.
        let input = vec![b'x'; 1 << 21];
        let (_, output) = run(&mut shell("tee /dev/stderr; exit 3"), &input, AMPLE).unwrap();
        assert_eq!((output.status.code(), output.stdout == input, output.stderr == input), (Some(3), true, true));
        let (_, output) = run(&mut shell("exec true"), &input, AMPLE).unwrap();
        assert!(output.status.success(), "one that does not read");
        let (_, output) = run(shell("echo heard; echo not >&2").stderr(Stdio::null()), b"", AMPLE).unwrap();
        assert_eq!((output.stdout, output.stderr), (b"heard\n".to_vec(), Vec::new()));
    }

    #[test]
    fn the_process_id_is_the_program_s() {
        let (pid, output) = run(&mut shell("echo $$"), b"", AMPLE).unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), pid.to_string());
    }

    #[test]
    fn one_that_hangs_is_killed_with_what_it_started() {
        let place = tempfile::tempdir().unwrap();
        let brief = Limits { patience: Duration::from_secs(2), ..AMPLE };
        for (name, rest) in [("open", ""), ("closed", "exec >&- 2>&-; ")] {
            let file = place.path().join(name);
            let script = format!("{rest}sleep 6000 & echo $$ $! >{}; wait", file.display());
            assert_eq!(run(&mut shell(&script), b"", brief).unwrap_err().kind(), io::ErrorKind::TimedOut, "{name}");
            let pids = std::fs::read_to_string(file).unwrap();
            // Who has lost its parent may stay a zombie where nobody adopts it.
            let lives = |pid: &str| {
                std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
            };
            let by = Instant::now() + Duration::from_secs(10);
            while pids.split_whitespace().any(lives) {
                assert!(Instant::now() < by, "{name}: one of {pids} lives");
                thread::sleep(LOOK);
            }
        }
    }

    #[test]
    fn one_that_says_too_much_is_killed() {
        let little = Limits { longest: 1000, ..AMPLE };
        let refused = |script| run(&mut shell(script), b"", little).unwrap_err().kind();
        assert_eq!(refused("exec yes"), io::ErrorKind::FileTooLarge);
        assert_eq!(refused("exec yes >&2"), io::ErrorKind::FileTooLarge);
        assert_eq!(run(&mut Command::new("/nonexistent"), b"", little).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
