//! Rules that are applied again and again under connections, and rules with very many networks.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dotfour_datapath::Netns;
use dotfour_e2e::inside::shell;
use dotfour_e2e::program::Failure;
use dotfour_rig::Place;
use dotfour_rig::probe::{Transport, ask};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::columns::{ALL, Column};
use crate::elsewhere::Elsewhere;
use crate::world::{PORT, World, own};

/// How long an answer may take, and a re-application.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where those are who have so many connections.
const CROWD_PORT: u16 = 7_000;
/// Who use the connections.
const USERS: usize = 4;
/// How long they leave the processors to the daemon, between two uses of all and two new ones.
const BREATH: Duration = Duration::from_millis(1);
/// Descriptors of everything but the connections.
const SPARE_DESCRIPTORS: usize = 1_000;

/// How much there is to bear.
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) connections: usize,
    pub(crate) applications: usize,
}

/// A connection of a pod, with the source that the other side sees.
struct Connection {
    stream: TcpStream,
    seen: String,
}

impl Connection {
    fn open(pod: &Netns, to: SocketAddr, expected: IpAddr) -> Result<Self, Failure> {
        let stream = pod.run(|| TcpStream::connect_timeout(&to, PATIENCE))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut connection = Connection { stream, seen: String::new() };
        connection.seen = connection.hear()?;
        let source: SocketAddr = connection.seen.trim().parse()?;
        if source.ip() == expected {
            Ok(connection)
        } else {
            Err(format!("{to} sees {source} and not {expected}").into())
        }
    }

    fn hear(&mut self) -> Result<String, Failure> {
        let mut space = [0; 128];
        let length = self.stream.read(&mut space)?;
        Ok(String::from_utf8(space.get(..length).unwrap_or_default().to_vec())?)
    }

    /// Says something; the answer must be as it always was.
    fn use_it(&mut self) -> Result<(), Failure> {
        self.stream.write_all(b"?")?;
        let heard = self.hear()?;
        if heard == self.seen { Ok(()) } else { Err(format!("{heard:?} is heard, not {:?}", self.seen).into()) }
    }
}

/// Connections that are open, and new ones, keep the right source and break in no case, however often the daemon makes its
/// table anew.
pub(crate) fn breaks_nothing(place: &Place, load: &Load) -> Result<(), Failure> {
    allow_descriptors(load.connections + SPARE_DESCRIPTORS)?;
    // One that exempts the subnet and not the peer.
    let world = World::build(&place.within(load.name)?, &ALL[1])?;
    let pod = &world.pods[0];
    let internet = world.host("internet")?.addresses()[0];
    let far = world.pods[2].v4;
    let targets = [(internet, own(&world.nodes[0], internet)), (far, pod.v4)];
    let places = targets.map(|(to, _)| SocketAddr::new(to, CROWD_PORT));
    let _responders = [
        Elsewhere::start(world.host("internet")?.netns(), places[0])?,
        Elsewhere::start(world.pods[2].pod.netns(), places[1])?,
    ];
    let opened = |number: usize| {
        let (to, expected) = targets[number % targets.len()];
        Connection::open(pod.pod.netns(), SocketAddr::new(to, CROWD_PORT), expected)
    };
    let begun = Instant::now();
    let mut connections: Vec<Vec<Connection>> = thread::scope(|scope| {
        let open = |user: usize| scope.spawn(move || (user..load.connections).step_by(USERS).map(opened).collect());
        let threads: Vec<_> = (0..USERS).map(open).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a user panicked".into())))
            .collect::<Result<_, Failure>>()
    })?;
    println!("  {} connections opened in {:?}", load.connections, begun.elapsed());
    let (over, used, new) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let outcome = thread::scope(|scope| {
        let mut threads = Vec::new();
        for connections in &mut connections {
            let (over, used) = (&over, &used);
            threads.push(scope.spawn(move || {
                // Once through all of them after the end, too.
                loop {
                    let last = over.load(Ordering::Relaxed);
                    for connection in connections.iter_mut() {
                        connection
                            .use_it()
                            .map_err(|e| format!("the connection seen as {:?}: {e}", connection.seen.trim()))?;
                        used.fetch_add(1, Ordering::Relaxed);
                    }
                    if last {
                        return Ok(());
                    }
                    thread::sleep(BREATH);
                }
            }));
        }
        let (over, new, opened) = (&over, &new, &opened);
        threads.push(scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                opened(new.fetch_add(1, Ordering::Relaxed)).map_err(|e| format!("a new connection: {e}"))?;
                thread::sleep(BREATH);
            }
            Ok::<(), Failure>(())
        }));
        let applied = apply_again(&world, load.applications);
        over.store(true, Ordering::Relaxed);
        let ended = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a user panicked".into())));
        ended.chain([applied]).collect::<Result<(), Failure>>()
    });
    println!(
        "  {} re-applications under {} connections, used {} times, and {} new ones, took {:?}",
        load.applications,
        load.connections,
        used.load(Ordering::Relaxed),
        new.load(Ordering::Relaxed),
        begun.elapsed()
    );
    outcome?;
    match insert_failed(world.nodes[0].netns())? {
        0 => Ok(()),
        lost => Err(format!("conntrack could not keep {lost} connections (insert_failed)").into()),
    }
}

