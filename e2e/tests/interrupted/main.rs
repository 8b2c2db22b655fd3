//! Calls that end in the middle: the plugin killed, its caller dead, the daemon stopped where it is. Whatever the moment,
//! the DEL that follows leaves nothing, and until then daemon and kernel agree.
//!
//! `DOTFOUR_INTERRUPTED_SEED` brings back the moments of a run, as far as a busy machine allows.

mod stage;

use std::net::IpAddr;
use std::process::ExitCode;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use dotfour_e2e::program::{self, Failure};
use dotfour_e2e::views::Belief;
use dotfour_rig::runtime::{CallError, Verb};
use dotfour_rig::{Network, Pod, Runtime};
use fastrand::Rng;
use serde_json::json;

use crate::stage::{Outcome, PATIENCE, Stage};

/// Plugins that each test kills.
const TIMES: u32 = 200;
/// Daemons to be killed while they apply the spool.
const KILLS: u32 = 5;
/// How often the spool may be filled for that.
const FILLS: usize = 5;
/// DELs while a daemon is away.
const SPOOLING: usize = 40;
/// Callers at once while the daemon is stopped.
const STOPPED_CALLERS: usize = 48;
/// How long the ADDs before a daemon's stop take.
const BURST: Duration = Duration::from_millis(20);
/// What ADD may take in all is 20 s; and a little more for a busy machine.
const ADD_DEADLINE: Duration = Duration::from_secs(21);
/// What DEL may take, which then spools; and in how many rounds one must have done with no more. All sync their files at
/// once, so that a busy disk makes them slower.
const DEL_LIMIT: Duration = Duration::from_secs(2);
const DEL_ROUNDS: usize = 3;
/// How long a daemon is stopped that goes on before anybody gives up.
const PAUSE: Duration = Duration::from_millis(500);

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        fn main() -> ExitCode {
            program::run_in_sandbox(|sandbox| vec![$({
                let place = sandbox.place();
                program::test(stringify!($name), move || {
                    let seed = seed()?;
                    // Not the whole name: a socket's path has room for 107 bytes.
                    let name: String = stringify!($name).split('_').filter_map(|word| word.chars().next()).collect();
                    let stage = Stage::set(place.within(&name)?, Rng::with_seed(seed))?;
                    $name(stage).map_err(|e| format!("seed {seed}: {e}").into())
                })
            }),*])
        }
    };
}

tests![
    the_plugin_gives_up_on_a_stopped_daemon_and_nothing_of_the_add_is_left,
    a_plugin_killed_in_the_middle_of_add_leaves_nothing_that_del_does_not_end,
    a_plugin_killed_in_the_middle_of_del_leaves_nothing_that_the_next_del_does_not_end,
    a_plugin_killed_while_it_spools_leaves_nothing_that_the_next_del_does_not_end,
    a_daemon_killed_again_and_again_while_it_applies_the_spool_loses_none_of_it,
    an_add_whose_caller_died_leaves_nothing_that_del_does_not_end,
];

fn seed() -> Result<u64, Failure> {
    let Ok(text) = std::env::var("DOTFOUR_INTERRUPTED_SEED") else { return Ok(Rng::new().u64(..)) };
    Ok(text.parse().map_err(|_| format!("DOTFOUR_INTERRUPTED_SEED is {text:?}, not a number"))?)
}

