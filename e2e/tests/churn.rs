//! The daemon killed again and again under a runtime whose pods come and go: no address is lost, none is given twice.
//!
//! `DOTFOUR_CHURN_SEED` brings back the moments of a run, as far as threads allow; `DOTFOUR_CHURN_KILLS` sets the number
//! of kills. `make soak` runs the long one.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use dotfour_e2e::driver::{Driver, Limits, Tally};
use dotfour_e2e::program::{self, Failure};
use dotfour_e2e::views::{Agreement, Belief, Views, agreement, traces_left};
use dotfour_rig::{Daemon, DaemonConfig, Network, Node, NodeConfig, Place, Pod, Runtime, Vnet, VnetConfig};
use fastrand::Rng;
use serde_json::json;

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
/// How long the views may take to agree. The daemon's look at its spool comes round in a second; but when another test's
/// hundreds of namespaces end, the kernel keeps everybody waiting for several.
const PATIENCE: Duration = Duration::from_secs(30);
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
        let (same, echo) = (sandbox.place(), sandbox.place());
        vec![
            program::test("an_address_given_twice_or_too_soon_is_noticed_by_the_driver", move || {
                one_address_for_all(&echo.within("echo")?)
            }),
            program::test("sandboxes_of_one_pod_that_are_added_at_once_are_told_apart", move || {
                one_name_for_all(&same.within("same")?)
            }),
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
    let network = program::network(&node)?;
    let driver = Driver::new(&node, &network, Limits { sandboxes: PODS, floor: FLOOR });
    let scene = Scene { vnet: &vnet, node: &node, daemon: &daemon, driver: &driver };

    let began = Instant::now();
    let outcome = thread::scope(|scope| {
        for _ in 0..CALLERS {
            let rng = rng.fork();
            scope.spawn(|| driver.call(rng));
        }
        let _end = End(&driver);
        scene.kill(kills, &mut rng)
    });
    let figures = outcome.map_err(|e| format!("seed {seed}: {e}"))?;
    figures.print(seed, began.elapsed(), &driver.tally());
    Ok(())
}

/// The driver's own eyes: a plugin that gives one address to everybody.
fn one_address_for_all(place: &Place) -> Result<(), Failure> {
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.clone() })?;
    let node = vnet.add_node(&NodeConfig::new("node-1", 0))?;
    let plugin = node.state_dir().join("echo-plugin");
    program::write_script(&plugin, "#!/bin/sh\necho '{\"ips\":[{\"address\":\"10.240.0.9/32\"}]}'\n")?;
    let network = Network::single("n", "1.0.0", &json!({ "type": "echo-plugin" }), vec![node.state_dir().to_owned()]);
    let noticed = |pods, floor, what: &str| {
        let driver = Driver::new(&node, &network, Limits { sandboxes: pods, floor });
        driver.aim_at(pods);
        thread::scope(|scope| {
            scope.spawn(|| driver.call(Rng::new()));
            let _end = End(&driver);
            let begun = Instant::now();
            while !driver.defects().iter().any(|defect| defect.contains(what)) && begun.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(10));
            }
        });
        let defects = driver.defects();
        if defects.iter().any(|defect| defect.contains(what)) { Ok(()) } else { Err(format!("{what}: {defects:?}")) }
    };
    noticed(4, Duration::ZERO, "10.240.0.9 was given to ")?;
    noticed(1, PATIENCE, "10.240.0.9 was given again ")?;
    Ok(())
}

/// Two sandboxes of each pod, of which each wants the link name that the newest is to have.
fn one_name_for_all(place: &Place) -> Result<(), Failure> {
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.clone() })?;
    let node = vnet.add_node(&NodeConfig::new("node-1", SECONDARIES))?;
    let _running = node.start_daemon(&daemon()?)?;
    let network = program::network(&node)?;
    let runtime = Runtime::new(&node, &network);
    for round in 0..60 {
        let pod = |number: usize| Pod::create(&node, "default", &format!("web-{}", number / 2));
        let pods = (0..CALLERS).map(pod).collect::<Result<Vec<_>, _>>()?;
        let answers = runtime.in_parallel(CALLERS, &pods, |calls, pod| calls.add(pod))?;
        let mut up = Vec::new();
        for (pod, answer) in pods.iter().zip(answers) {
            up.push((pod, Belief::Up(answer?.ipv4().map(IpAddr::V4).into_iter().collect())));
        }
        let agreement = agreement(PATIENCE, || Views::take(&vnet, &node, up.iter().cloned()))?;
        if !agreement.findings.is_empty() {
            return Err(format!("round {round}:\n  {}", agreement.findings.join("\n  ")).into());
        }
        for deleted in runtime.in_parallel(CALLERS, &pods, |calls, pod| calls.del(pod, None))? {
            deleted?;
        }
    }
    Ok(())
}

/// Stops a driver as soon as it is dropped, so that nobody waits for its callers for ever after a panic.
struct End<'a>(&'a Driver<'a>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
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
        findings.extend(traces_left(PATIENCE, self.vnet, self.node)?);
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
    let mut config = program::daemon()?;
    config.max_pods = PODS;
    config.cooldown = COOLDOWN;
    config.more = format!("cooldownFloor: {}ms", FLOOR.as_millis());
    Ok(config)
}

fn number(variable: &str) -> Result<Option<u64>, Failure> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    Ok(Some(text.parse().map_err(|_| format!("{variable} is {text:?}, not a number"))?))
}
