//! How often the kernel had to bring a process a page.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dotfour_e2e::program::Failure;
use dotfour_rig::runtime::Running;

/// How long a plugin may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The page faults of a process from its making to its end, for which this waits. Those that needed no disk (proc_pid_stat(5),
/// `minflt`).
pub(crate) fn of(running: &Running) -> Result<u64, Failure> {
    let pid = running.pid().ok_or("the plugin was waited for")?;
    let begun = Instant::now();
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name of the program, in parentheses, may hold anything.
        let (_, behind) = stat.rsplit_once(") ").ok_or("a stat without a name")?;
        let fields: Vec<&str> = behind.split(' ').collect();
        if fields.first() == Some(&"Z") {
            return Ok(fields.get(7).ok_or("a short stat")?.parse()?);
        }
        if begun.elapsed() > PATIENCE {
            return Err("the plugin does not end".into());
        }
        sleep(Duration::from_millis(1));
    }
}
