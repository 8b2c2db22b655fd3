//! The machine that the race is run on, as far as times depend on it.

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime};

/// A machine, at a time.
#[derive(Debug)]
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    virtual_machine: bool,
    kernel: String,
    date: String,
    before: Ticks,
}

impl Machine {
    /// This one, now.
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = processors.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let today = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        Machine {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            // CPUID's way to say that there is somebody underneath; x86 only.
            virtual_machine: field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            date: today.get(..10).unwrap_or_default().to_owned(),
            before: Ticks::now(),
        }
    }

    /// What part of its processors' time went to others since [`Machine::here`], in percent: what ran beside the race.
    /// `own` is the race's own processor time.
    pub(crate) fn taken_by_others(&self, own: Duration) -> u64 {
        let now = Ticks::now();
        let (busy, all) = (now.busy.saturating_sub(self.before.busy), now.all.saturating_sub(self.before.all));
        let own = u64::try_from(own.as_millis()).unwrap_or(u64::MAX) / MILLISECONDS_PER_TICK;
        busy.saturating_sub(own).saturating_mul(100).checked_div(all).unwrap_or_default()
    }
}

/// The unit of `/proc/stat`: USER_HZ is 100 on every architecture that is served here.
const MILLISECONDS_PER_TICK: u64 = 10;

/// Processor time of the whole machine since it started.
#[derive(Debug)]
struct Ticks {
    busy: u64,
    all: u64,
}

impl Ticks {
    fn now() -> Self {
        Ticks::read(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// Reads proc_stat(5)'s first line: user, nice, system, idle, iowait, irq, softirq, steal. Guests' time is in user.
    fn read(text: &str) -> Self {
        let first = text.lines().next().unwrap_or_default();
        let columns: Vec<u64> = first.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
        let all = columns.iter().sum();
        let idle: u64 = columns.iter().skip(3).take(2).sum();
        Ticks { busy: all - idle, all }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cores, processor, kernel, date, .. } = self;
        let kind = if self.virtual_machine { " (virtual machine)" } else { "" };
        let plural = if *cores == 1 { "" } else { "s" };
        write!(f, "{cores} core{plural} of {processor}{kind}, Linux {kernel}, {date}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_not_work() {
        let ticks = Ticks::read("cpu  100 20 30 1000 50 6 7 8 9 10\ncpu0 1 2 3\n");
        assert_eq!((ticks.busy, ticks.all), (171, 1221));
    }

    #[test]
    fn what_the_race_itself_takes_is_not_the_others() {
        let mut machine = Machine::here();
        machine.before = Ticks { busy: 0, all: 0 };
        let now = Ticks::now();
        let everything = Duration::from_millis(now.busy * MILLISECONDS_PER_TICK) + Duration::from_secs(60);
        assert_eq!(machine.taken_by_others(everything), 0);
        assert!(machine.taken_by_others(Duration::ZERO) <= 100);
    }
}
