//! What the daemon counts, as Prometheus sees it.

#[path = "../../src/metrics/strict.rs"]
mod strict;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dotfour_datapath::Netns;
use dotfour_protocol::{Add, Call};
use rustix::process::Signal;

use crate::leases::{now_ns, spool};
use crate::support::{Node, add_call, eventually, key};

const STATES: [&str; 6] = ["free", "assigned", "cooling", "reserved", "releasing", "quarantined"];

const PHASES: [&str; 7] = ["dial", "queue", "assign", "record", "host-batch", "pod-batch", "reply"];

/// A scrape's status line, headers and body.
struct Scrape(String);

impl Scrape {
    fn over(mut stream: impl Read + Write, request: &str) -> Self {
        write!(stream, "{request} HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        Scrape(text)
    }

    fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Scrape::over(stream, "GET /metrics")
    }

    /// Every family with its type, from a text that is right in every detail.
    fn families(&self) -> Vec<(&str, &str)> {
        strict::read_strictly(self.body());
        self.body().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
    }

    fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").unwrap().1
    }

    /// Scrapes until a call is counted so often. A call is counted once its answer is sent, which may be a moment after
    /// its caller has it.
    fn until(path: &Path, verb: &str, result: &str, code: u32, times: f64) -> Self {
        let mut scrape = Scrape::unix(path);
        eventually(&format!("{verb} {result} was counted {times} times"), || {
            scrape = Scrape::unix(path);
            scrape.look(&calls(verb, result, code)) == Some(times)
        });
        scrape
    }

    /// The value of one series, written as in the text.
    fn look(&self, series: &str) -> Option<f64> {
        let found = self.body().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        found.map(|value| value.parse().unwrap())
    }

    fn value(&self, series: &str) -> f64 {
        self.look(series).unwrap_or_else(|| panic!("{series} is not in\n{}", self.0))
    }

    fn pool(&self) -> [f64; 6] {
        STATES.map(|state| self.value(&format!("dotfour_pool_addresses{{state=\"{state}\"}}")))
    }

    fn phase(&self, phase: &str) -> f64 {
        self.value(&format!("dotfour_add_phase_duration_seconds_count{{phase=\"{phase}\"}}"))
    }

    fn calls(&self, verb: &str, result: &str, code: u32) -> f64 {
        self.value(&calls(verb, result, code))
    }
}

fn calls(verb: &str, result: &str, code: u32) -> String {
    format!("dotfour_calls_total{{verb=\"{verb}\",result=\"{result}\",code=\"{code}\"}}")
}

fn metrics_socket(node: &Node) -> PathBuf {
    node.socket().with_file_name("metrics.sock")
}

fn config(node: &Node, more: &str) -> PathBuf {
    node.config(&format!(
        "cooldown: 10m\ncooldownFloor: 10m\n{more}\n\
         source: {{kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.4-10.240.0.7], refresh: 50ms}}\n"
    ))
}

/// An ADD that says when its plugin started, as the plugin's do.
fn dialled_call(id: &str, pod: &str, started_ns: u64) -> Call {
    let Call::Add(add) = add_call(&key(id), pod) else { unreachable!() };
    Call::Add(Add { started_ns: Some(started_ns), ..add })
}

