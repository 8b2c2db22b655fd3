//! The daemon killed again and again under a runtime whose pods come and go: no address is lost, none is given twice.
//!
//! `DOTFOUR_CHURN_SEED` brings back the moments of a run, as far as threads allow; `DOTFOUR_CHURN_KILLS` sets the number
//! of kills. `make soak` runs the long one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use dotfour_e2e::driver::{Driver, Limits, Tally};
use dotfour_e2e::program::{self, Failure, shipped};
use dotfour_e2e::views::{Agreement, Views, agreement};
use dotfour_rig::{Daemon, DaemonConfig, Network, Node, NodeConfig, Place, Vnet, VnetConfig};
use fastrand::Rng;

/// Kills of the short run.
const KILLS: u32 = 50;
/// Kills of the long run.
const SOAK_KILLS: u32 = 1_000;
/// Threads that call the plugin.
const CALLERS: usize = 16;
/// Addresses of the NIC beside its primary one: as many as Azure gives.
const SECONDARIES: usize = 255;
/// The most pods at once.
const PODS: usize = 250;
/// Short, so that addresses come round often.
const COOLDOWN: Duration = Duration::from_secs(1);
/// How long an address rests at least, with nothing else left.
const FLOOR: Duration = Duration::from_millis(200);
/// How long the views may take to agree: longer than the daemon's look at its spool takes to come round, which is a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the pods at the end may take to go.
const END: Duration = Duration::from_secs(60);
/// The build directory's place for tests. The daemons' logs stay there after a failure.
const TMPDIR: &str = env!("CARGO_TARGET_TMPDIR");

fn main() -> ExitCode {
    program::run_in_sandbox(|sandbox| {
        let (short, long) = (sandbox.place(), sandbox.place());
        let soak = program::test("a_thousand_kills_of_the_daemon_lose_no_address_and_give_none_twice", move || {
            churn(&long.within("soak")?, SOAK_KILLS)
        });
        vec![
            program::test("a_daemon_killed_at_random_moments_loses_no_address_and_gives_none_twice", move || {
                churn(&short.within("churn")?, KILLS)
            }),
            soak.with_ignored_flag(true),
        ]
    })
}

fn churn(place: &Place, kills: u32) -> Result<(), Failure> {
    let kills = number("DOTFOUR_CHURN_KILLS")?.map_or(Ok(kills), u32::try_from)?;
    let seed = number("DOTFOUR_CHURN_SEED")?.unwrap_or_else(|| Rng::new().u64(..));
    let mut rng = Rng::with_seed(seed);
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.clone() })?;
    let node = vnet.add_node(&NodeConfig::new("node-1", SECONDARIES))?;
    let daemon = daemon()?;
    let network = Network::dotfour(&plugin_directory()?, &dotfour_rig::daemon::socket_path(&node));
    let driver = Driver::new(&node, &network, Limits { sandboxes: PODS, floor: FLOOR });
    let scene = Scene { vnet: &vnet, node: &node, daemon: &daemon, driver: &driver };

    let began = Instant::now();
    let outcome = thread::scope(|scope| {
        for _ in 0..CALLERS {
            let rng = rng.fork();
            scope.spawn(|| driver.call(rng));
        }
        let outcome = scene.kill(kills, &mut rng);
        driver.stop();
        outcome
    });
    let figures = outcome.map_err(|e| format!("seed {seed}: {e}"))?;
    figures.print(seed, began.elapsed(), &driver.tally());
    Ok(())
}

/// What one run takes place on.
struct Scene<'a> {
    vnet: &'a Vnet,
    node: &'a Node,
    daemon: &'a DaemonConfig,
    driver: &'a Driver<'a>,
}

/// What one run showed.
#[derive(Default)]
struct Figures {
    kills: u32,
    /// Of these, before the daemon served.
    early: u32,
    restarts: Vec<Duration>,
    agreements: Vec<Duration>,
}

