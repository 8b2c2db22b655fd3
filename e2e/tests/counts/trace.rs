//! What strace saw, taken apart.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dotfour_e2e::program::Failure;
use rustix::process::{Pid, Signal, kill_process};

/// How long strace may take to get hold of a process.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait between two looks whether it has.
const PAUSE: Duration = Duration::from_millis(5);

/// What waits for the next caller.
const ACCEPT: &str = "accept4";

/// The system calls of one process, or of one thread while it served one caller.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// As strace prints them: the name, and what it was given.
    pub(crate) calls: Vec<String>,
}

impl Seen {
    /// Of a process whose trace is in a file.
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(file)?;
        Ok(Seen { calls: text.lines().filter(|line| name(line).is_some()).map(str::to_owned).collect() })
    }

    /// How many requests it sent to the kernel over netlink.
    pub(crate) fn netlink_requests(&self) -> usize {
        self.calls.iter().filter(|call| name(call) == Some("sendto")).map(|call| netlink_messages(call).count()).sum()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut times = BTreeMap::new();
        for call in &self.calls {
            *times.entry(name(call).unwrap_or_default()).or_insert(0) += 1;
        }
        let words: Vec<String> = times
            .iter()
            .map(|(name, times)| if *times == 1 { (*name).to_owned() } else { format!("{name} {times}") })
            .collect();
        f.write_str(&words.join(", "))
    }
}

/// strace on a running process, with all its threads.
pub(crate) struct Strace {
    child: Child,
    file: PathBuf,
}

impl Strace {
    /// Returns when all threads are held. What they do from then on goes to a file.
    pub(crate) fn attach(pid: u32, file: &Path) -> Result<Self, Failure> {
        let child = Command::new("strace")
            .args(["-f", "-e", "signal=none", "--const-print-style=raw", "-p"])
            .arg(pid.to_string())
            .arg("-o")
            .arg(file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot run strace: {e}"))?;
        let mut strace = Strace { child, file: file.to_owned() };
        let begun = Instant::now();
        while !all_threads_are_traced(pid)? {
            if let Some(status) = strace.child.try_wait()? {
                return Err(format!("strace ended with {status}; may processes be traced here?").into());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("strace has not got hold of the daemon within {PATIENCE:?}").into());
            }
            sleep(PAUSE);
        }
        Ok(strace)
    }

    /// Lets the process go, and returns the lines: thread id, space, call.
    pub(crate) fn finish(mut self) -> Result<Vec<(u32, String)>, Failure> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).ok_or("strace has no number")?;
        kill_process(pid, Signal::INT)?;
        self.child.wait()?;
        let text = fs::read_to_string(&self.file)?;
        let line = |line: &str| -> Option<(u32, String)> {
            let (thread, call) = line.split_once(' ')?;
            Some((thread.parse().ok()?, call.trim_start().to_owned()))
        };
        Ok(text.lines().filter_map(line).collect())
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn all_threads_are_traced(pid: u32) -> Result<bool, Failure> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        if status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() == "0")) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Per caller served, in their order, the system calls of the thread that served it: from its `accept4` to before its next.
pub(crate) fn served(lines: &[(u32, String)]) -> Vec<Seen> {
    let mut served: Vec<Seen> = Vec::new();
    // Of each thread, the place in `served` of the caller it is busy with.
    let mut busy: BTreeMap<u32, usize> = BTreeMap::new();
    for (thread, line) in lines {
        // With a caller's descriptor as its result; not so if strace let go of a thread that still waits.
        let accepted = (line.starts_with("<... accept4 resumed>") || line.starts_with(ACCEPT))
            && line.rsplit_once("= ").is_some_and(|(_, result)| result.parse::<u32>().is_ok());
        if accepted {
            busy.insert(*thread, served.len());
            served.push(Seen { calls: vec![format!("{ACCEPT}()")] });
        } else if line.starts_with(ACCEPT) {
            busy.remove(thread);
        } else if let Some(seen) = busy.get(thread).and_then(|place| served.get_mut(*place))
            && name(line).is_some()
        {
            seen.calls.push(line.clone());
        }
    }
    served
}

/// What no thread of a daemon may do for a pod: start a program, read a file of the kernel's, list what the kernel has.
pub(crate) fn forbidden(lines: &[(u32, String)]) -> Vec<&str> {
    let is_forbidden = |line: &str| {
        let kernel_file = ["\"/proc", "\"/sys"].iter().any(|prefix| line.contains(prefix));
        match name(line) {
            Some("execve" | "execveat" | "fork" | "vfork" | "clone" | "clone3") => true,
            Some("open" | "openat" | "openat2") => kernel_file,
            Some("sendto" | "sendmsg") => netlink_messages(line).any(|message| message.is_dump()),
            _ => false,
        }
    };
    lines.iter().map(|(_, line)| line.as_str()).filter(|line| is_forbidden(line)).collect()
}

/// A netlink message's header, as far as it says what is asked (netlink(7), rtnetlink(7)).
struct NetlinkHeader {
    kind: Option<u32>,
    flags: Option<u32>,
}

impl NetlinkHeader {
    /// Whether it asks for a list. The flags say different things of different requests, and the third of each four kinds
    /// asks for objects. One that cannot be read is taken for the worst.
    fn is_dump(&self) -> bool {
        const NLM_F_DUMP: u32 = 0x300;
        let asks = self.kind.is_none_or(|kind| kind % 4 == 2);
        asks && self.flags.is_none_or(|flags| flags & NLM_F_DUMP == NLM_F_DUMP)
    }
}

/// The netlink messages that a system call sends.
fn netlink_messages(line: &str) -> impl Iterator<Item = NetlinkHeader> {
    line.split("{nlmsg_len=").skip(1).map(|header| {
        let value = |key: &str| {
            let (_, text) = header.split_once(key)?;
            let digits = text.strip_prefix("0x")?.split(|c: char| !c.is_ascii_hexdigit()).next()?;
            u32::from_str_radix(digits, 16).ok()
        };
        NetlinkHeader { kind: value("nlmsg_type="), flags: value("nlmsg_flags=") }
    })
}

/// The system call that begins in a line; `None` if the line is of something else, such as the second half of a call.
fn name(line: &str) -> Option<&str> {
    let (name, _) = line.split_once('(')?;
    let is_name =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    is_name.then_some(name)
}
