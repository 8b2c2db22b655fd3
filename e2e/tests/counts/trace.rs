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
/// The daemon's thread that sweeps connections behind everybody's back.
const KEEPER: &str = "keeper";

/// Has strace print numbers, which need not be known by name in its version.
pub(crate) const RAW: &str = "--const-print-style=raw";

/// A system call that strace saw in a process of several threads.
#[derive(Debug)]
pub(crate) struct Line {
    thread: u32,
    thread_name: String,
    call: String,
}

impl Line {
    /// Of a line that begins with the number and the name of the thread; `None` if it is no such line.
    fn parse(line: &str) -> Option<Self> {
        let (thread, rest) = line.split_once('<')?;
        let (thread_name, call) = rest.split_once("> ")?;
        let (thread_name, call) = (thread_name.to_owned(), call.trim_start().to_owned());
        Some(Line { thread: thread.parse().ok()?, thread_name, call })
    }
}

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

    /// Those that are not for the path of a pod, but for the first, which made the process.
    pub(crate) fn forbidden(&self) -> Vec<&str> {
        self.calls.iter().skip(1).map(String::as_str).filter(|call| is_forbidden(call, false)).collect()
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
            .args(["-f", "--decode-pids=comm", "-e", "signal=none", RAW, "-p"])
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

    /// Lets the process go, and returns what it did.
    pub(crate) fn finish(mut self) -> Result<Vec<Line>, Failure> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).ok_or("strace has no number")?;
        kill_process(pid, Signal::INT)?;
        self.child.wait()?;
        Ok(fs::read_to_string(&self.file)?.lines().filter_map(Line::parse).collect())
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
pub(crate) fn served(lines: &[Line]) -> Vec<Seen> {
    let mut served: Vec<Seen> = Vec::new();
    // Of each thread, the place in `served` of the caller it is busy with.
    let mut busy: BTreeMap<u32, usize> = BTreeMap::new();
    for Line { thread, call: line, .. } in lines {
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

/// What no thread of a daemon may do for a pod: start a program, lock a file, read a file of the kernel's, list what the
/// kernel has. The keeper may list connections: what it sweeps was a pod's, and nobody waits for it.
pub(crate) fn forbidden(lines: &[Line]) -> Vec<&str> {
    let forbidden = |line: &&Line| is_forbidden(&line.call, line.thread_name == KEEPER);
    lines.iter().filter(forbidden).map(|line| line.call.as_str()).collect()
}

fn is_forbidden(call: &str, may_list_connections: bool) -> bool {
    match name(call) {
        Some("execve" | "execveat" | "fork" | "vfork" | "clone" | "clone3" | "flock") => true,
        // Of all that it does, only locks are described by this structure.
        Some("fcntl" | "fcntl64") => call.contains("{l_type="),
        Some("open" | "openat" | "openat2") => ["\"/proc", "\"/sys"].iter().any(|prefix| call.contains(prefix)),
        Some("sendto" | "sendmsg") => netlink_messages(call)
            .any(|message| message.is_dump() && !(may_list_connections && message.is_of_connections())),
        _ => false,
    }
}

/// A netlink message's header, as far as it says what is asked (netlink(7), rtnetlink(7)).
struct NetlinkHeader {
    kind: Option<u32>,
    flags: Option<u32>,
}

impl NetlinkHeader {
    /// Whether it asks for a list. In rtnetlink the flags say different things of different requests, and the third of each
    /// four kinds asks for objects. nfnetlink has its subsystem in the upper byte, where rtnetlink has nothing, and no such
    /// order of kinds; only what asks has both flags in it. One that cannot be read is taken for the worst.
    fn is_dump(&self) -> bool {
        const NLM_F_DUMP: u32 = 0x300;
        let asks = self.kind.is_none_or(|kind| kind > 0xff || kind % 4 == 2);
        asks && self.flags.is_none_or(|flags| flags & NLM_F_DUMP == NLM_F_DUMP)
    }

    /// Whether it is for the kernel's table of connections (`NFNL_SUBSYS_CTNETLINK`).
    fn is_of_connections(&self) -> bool {
        self.kind.is_some_and(|kind| kind >> 8 == 1)
    }
}

/// The netlink messages that a system call sends.
fn netlink_messages(line: &str) -> impl Iterator<Item = NetlinkHeader> {
    line.split("{nlmsg_len=").skip(1).map(|header| {
        let value = |key: &str| number(header.split_once(key)?.1.split([',', '}']).next()?);
        NetlinkHeader { kind: value("nlmsg_type="), flags: value("nlmsg_flags=") }
    })
}

/// A number as strace prints it. A kind of nfnetlink's is printed in two halves, unless strace does not know it: "0x1<<8|0x1".
fn number(text: &str) -> Option<u32> {
    let digits = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    match text.split_once("<<8|") {
        Some((upper, lower)) => Some(digits(upper)? << 8 | digits(lower)?),
        None => digits(text),
    }
}

/// The system call that begins in a line; `None` if the line is of something else, such as the second half of a call.
fn name(line: &str) -> Option<&str> {
    let (name, _) = line.split_once('(')?;
    let is_name =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    is_name.then_some(name)
}

/// What is forbidden is known when it is seen, and nothing else is taken for it: a test of this file, with what strace 6.1
/// printed of `ip`, `nft`, `conntrack` and `flock`.
pub(crate) fn knows_what_is_forbidden() -> Result<(), Failure> {
    let message = |kind: &str, flags: &str| {
        format!("sendto(3, [{{nlmsg_len=20, nlmsg_type={kind}, nlmsg_flags={flags}, nlmsg_seq=1")
    };
    let lock = "{l_type=0x1, l_whence=0, l_start=0, l_len=0}";
    let cases = [
        // RTM_GETLINK of all, and of one.
        (message("0x12", "0x301"), true, true),
        (message("0x12", "0x1"), false, false),
        // RTM_NEWROUTE; of it, the same bits say that it replaces or must be new.
        (message("0x18", "0x705"), false, false),
        // IPCTNL_MSG_CT_GET of all, and of one; IPCTNL_MSG_CT_DELETE, IPCTNL_MSG_CT_GET_STATS.
        (message("0x1<<8|0x1", "0x301"), true, false),
        (message("0x101", "0x301"), true, false),
        (message("0x1<<8|0x1", "0x5"), false, false),
        (message("0x1<<8|0x2", "0x5"), false, false),
        (message("0x1<<8|0x5", "0x5"), false, false),
        // NFT_MSG_GETTABLE of all; NFT_MSG_NEWRULE, and NFT_MSG_GETGEN, whose kind strace does not know.
        (message("0xa<<8|0x1", "0x301"), true, true),
        (message("0xa<<8|0x6", "0xc01"), false, false),
        (message("0xa10", "0x1"), false, false),
        // The second of two, and what cannot be read.
        (format!("{}}}], {}", message("0x10", "0x605"), message("0x12", "0x301")), true, true),
        (message("RTM_GETLINK", "NLM_F_REQUEST"), true, true),
        // Locks, and other uses of what takes them.
        ("flock(3, 0x6)".to_owned(), true, true),
        (format!("fcntl(3, 0x7, {lock} <unfinished ...>"), true, true),
        (format!("fcntl(3, 0x25, {lock}) = 0"), true, true),
        ("fcntl(3, 0x4, 0x800) = 0".to_owned(), false, false),
    ];
    for (call, by_verbs, by_keeper) in cases {
        for (thread, expected) in [("verbs-0", by_verbs), (KEEPER, by_keeper)] {
            let line = Line::parse(&format!("17808<{thread}> {call}")).ok_or("not a line")?;
            if forbidden(&[line]).is_empty() == expected {
                return Err(format!("of {thread}, {expected} was expected: {call}").into());
            }
        }
    }
    Ok(())
}