/// Most callers come before the daemon stops, in the middle of their ADDs, and leave their cancellations where it does not
/// look: for these it must notice that nobody took its reply. The others come after, and cancel.
fn the_plugin_gives_up_on_a_stopped_daemon_and_nothing_of_the_add_is_left(mut stage: Stage) -> Outcome {
    let daemon = stage.daemon.take().ok_or("no daemon")?;
    let pods = stage.pods(STOPPED_CALLERS)?;
    let (early, late) = pods.split_at(STOPPED_CALLERS * 2 / 3);
    let moment = BURST.mul_f64(stage.rng.f64());
    let mut mute = stage.network.clone();
    for plugin in &mut mute.plugins {
        plugin.conf.insert("spoolDir".to_owned(), json!(stage.node.state_dir().join("elsewhere")));
    }
    let add = |network: &Network, pods: &[Pod]| {
        let runtime = Runtime::new(&stage.node, network);
        runtime.in_parallel(pods.len(), pods, |calls, pod| timed(|| calls.add(pod)))
    };
    let (first, second) = thread::scope(|scope| {
        let first = scope.spawn(|| add(&mute, early));
        sleep(moment);
        daemon.suspend();
        let second = add(&stage.network, late);
        (first.join(), second)
    });
    let first = first.map_err(|_| "a caller panicked")??;
    let outcomes = pods.iter().zip(first.into_iter().chain(second?));

    let mut up = Vec::new();
    let mut given_up = (Vec::new(), Vec::new());
    for (number, (pod, (outcome, took))) in outcomes.enumerate() {
        match outcome {
            Ok(answer) => up.push((pod, Belief::Up(answer.ipv4().map(IpAddr::V4).into_iter().collect()))),
            Err(e) => {
                let deadline = e.cni().is_some_and(|e| e.code == 11 && e.msg.starts_with("deadline-exceeded"));
                if !deadline || took > ADD_DEADLINE {
                    return Err(format!("after {took:?}: {e}").into());
                }
                let group = if number < early.len() { &mut given_up.0 } else { &mut given_up.1 };
                group.push(pod);
            }
        }
    }
    // A runtime tries to end what failed, and must not be kept; one that died meanwhile does not even try.
    let (ended, cancelled) = given_up.1.split_at(given_up.1.len() / 2);
    let mut slowest = Vec::new();
    while slowest.iter().all(|took| *took > DEL_LIMIT) {
        if slowest.len() == DEL_ROUNDS {
            return Err(format!("the slowest DELs took {slowest:?}, with the daemon stopped").into());
        }
        let dels = stage.runtime().in_parallel(ended.len(), ended, |calls, pod| timed(|| calls.del(pod, None)))?;
        slowest.push(dels.iter().map(|(_, took)| *took).max().unwrap_or_default());
        if let Some(refused) = dels.into_iter().find_map(|(outcome, _)| outcome.err()) {
            return Err(format!("DEL, with the daemon stopped: {refused}").into());
        }
    }
    daemon.resume();
    stage.daemon = Some(daemon);
    let (answered, left, ended, cancelled) = (up.len(), given_up.0.len(), ended.len(), cancelled.len());
    println!(
        "daemon stopped: {answered} ADDs answered; given up: {left}, and {cancelled} cancelled, and {ended} with a DEL"
    );
    if ended == 0 {
        return Err("no ADD was given up".into());
    }
    stage.leases(&up)?;
    for pod in &pods {
        stage.runtime().del(pod, None)?;
    }
    stage.expect_nothing(&pods)?;

    // A pause shorter than the deadline is nothing but a pause.
    let pod = stage.pod("late")?;
    let daemon = stage.daemon.as_ref().ok_or("no daemon")?;
    daemon.suspend();
    let answer = thread::scope(|scope| {
        let add = scope.spawn(|| stage.runtime().add(&pod));
        sleep(PAUSE);
        daemon.resume();
        add.join()
    });
    let address = answer.map_err(|_| "a caller panicked")??.ipv4().ok_or("no address")?;
    stage.leases(&[(&pod, Belief::Up(vec![address.into()]))])?;
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    (work(), started.elapsed())
}

fn a_plugin_killed_in_the_middle_of_add_leaves_nothing_that_del_does_not_end(mut stage: Stage) -> Outcome {
    let (mut killed, mut wired, mut number) = (0, 0, 0);
    while killed < TIMES {
        number += 1;
        let pod = stage.pod(&format!("web-{number}"))?;
        killed += u32::from(stage.interrupt(Verb::Add, &pod)?);
        // Every other DEL comes at once, while the daemon may still be at work for the ADD.
        if number % 2 == 0 {
            wired += stage.leases_of(&pod)?;
        }
        stage.runtime().del(&pod, None)?;
        stage.is_deleted(&pod).map_err(|e| format!("ADD {number}: {e}"))?;
    }
    stage.expect_nothing(&[])?;
    println!("ADD: {TIMES} of {number} plugins killed; of the {} looked at, {wired} were wired", number / 2);
    Ok(())
}

fn a_plugin_killed_in_the_middle_of_del_leaves_nothing_that_the_next_del_does_not_end(mut stage: Stage) -> Outcome {
    let (mut killed, mut wired, mut number) = (0, 0, 0);
    while killed < TIMES {
        number += 1;
        let pod = stage.pod(&format!("web-{number}"))?;
        let address = stage.runtime().add(&pod)?.ipv4().ok_or("no address")?;
        stage.leases(&[(&pod, Belief::Up(vec![IpAddr::V4(address)]))])?;
        killed += u32::from(stage.interrupt(Verb::Del, &pod)?);
        if number % 2 == 0 {
            wired += stage.leases_of(&pod)?;
        }
        stage.runtime().del(&pod, None)?;
        stage.is_deleted(&pod).map_err(|e| format!("DEL {number}: {e}"))?;
    }
    stage.expect_nothing(&[])?;
    println!("DEL: {TIMES} of {number} plugins killed; of the {} looked at, {wired} were still wired", number / 2);
    Ok(())
}

