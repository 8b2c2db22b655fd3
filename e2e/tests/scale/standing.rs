//! What a full node's daemon costs while it stands there, and what happens when it is replaced: how much memory it has, how
//! much of a processor it takes with nothing to do, how soon the next one serves, and whether pods notice.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dotfour_e2e::program::{self, Failure};
use dotfour_ipamd::client;
use dotfour_rig::probe::Pinger;
use dotfour_rig::{Daemon, Node, NodeConfig, Place, Pod, Runtime};

use crate::figures::in_words;
use crate::stage::{End, Outcome, all, vnet};

/// Pods on a full node, which is nearly what Azure lets a NIC have.
const PODS: usize = 250;
/// Networks that are not masqueraded.
const CIDRS: u32 = 100;
/// What any daemon has resident, in KiB. Below that, it is not the daemon that was looked at.
const LEAST: u64 = 2 * 1024;
/// Callers that add at once.
const CALLERS: usize = 4;
/// Pods that are pinged while daemons come and go.
const PINGED: usize = 16;
/// A question that has no answer by then is lost: nothing here keeps a packet for later.
const LOST: Duration = Duration::from_secs(1);
/// What a daemon with nothing to do may take of one processor, in percent.
const IDLE_PERCENT: f64 = 1.0;
/// By then all is done that calls have left to be done.
const SETTLED: Duration = Duration::from_millis(500);
/// How long a daemon may take until it answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// For how long the daemon has nothing to do, how often it is replaced, and what it may have resident, in KiB.
pub(crate) struct Standing {
    pub(crate) idle: Duration,
    pub(crate) restarts: usize,
    pub(crate) memory: u64,
}

pub(crate) fn is_cheap(place: &Place, standing: &Standing) -> Outcome {
    let vnet = vnet(place, "standing")?;
    let node = vnet.add_node(&NodeConfig::new("node-1", 0))?;
    let mut config = program::daemon()?;
    config.source = format!("kind: static\nsubnet: {}\naddresses: [10.240.1.1-10.240.1.250]\n", vnet.subnet());
    let cidrs: Vec<String> = (0..CIDRS).map(|number| format!("172.16.{number}.0/24")).collect();
    config.more = format!("masquerade: {{vnetCidrs: [{}], clusterCidrs: [{}]}}\n", vnet.subnet(), cidrs.join(", "));
    let mut daemon = node.start_daemon(&config)?;
    let network = program::network(&node)?;
    let runtime = Runtime::new(&node, &network);
    let pods: Vec<Pod> = (0..PODS)
        .map(|number| Ok(Pod::create(&node, "default", &format!("pod-{number}"))?))
        .collect::<Result<_, Failure>>()?;
    let answers = all(runtime.in_parallel(CALLERS, &pods, |calls, pod| calls.add(pod))?)?;
    let addresses: Vec<Ipv4Addr> =
        answers.iter().take(PINGED).map(|answer| answer.ipv4().ok_or("no address")).collect::<Result<_, _>>()?;
    standing.is_kept(&daemon, "after 250 ADDs")?;
    standing.is_idle(&daemon)?;

    let mut again = Vec::new();
    let over = AtomicBool::new(false);
    let (sent, lost) = thread::scope(|scope| -> Result<(usize, usize), Failure> {
        let pinging = scope.spawn(|| ping(&node, &addresses, &over));
        // Whatever happens here, the other thread must end.
        let end = End(&over);
        let replaced = (|| -> Result<Daemon, Failure> {
            for _ in 0..standing.restarts {
                daemon.kill();
                let begun = Instant::now();
                daemon = node.start_daemon(&config)?;
                until_answered(&daemon)?;
                again.push(begun.elapsed());
            }
            Ok(daemon)
        })();
        drop(end);
        let pinged = pinging.join().map_err(|_| "the pinging thread panicked")?;
        standing.is_kept(&replaced?, "after a restart under 250 pods")?;
        pinged
    })?;
    println!("  serving again after a kill: {}", in_words(&again));
    println!("  packets to {PINGED} of the pods meanwhile: {sent}, lost {lost}");
    if lost > 0 || sent < PINGED * standing.restarts {
        return Err(format!("{lost} of {sent} packets were lost").into());
    }
    Ok(())
}