/// Has the daemon make its table anew, so often. Whoever changes anything in it makes it do so, even a counter that no rule uses.
fn apply_again(world: &World, times: usize) -> Result<(), Failure> {
    let netns = world.nodes[0].netns();
    for number in 0..times {
        shell(netns, &format!("nft add counter inet dotfour stranger{number}"))?;
        let begun = Instant::now();
        while shell(netns, "nft list counters table inet dotfour")?.contains("stranger") {
            if begun.elapsed() > PATIENCE {
                return Err(format!("the table is not made anew\n{}", world.logs()).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// How many connections conntrack has lost, of all processors' counts in `/proc/net/stat/nf_conntrack`.
fn insert_failed(netns: &Netns) -> Result<u64, Failure> {
    let text = shell(netns, "cat /proc/net/stat/nf_conntrack")?;
    let mut lines = text.lines();
    let names = lines.next().ok_or("conntrack counts nothing")?;
    let column = names.split_whitespace().position(|name| name == "insert_failed").ok_or("no insert_failed")?;
    let values =
        lines.map(|line| Ok(u64::from_str_radix(line.split_whitespace().nth(column).ok_or("a short line")?, 16)?));
    values.sum()
}

fn allow_descriptors(count: usize) -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(count)?;
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
        .map_err(|e| format!("{count} descriptors are needed (ulimit -n): {e}").into())
}

/// How many networks are exempt on the one node, and on the other.
const MANY: usize = 10_000;
/// New flows that are measured on each.
const FLOWS: usize = 1_500;
/// How many of them in a row.
const BATCH: usize = 100;
/// One round within the limit is enough: noise can make a round slower, and a rule for each network makes all of them so.
const ROUNDS: usize = 3;
/// What the many may cost. A rule for each would cost some hundred times as much.
const LIMIT: f64 = 2.0;

/// Ten thousand networks cost a new flow about what one costs it.
pub(crate) fn many_networks_cost_little(place: &Place) -> Result<(), Failure> {
    let place = place.within("many")?;
    let list: String = (0..MANY).map(|n| format!("- 11.{}.{}.0/25\n", n / 256, n % 256)).collect();
    let build = |name: &'static str, more: &str| -> Result<World, Failure> {
        let file: &'static str = format!("nonMasqueradeCIDRs:\n- 10.240.0.0/16\n{more}").leak();
        World::build(&place, &Column { name, place: name, yaml: "masquerade: {configDir: CONFIG}", file: Some(file) })
    };
    let (few, many) = (build("few", "")?, build("many", &list)?);
    for (what, world) in [("1 network", &few), ("10,000 networks", &many)] {
        let log = world.logs();
        println!(
            "  {what}: {}",
            log.lines().find(|line| line.contains("is in force")).unwrap_or("nothing was applied")
        );
    }
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let mut times = (Vec::new(), Vec::new());
        for _ in 0..FLOWS / BATCH {
            flows(&few, &mut times.0)?;
            flows(&many, &mut times.1)?;
        }
        let (one, all) = (median(&mut times.0), median(&mut times.1));
        let ratio = all.as_secs_f64() / one.as_secs_f64();
        println!(
            "  a new flow's first packet and its answer: {one:?} with 1 network, {all:?} with {MANY}; ratio {ratio:.2}"
        );
        if ratio <= LIMIT {
            return Ok(());
        }
        ratios.push(ratio);
    }
    Err(format!("{MANY} networks cost {ratios:.2?} times as much; allowed is {LIMIT}").into())
}

/// What the first packets of new flows take, there and back, to a destination that no network matches and one that one does.
fn flows(world: &World, times: &mut Vec<Duration>) -> Result<(), Failure> {
    let targets = [world.host("internet")?.addresses()[0], world.pods[2].v4];
    let pod = world.pods[0].pod.netns();
    // The way there is known.
    for target in targets {
        ask(pod, Transport::Udp, None, (target, PORT).into(), PATIENCE)?.ok_or("no answer")?;
    }
    let measured = pod.run(|| -> std::io::Result<Vec<Duration>> {
        let mut measured = Vec::with_capacity(BATCH);
        for number in 0..BATCH {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect((targets[number % targets.len()], PORT))?;
            let begun = Instant::now();
            socket.send(b"?")?;
            socket.recv(&mut [0; 128])?;
            measured.push(begun.elapsed());
        }
        Ok(measured)
    })??;
    times.extend(measured);
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