/// With the daemon away a DEL writes a file; killed at any moment of that, it leaves a whole one, a part of one, or none.
fn a_plugin_killed_while_it_spools_leaves_nothing_that_the_next_del_does_not_end(mut stage: Stage) -> Outcome {
    let (mut killed, mut times, mut whole, mut parts) = (0, 0, 0, 0);
    while killed < TIMES {
        let pods = stage.pods(SPOOLING)?;
        for pod in &pods {
            stage.runtime().add(pod)?;
        }
        stage.daemon = None;
        for pod in &pods {
            times += 1;
            killed += u32::from(stage.interrupt(Verb::Del, pod)?);
        }
        let (spooled, begun) = stage.spool()?;
        (whole, parts) = (whole + spooled, begun);
        stage.daemon = Some(stage.node.start_daemon(&stage.config)?);
        let doubtful: Vec<_> = pods.iter().map(|pod| (pod, Belief::InDoubt)).collect();
        let left = stage.leases(&doubtful)?;
        if left + spooled != pods.len() {
            return Err(format!("{spooled} of {SPOOLING} DELs were spooled, and {left} pods are there").into());
        }
        for pod in &pods {
            stage.runtime().del(pod, None)?;
        }
        stage.expect_nothing(&pods)?;
    }
    println!("DEL without a daemon: {killed} of {times} plugins killed, {whole} spooled, {parts} files begun and left");
    Ok(())
}

/// Each daemon is killed as soon as it has removed a file: what that asked for must be done then.
fn a_daemon_killed_again_and_again_while_it_applies_the_spool_loses_none_of_it(mut stage: Stage) -> Outcome {
    let (mut kills, mut fills) = (0, 0);
    // One daemon may be through with the whole spool before this program runs again.
    while kills < KILLS {
        if fills == FILLS {
            return Err(format!("only {kills} daemons were killed in time").into());
        }
        fills += 1;
        kills += kills_while_it_applies(&mut stage)?;
    }
    println!("{fills} times {} spooled DELs applied by daemons that were killed {kills} times meanwhile", 6 * SPOOLING);
    Ok(())
}

/// Fills the spool, and says how many daemons were killed until it was empty.
fn kills_while_it_applies(stage: &mut Stage) -> Result<u32, Failure> {
    let pods = stage.pods(6 * SPOOLING)?;
    stage.runtime().in_parallel(4, &pods, |calls, pod| calls.add(pod))?.into_iter().collect::<Result<Vec<_>, _>>()?;
    stage.daemon = None;
    stage
        .runtime()
        .in_parallel(4, &pods, |calls, pod| calls.del(pod, None))?
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let mut kills = 0;
    let (mut left, _) = stage.spool()?;
    while left > 1 {
        let daemon = stage.node.spawn_daemon(&stage.config)?;
        let deadline = Instant::now() + PATIENCE;
        while stage.spool()?.0 == left {
            if Instant::now() > deadline {
                return Err(format!("the spool is not applied\n{}", daemon.log_tail()).into());
            }
        }
        daemon.kill();
        (left, _) = stage.spool()?;
        // One that had applied everything was not killed in time.
        kills += u32::from(left > 0);
    }
    stage.daemon = Some(stage.node.start_daemon(&stage.config)?);
    stage.expect_nothing(&pods)?;
    // The next pods need nearly all addresses.
    sleep(2 * stage.config.cooldown);
    Ok(kills)
}

fn an_add_whose_caller_died_leaves_nothing_that_del_does_not_end(stage: Stage) -> Outcome {
    for number in 0..TIMES / 10 {
        let pod = stage.pod(&format!("web-{number}"))?;
        let ended =
            stage.runtime().enter(|calls| Ok::<_, CallError>(calls.start(Verb::Add, &pod, None)?.abandon()))??;
        if ended?.success() {
            return Err("the plugin says that it has answered a dead caller".into());
        }
        stage.leases_of(&pod)?;
        stage.runtime().del(&pod, None)?;
        stage.expect_nothing(&[pod])?;
    }
    Ok(())
}
