//! Processor time: of children that were reaped, of a daemon, of the calling thread.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rustix::time::{ClockId, clock_gettime};

/// Processor time of all children this process has reaped, and of those that they have reaped.
pub(crate) fn of_children() -> Duration {
    of(UsageWho::RUSAGE_CHILDREN)
}

/// Processor time of this process.
pub(crate) fn of_this_process() -> Duration {
    of(UsageWho::RUSAGE_SELF)
}

fn of(whom: UsageWho) -> Duration {
    let Ok(usage) = getrusage(whom) else { return Duration::ZERO };
    duration(usage.user_time()) + duration(usage.system_time())
}

/// Processor time of the calling thread.
pub(crate) fn of_this_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Processor time of a process that goes on: the sum of its threads', which the kernel keeps in nanoseconds where the
/// figure for the whole process comes in hundredths of a second. What runs at this moment is not in it yet. Zero if the
/// `/proc` there is does not show the process.
pub(crate) fn of_process(pid: u32) -> Duration {
    let tasks = PathBuf::from(format!("/proc/{pid}/task"));
    let Ok(threads) = fs::read_dir(tasks) else { return Duration::ZERO };
    let nanoseconds = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

fn duration(time: TimeVal) -> Duration {
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec())) + Duration::from_micros(part(time.tv_usec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_where_it_was_done() {
        let (thread, children) = (of_this_thread(), of_children());
        let spin = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
        assert!(std::process::Command::new("sh").args(["-c", spin]).status().unwrap().success());
        assert!(of_children() - children > Duration::from_millis(1));
        assert!(of_this_thread() - thread < Duration::from_millis(20));
        assert!(of_process(std::process::id()) > Duration::ZERO);
        assert_eq!(of_process(u32::MAX), Duration::ZERO);
    }
}