impl Scene<'_> {
    /// Kills the daemon so many times, and looks at the node after each restart. At the end nothing may be left.
    fn kill(&self, kills: u32, rng: &mut Rng) -> Result<Figures, Failure> {
        let mut figures = Figures::default();
        let mut daemon = self.node.start_daemon(self.daemon)?;
        let mut last_log = String::new();
        while figures.kills < kills {
            self.driver.aim_at(rng.usize(PODS / 5..=PODS));
            sleep_up_to(250, rng);
            // The next one starts a new log.
            last_log = daemon.log();
            daemon.kill();
            figures.kills += 1;
            sleep_up_to(30, rng);
            // Now and then it does not live to serve.
            while figures.kills < kills && rng.u8(..4) == 0 {
                let early = self.node.spawn_daemon(self.daemon)?;
                sleep_up_to(40, rng);
                early.kill();
                figures.kills += 1;
                figures.early += 1;
            }
            let started = Instant::now();
            daemon = self.node.start_daemon(self.daemon)?;
            figures.restarts.push(started.elapsed());

            self.driver.pause();
            let agreement = self.agree(&daemon, &last_log, figures.kills)?;
            figures.agreements.push(agreement.took);
            self.driver.bury();
            self.driver.resume();
        }
        self.nothing_is_left(&daemon, &last_log)?;
        Ok(figures)
    }

    /// Fails unless the views agree and the driver has noticed nothing.
    fn agree(&self, daemon: &Daemon, last_log: &str, kill: u32) -> Result<Agreement, Failure> {
        let agreement = agreement(PATIENCE, || {
            let beliefs = self.driver.beliefs();
            let pods = beliefs.iter().map(|(pod, belief)| (&**pod, belief.clone()));
            Views::take(self.vnet, self.node, pods)
        })?;
        self.judge(&format!("after kill {kill}"), &agreement.findings, daemon, last_log)?;
        Ok(agreement)
    }

    /// Ends all pods and fails unless that leaves the node as it was.
    fn nothing_is_left(&self, daemon: &Daemon, last_log: &str) -> Result<(), Failure> {
        let mut findings = Vec::new();
        if !self.driver.end_all(END) {
            findings.push(format!("not all pods ended within {END:?}"));
        }
        self.driver.pause();
        let began = Instant::now();
        loop {
            let traces = Views::take(self.vnet, self.node, [])?.traces();
            if traces.is_empty() || began.elapsed() > PATIENCE {
                findings.extend(traces);
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.judge("at the end", &findings, daemon, last_log)
    }

    fn judge(&self, when: &str, findings: &[String], daemon: &Daemon, last_log: &str) -> Result<(), Failure> {
        let all: Vec<String> = findings.iter().cloned().chain(self.driver.defects()).collect();
        if all.is_empty() {
            return Ok(());
        }
        let kept = Path::new(TMPDIR).join("churn-ipamd.log");
        fs::write(&kept, format!("{last_log}\n--- killed; the next daemon:\n{}", daemon.log()))?;
        Err(format!("{when}:\n  {}\n  the daemons' logs: {}", all.join("\n  "), kept.display()).into())
    }
}

impl Figures {
    fn print(&self, seed: u64, took: Duration, tally: &Tally) {
        let Tally { adds, dels, vanished, killed, most, failed } = tally;
        println!("churn, seed {seed}: {} kills survived in {:.1} s", self.kills, took.as_secs_f64());
        println!(
            "  {} of them before the daemon served; {} looks, all four views agreed",
            self.early,
            self.restarts.len()
        );
        println!("  {adds} ADDs, {dels} DELs, {vanished} pods vanished without; at most {most} pods at once");
        println!("  {killed} plugins killed, too");
        for ((verb, cause), times) in failed {
            println!("  {verb} refused with {cause}: {times}");
        }
        println!("  serving again after {}", spread(&self.restarts));
        println!("  views in agreement after {}", spread(&self.agreements));
    }
}

fn spread(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort();
    let (middle, worst) = (times.get(times.len() / 2), times.last());
    format!("{:.1?} (median), {:.1?} (worst)", middle.copied().unwrap_or_default(), worst.copied().unwrap_or_default())
}

fn sleep_up_to(milliseconds: u64, rng: &mut Rng) {
    thread::sleep(Duration::from_micros(rng.u64(..milliseconds * 1_000)));
}

fn daemon() -> Result<DaemonConfig, Failure> {
    let mut config = DaemonConfig::new(shipped("dotfour-ipamd")?);
    config.max_pods = PODS;
    config.cooldown = COOLDOWN;
    config.more = format!("cooldownFloor: {}ms", FLOOR.as_millis());
    Ok(config)
}

fn plugin_directory() -> Result<PathBuf, Failure> {
    Ok(shipped("dotfour")?.parent().ok_or("the plugin is in no directory")?.to_owned())
}

fn number(variable: &str) -> Result<Option<u64>, Failure> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    Ok(Some(text.parse().map_err(|_| format!("{variable} is {text:?}, not a number"))?))
}