#[test]
fn a_scrape_of_the_unix_socket_shows_what_pods_did_and_a_pool_that_adds_up() {
    let node = Node::new();
    let daemon = node.start(&config(&node, ""));
    let socket = metrics_socket(&node);
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only root may look");
    let before = Scrape::unix(&socket);
    assert!(before.0.starts_with("HTTP/1.1 200 OK\r\n"), "{}", before.0);
    assert!(before.0.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", before.0);
    assert!(before.body().ends_with("# EOF\n"));
    assert_eq!(before.pool(), [3.0, 0.0, 0.0, 0.0, 0.0, 0.0], "the node's own address is no pod's");
    assert_eq!(before.calls("add", "ok", 0), 0.0);

    let mut pods: Vec<Netns> = (0..4).map(|_| Netns::create().unwrap()).collect();
    for (number, pod) in pods.iter().enumerate() {
        let id = format!("c{number}");
        let reply = node.call(dialled_call(&id, &id, now_ns()), Some(pod.as_fd()));
        assert_eq!(matches!(reply, dotfour_protocol::Reply::Attached(_)), number < 3, "{reply:?}");
    }
    node.del(&key("c0"));
    node.del(&key("never-added"));
    drop(pods.remove(1));
    eventually("the lease is collected", || node.status().collected == 1);
    Scrape::until(&socket, "add", "ok", 0, 3.0);
    Scrape::until(&socket, "add", "pool-exhausted", 11, 1.0);
    let after = Scrape::until(&socket, "del", "ok", 0, 2.0);
    after.families();
    assert_eq!(after.pool(), [0.0, 1.0, 2.0, 0.0, 0.0, 0.0]);
    assert_eq!(after.pool().iter().sum::<f64>().to_string(), node.status().pool.total.to_string());
    assert_eq!(["dial", "queue", "assign", "reply"].map(|phase| after.phase(phase)), [4.0; 4]);
    assert_eq!(["record", "host-batch", "pod-batch"].map(|phase| after.phase(phase)), [3.0; 3]);
    let durations = |verb: &str, result: &str| {
        after.value(&format!("dotfour_call_duration_seconds_count{{verb=\"{verb}\",result=\"{result}\"}}"))
    };
    assert_eq!([durations("add", "ok"), durations("add", "failed"), durations("del", "ok")], [3.0, 1.0, 2.0]);
    assert_eq!(after.value("dotfour_leases_collected_total"), 1.0);
    let sum = |phase: &str| after.value(&format!("dotfour_add_phase_duration_seconds_sum{{phase=\"{phase}\"}}"));
    let whole = ["ok", "failed"]
        .map(|result| after.value(&format!("dotfour_call_duration_seconds_sum{{verb=\"add\",result=\"{result}\"}}")));
    let parts: f64 = PHASES.map(sum).iter().sum();
    assert!((parts - whole.iter().sum::<f64>()).abs() < 1e-9, "{parts} s of phases are {whole:?} s of ADDs");
    assert!(sum("host-batch") > 100e-6, "no kernel makes three pairs of links in less");
    eventually("the source is looked at", || {
        Scrape::unix(&socket).value("dotfour_source_reports_total{result=\"ok\"}") > 0.0
    });
    assert!(daemon.stop().success());
    assert!(!socket.exists(), "the socket goes with the daemon");
}

#[test]
fn the_documentation_lists_every_metric_with_its_type_and_none_that_there_is_not() {
    let node = Node::new();
    let _daemon = node.start(&config(&node, ""));
    let scrape = Scrape::unix(&metrics_socket(&node));
    let mut served: Vec<String> = scrape
        .families()
        .into_iter()
        .map(|(family, kind)| {
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            format!("| `{family}{suffix}` | {kind} |")
        })
        .collect();
    let mut documented: Vec<String> = include_str!("../../../docs/metrics.md")
        .lines()
        .filter(|line| line.starts_with("| `dotfour_"))
        .map(|line| line.splitn(4, '|').take(3).collect::<Vec<_>>().join("|") + "|")
        .collect();
    served.sort();
    documented.sort();
    assert_eq!(documented, served);
}

#[test]
fn a_scrape_over_loopback_works_and_nothing_else_is_served_there() {
    for (value, address) in [("127.0.0.1:9404", "127.0.0.1:9404"), ("\"[::1]:9404\"", "[::1]:9404")] {
        let node = Node::new();
        let _daemon = node.start(&config(&node, &format!("metrics: {value}")));
        let ask = |request: &str| {
            let stream = node.netns.run(|| TcpStream::connect(address).unwrap()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            Scrape::over(stream, request)
        };
        let pod = Netns::create().unwrap();
        node.add(&key("c1"), "web-1", pod.as_fd()).unwrap();
        node.del(&key("c1"));
        let counted = |scrape: &Scrape| [scrape.calls("add", "ok", 0), scrape.calls("del", "ok", 0)];
        eventually("both calls are counted", || counted(&ask("GET /metrics")) == [1.0, 1.0]);
        let scrape = ask("GET /metrics");
        assert_eq!(scrape.phase("dial"), 0.0, "this caller does not say when it started");
        assert!(ask("GET /").0.starts_with("HTTP/1.1 404 "));
        assert!(ask("POST /metrics").0.starts_with("HTTP/1.1 405 "));
        let head = ask("HEAD /metrics");
        assert!(head.0.starts_with("HTTP/1.1 200 ") && head.body().is_empty(), "{}", head.0);
        assert!(!metrics_socket(&node).exists(), "one place, not two");
    }
}

#[test]
fn health_is_what_the_plugin_would_be_told() {
    let node = Node::new();
    let _daemon = node.start(&config(&node, ""));
    let ask = || {
        let stream = UnixStream::connect(metrics_socket(&node)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Scrape::over(stream, "GET /healthz")
    };
    assert!(ask().0.starts_with("HTTP/1.1 200 "), "{}", ask().0);
    // The daemon lives and answers scrapes, but no plugin can reach it any more.
    std::fs::remove_file(node.socket()).unwrap();
    let ill = ask();
    assert!(ill.0.starts_with("HTTP/1.1 503 ") && ill.body().contains("ipamd.sock"), "{}", ill.0);
    assert!(Scrape::unix(&metrics_socket(&node)).0.starts_with("HTTP/1.1 200 "));
}

#[test]
fn spooled_dels_are_counted_by_what_came_of_them() {
    let node = Node::new();
    let config = config(&node, "");
    let daemon = node.start(&config);
    let pod = Netns::create().unwrap();
    node.add(&key("c1"), "web-1", pod.as_fd()).unwrap();
    assert!(daemon.stop().success());
    for id in ["c1", "never-added"] {
        spool(&node, id, &key(id), now_ns());
    }
    std::fs::write(node.socket().with_file_name("spool").join("garbage"), "{").unwrap();
    let _daemon = node.start(&config);
    let scrape = Scrape::unix(&metrics_socket(&node));
    let outcomes = ["released", "added-since", "unknown", "set-aside"];
    let counts = outcomes.map(|name| scrape.value(&format!("dotfour_spool_files_total{{outcome=\"{name}\"}}")));
    assert_eq!(counts, [1.0, 0.0, 1.0, 1.0]);
}

#[test]
fn an_add_that_takes_long_leaves_one_line_with_its_pod_and_all_phases() {
    let node = Node::new();
    let daemon = node.start(&config(&node, "slowAdd: 1s"));
    let pods = [Netns::create().unwrap(), Netns::create().unwrap()];
    node.call(dialled_call("quick", "web-quick", now_ns()), Some(pods[0].as_fd()));
    // Done with to its end, or it would be the slow one.
    Scrape::until(&metrics_socket(&node), "add", "ok", 0, 1.0);
    daemon.pause();
    let slow = dialled_call("slow", "web-slow", now_ns());
    std::thread::scope(|scope| {
        scope.spawn(|| node.call(slow, Some(pods[1].as_fd())));
        std::thread::sleep(Duration::from_millis(1500));
        daemon.signal(Signal::CONT);
    });
    eventually("the slow ADD is told", || node.log().contains("slow ADD"));
    let log = node.log();
    let slow: Vec<&str> = log.lines().filter(|line| line.contains("slow ADD")).collect();
    assert_eq!(slow.len(), 1, "{log}");
    let line = slow[0];
    for part in ["WARN", "default/web-slow", "azure/slow/eth0", "result=\"ok\"", "took="] {
        assert!(line.contains(part), "{part} is not in {line:?}");
    }
    let phase = |name: &str| -> f64 {
        let text = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        text.and_then(|text| text.strip_suffix("ms"))
            .unwrap_or_else(|| panic!("no {name} in {line:?}"))
            .parse()
            .unwrap()
    };
    // The call waited for a daemon that was stopped: before its accept, or, had a thread accepted it just then, behind it.
    assert!(phase("dial") + phase("queue") >= 1400.0, "{line}");
    for name in ["assign", "record", "host-batch", "pod-batch", "reply"] {
        assert!(phase(name) < 1000.0, "{line}");
    }
    let scrape = Scrape::unix(&metrics_socket(&node));
    assert_eq!(scrape.value("dotfour_slow_adds_total"), 1.0);
}

#[test]
fn an_add_that_fails_is_reported_too_and_the_threshold_is_the_configuration_s() {
    let node = Node::new();
    let _daemon = node.start(&config(&node, "slowAdd: 1ns"));
    let pod = Netns::create().unwrap();
    let netns = std::fs::File::open("/dev/null").unwrap();
    node.add(&key("c1"), "web-1", netns.as_fd()).unwrap_err();
    eventually("the ADD is told", || node.log().contains("slow ADD"));
    let log = node.log();
    let line = log.lines().find(|line| line.contains("slow ADD")).unwrap();
    for part in ["result=\"invalid-namespace\"", "dial=- ", "host-batch=0.", "pod-batch=- ", "default/web-1"] {
        assert!(line.contains(part), "{part} is not in {line:?}");
    }
    node.add(&key("c1"), "web-1", pod.as_fd()).unwrap();
    eventually("the second ADD is told", || node.log().matches("slow ADD").count() == 2);
}

#[test]
fn a_place_that_is_taken_is_one_clear_error_and_a_dead_daemon_s_socket_is_replaced() {
    let node = Node::new();
    let config = config(&node, "");
    let socket = metrics_socket(&node);
    let daemon = node.start(&config);
    daemon.signal(Signal::KILL);
    drop(daemon);
    assert!(std::fs::symlink_metadata(&socket).unwrap().file_type().is_socket(), "a killed daemon leaves it");
    let daemon = node.start(&config);
    Scrape::unix(&socket);
    assert!(daemon.stop().success());

    let living = UnixListener::bind(&socket).unwrap();
    let (status, log) = node.fail(&config);
    assert_eq!(status.code(), Some(1), "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("dotfour-ipamd: metrics: unix:/") && last.contains("another process serves"), "{last}");
    assert!(socket.exists(), "somebody else's socket stays");
    drop(living);
    std::fs::remove_file(&socket).unwrap();

    std::fs::write(&socket, "precious").unwrap();
    let (status, log) = node.fail(&config);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.lines().last().unwrap().contains("no socket"), "{log}");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");

    let taken = node.netns.run(|| std::net::TcpListener::bind("127.0.0.1:9404").unwrap()).unwrap();
    let (status, log) = node.fail(&self::config(&node, "metrics: 127.0.0.1:9404"));
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.lines().last().unwrap().contains("metrics: 127.0.0.1:9404 cannot be served"), "{log}");
    drop(taken);
}

#[test]
fn metrics_that_are_off_are_served_nowhere_and_a_start_that_fails_leaves_no_socket() {
    let node = Node::new();
    let daemon = node.start(&config(&node, "metrics: off"));
    assert!(!metrics_socket(&node).exists());
    assert!(daemon.stop().success());
    let (status, _) =
        node.fail(&node.config("nic: eth7\nsource: {kind: static, subnet: 10.0.0.0/8, addresses: [10.0.0.4]}\n"));
    assert_eq!(status.code(), Some(1));
    assert!(!metrics_socket(&node).exists());
}

#[test]
fn callers_that_say_nothing_do_not_keep_others_from_scraping_for_good_nor_the_daemon_from_its_pods() {
    let node = Node::new();
    let _daemon = node.start(&config(&node, ""));
    let socket = metrics_socket(&node);
    let silent: Vec<UnixStream> = (0..6).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let pod = Netns::create().unwrap();
    node.add(&key("c1"), "web-1", pod.as_fd()).unwrap();
    // They are there all the while.
    Scrape::until(&socket, "add", "ok", 0, 1.0);
    drop(silent);
    // A request that is too long, and one that is none.
    for nonsense in [vec![b'x'; 100_000], b"\0\x01\r\n\r\n".to_vec()] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let _ = stream.write_all(&nonsense);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    Scrape::unix(&socket);
}