/// Waits until the daemon answers. That somebody takes its connections is not enough: a child of the killed one, about to
/// become another program, has its socket a moment longer.
fn until_answered(daemon: &Daemon) -> Outcome {
    let begun = Instant::now();
    while let Err(e) = client::ready(daemon.socket()) {
        if begun.elapsed() > PATIENCE {
            return Err(format!("no answer after {PATIENCE:?}: {e}").into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// How many questions were sent, and how many had no answer.
fn ping(node: &Node, addresses: &[Ipv4Addr], over: &AtomicBool) -> Result<(usize, usize), Failure> {
    let mut pinger = Pinger::open(node.netns())?;
    let (mut sent, mut lost) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        for address in addresses {
            sent += 1;
            if pinger.ping(IpAddr::V4(*address), LOST)?.is_none() {
                lost += 1;
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok((sent, lost))
}

/// What a process has had of a processor.
struct ProcessorTime {
    /// Of each thread that is there, exactly (`/proc/PID/task/TID/schedstat`).
    threads: BTreeMap<String, u64>,
    /// Of all its threads and children, those that ended too, in steps of 10 ms (proc_pid_stat(5), `utime` to `cstime`).
    whole: Duration,
}

impl ProcessorTime {
    fn of(pid: u32) -> Result<Self, Failure> {
        let mut threads = BTreeMap::new();
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?;
            // One that ends in this moment is in the other figure.
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let nanoseconds = text.split(' ').next().unwrap_or_default().parse()?;
            threads.insert(thread.file_name().display().to_string(), nanoseconds);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name of the program, in parentheses, may hold anything.
        let (_, behind) = stat.rsplit_once(") ").ok_or("a stat without a name")?;
        let ticks: Vec<u64> = behind.split(' ').skip(11).take(4).map(str::parse).collect::<Result<_, _>>()?;
        let seconds = ticks.iter().sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64;
        Ok(ProcessorTime { threads, whole: Duration::from_secs_f64(seconds) })
    }

    /// What came since, in both figures.
    fn since(&self, before: &Self) -> (Duration, Duration) {
        let had = |thread: &String| before.threads.get(thread).copied().unwrap_or_default();
        // The kernel may have given an ended thread's number to a new one.
        let threads = self.threads.iter().map(|(thread, now)| now.saturating_sub(had(thread))).sum();
        (Duration::from_nanos(threads), self.whole.saturating_sub(before.whole))
    }
}

impl Standing {
    /// Fails if a daemon takes more than its share while nobody calls it. It wakes now and then, to look whether something
    /// is there for it.
    fn is_idle(&self, daemon: &Daemon) -> Outcome {
        thread::sleep(SETTLED);
        let (begun, before) = (Instant::now(), ProcessorTime::of(daemon.pid())?);
        thread::sleep(self.idle);
        let (passed, (threads, whole)) = (begun.elapsed(), ProcessorTime::of(daemon.pid())?.since(&before));
        let percent = |took: Duration| took.as_secs_f64() / passed.as_secs_f64() * 100.0;
        println!(
            "  processor time with {PODS} pods and nothing to do for {passed:.1?}: {threads:.1?}, {:.2} %; in steps of \
             10 ms, and with what ended, {whole:.0?}",
            percent(threads)
        );
        // One that takes nothing at all is not the daemon that was looked at.
        if threads.is_zero() || percent(threads.max(whole)) >= IDLE_PERCENT {
            return Err(format!("an idle daemon takes {:.2} % of a processor", percent(threads.max(whole))).into());
        }
        Ok(())
    }

    fn is_kept(&self, daemon: &Daemon, when: &str) -> Outcome {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
        let resident = |line: &str| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok();
        let resident = status.lines().find_map(resident).ok_or("no VmRSS in the daemon's status")?;
        println!("  resident {when}: {resident} KiB, at most {}", self.memory);
        if !(LEAST..=self.memory).contains(&resident) {
            return Err(format!("the daemon has {resident} KiB {when}, and may have {}", self.memory).into());
        }
        Ok(())
    }
}
