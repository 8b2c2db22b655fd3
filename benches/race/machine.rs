//! The machine that the race is run on, as far as times depend on it.

use std::fmt;
use std::fs;
use std::time::SystemTime;

/// A machine, at a time.
#[derive(Debug)]
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    virtual_machine: bool,
    kernel: String,
    date: String,
    load: String,
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
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    /// The load of the minute before the race: what others did on the machine.
    pub(crate) fn load(&self) -> &str {
        &self.load
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
