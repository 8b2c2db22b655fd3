//! The start-up taint, with an API server that speaks TLS and does to a node what Kubernetes' own does with a patch.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dotfour_datapath::Netns;
use dotfour_datapath::address::PrefixRoute;
use dotfour_datapath::{Batch, Socket};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::support::{Daemon, Node, eventually, key};

const KEY: &str = "node.dotfour.io/not-ready";
const ADDRESS: &str = "10.240.0.100:6443";
const TOKEN: &str = "a-token";

/// What the API server has and does.
#[derive(Default)]
struct State {
    node: Value,
    /// Methods and statuses, in their order.
    answered: Vec<(String, u16)>,
    /// Whether the network configuration was there when the first request came.
    published: Option<bool>,
    /// Taints that somebody else puts before all others, one after each question.
    meanwhile: Vec<Value>,
    forbidden: bool,
    /// The next patches lose a race with another writer.
    races: u32,
}

/// An API server beyond the node's NIC.
struct Server {
    state: Arc<Mutex<State>>,
    authority: String,
}

/// A node with the directories of a runtime, and an account's files.
struct Host {
    node: Node,
}

impl Host {
    fn new() -> Self {
        let node = Node::new();
        node.wire
            .run(|| {
                let mut batch = Batch::new();
                batch.add_address("address", 2, "10.240.0.100/16".parse().unwrap(), PrefixRoute::Add);
                Socket::open().unwrap().run(batch).unwrap();
            })
            .unwrap();
        fs::create_dir(node.directory.path().join("account")).unwrap();
        let host = Host { node };
        host.put("token", TOKEN);
        host
    }

    fn put(&self, file: &str, text: &str) {
        // In one step, for the daemon may be reading it.
        let account = self.node.directory.path().join("account");
        fs::write(account.join("new"), text).unwrap();
        fs::rename(account.join("new"), account.join(file)).unwrap();
    }

    fn conflist(&self) -> PathBuf {
        self.node.directory.path().join("net.d/10-dotfour.conflist")
    }

    /// An API server with a node of these taints; its authority is the account's.
    fn server(&self, taints: &[Value]) -> Server {
        let node = json!({ "kind": "Node", "metadata": { "name": "node-1" }, "spec": { "taints": taints } });
        let state = Arc::new(Mutex::new(State { node, ..State::default() }));
        let (tls, authority) = tls();
        let listener = self.node.wire.run(|| std::net::TcpListener::bind(ADDRESS).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (served, conflist) = (Arc::clone(&state), self.conflist());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, tls, served, conflist));
        });
        self.put("ca.crt", &authority);
        Server { state, authority }
    }

    /// Starts the daemon as a pod has it: with an account's files at their place, and an environment. What is mounted is in
    /// a mount namespace of its own.
    fn start(&self) -> Daemon {
        self.start_program(Path::new(DAEMON), "10.240.0.5-10.240.0.9")
    }

    /// Another build of the daemon, with these addresses.
    fn start_program(&self, program: &Path, addresses: &str) -> Daemon {
        let directory = self.node.directory.path().display();
        let config = self.node.config(&format!(
            "startupTaint: {KEY}\ncniBinDir: {directory}/bin\ncniConfDir: {directory}/net.d\n\
             source: {{kind: static, subnet: 10.240.0.0/16, addresses: [{addresses}], refresh: 50ms}}\n"
        ));
        let account = "/var/run/secrets/kubernetes.io/serviceaccount";
        let script = format!(
            "mount -t tmpfs none /run && mkdir -p {account} && mount --bind {directory}/account {account} && exec \"$@\""
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", &script, "sh"]).arg(program).args(["run", "--config"]).arg(config);
        let address: SocketAddr = ADDRESS.parse().unwrap();
        command.env("KUBERNETES_SERVICE_HOST", address.ip().to_string());
        command.env("KUBERNETES_SERVICE_PORT", address.port().to_string()).env("NODE_NAME", "node-1");
        self.node.start_as(&mut command)
    }

    fn install(&self) {
        assert!(install(&self.node.directory.path().join("bin"), &plugin()).output().unwrap().status.success());
    }

    /// Pods get an address, and the runtime its network configuration.
    fn serves(&self) {
        eventually("the network configuration is there", || self.conflist().exists());
        let pod = Netns::create().unwrap();
        self.node.add(&key("c1"), "web", pod.as_fd()).unwrap();
        self.node.del(&key("c1"));
    }
}

impl Server {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    fn taints(&self) -> Value {
        self.state.lock().unwrap().node["spec"]["taints"].clone()
    }

    fn answered(&self) -> Vec<(String, u16)> {
        self.state.lock().unwrap().answered.clone()
    }

    /// Waits until the taint is gone; the others are these.
    fn eventually_has(&self, host: &Host, others: &[Value]) {
        eventually(&format!("the taint goes:\n{}", host.node.log()), || self.taints() == json!(others));
    }
}

fn taint(key: &str) -> Value {
    json!({ "key": key, "effect": "NoSchedule" })
}

/// A server's side of TLS, and the certificate of the authority that vouches for it.
fn tls() -> (TlsAcceptor, String) {
    let (authority_key, server_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let address: SocketAddr = ADDRESS.parse().unwrap();
    let server = CertificateParams::new([address.ip().to_string()]).unwrap().signed_by(&server_key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], PrivateKeyDer::Pkcs8(server_key.serialize_der().into()))
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), pem(certificate.der()))
}

fn pem(der: &[u8]) -> String {
    let mut encode = Command::new("base64").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut encode.stdin.take().unwrap(), der).unwrap();
    let text = String::from_utf8(encode.wait_with_output().unwrap().stdout).unwrap();
    format!("-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n")
}

async fn serve(listener: std::net::TcpListener, tls: TlsAcceptor, state: Arc<Mutex<State>>, conflist: PathBuf) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, state, conflist) = (tls.clone(), Arc::clone(&state), conflist.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let answer = |request| answer(request, &state, conflist.exists());
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    state: &Mutex<State>,
    published: bool,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut state = state.lock().unwrap();
    state.published.get_or_insert(published);
    let (status, message) = match parts.method {
        _ if header("authorization") != format!("Bearer {TOKEN}") => (StatusCode::UNAUTHORIZED, "Unauthorized".into()),
        _ if state.forbidden => (StatusCode::FORBIDDEN, "nodes \"node-1\" is forbidden".to_owned()),
        _ if parts.uri.path() != "/api/v1/nodes/node-1" => (StatusCode::NOT_FOUND, "not found".into()),
        Method::GET => (StatusCode::OK, String::new()),
        Method::PATCH if header("content-type") != "application/json-patch+json" => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "of no type that is supported".into())
        }
        Method::PATCH if state.races > 0 => {
            state.races -= 1;
            (StatusCode::CONFLICT, "the object has been modified".into())
        }
        Method::PATCH => {
            let steps: json_patch::Patch = serde_json::from_slice(&body).unwrap();
            match json_patch::patch(&mut state.node, &steps) {
                Ok(()) => (StatusCode::OK, String::new()),
                Err(e) => (StatusCode::UNPROCESSABLE_ENTITY, e.to_string()),
            }
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, "not allowed".into()),
    };
    let text = match status {
        StatusCode::OK => state.node.to_string(),
        _ => json!({ "kind": "Status", "code": status.as_u16(), "message": message }).to_string(),
    };
    state.answered.push((parts.method.to_string(), status.as_u16()));
    if parts.method == Method::GET
        && let Some(new) = state.meanwhile.pop()
    {
        state.node["spec"]["taints"].as_array_mut().unwrap().insert(0, new);
    }
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    Ok(response)
}

#[test]
fn the_taint_goes_when_the_network_configuration_is_there_and_others_stay() {
    let host = Host::new();
    let server = host.server(&[taint("a"), taint(KEY), taint("b")]);
    // Without its plugin the daemon serves, and promises nothing.
    let _daemon = host.start();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(server.answered(), []);
    host.install();
    server.eventually_has(&host, &[taint("a"), taint("b")]);
    assert_eq!(server.state.lock().unwrap().published, Some(true), "asked before the promise was given");
    assert_eq!(server.answered(), [("GET".to_owned(), 200), ("PATCH".to_owned(), 200)]);
    eventually("it is told", || {
        host.node.log().contains("took the taint node.dotfour.io/not-ready off the node node-1")
    });
    host.serves();
    // Somebody gives it again: that is no matter of this start, and of the next.
    server.set(|state| state.node["spec"]["taints"] = json!([taint(KEY)]));
    thread::sleep(Duration::from_millis(300));
    assert_eq!(server.taints(), json!([taint(KEY)]));
    drop(_daemon);
    let _daemon = host.start();
    server.eventually_has(&host, &[]);
}

/// What the daemon of a full node may ever have resident that speaks to Kubernetes, in KiB, and where pages are larger; and
/// what any daemon has.
const MEMORY: u64 = 20 * 1024;
const LENIENT_MEMORY: u64 = 28 * 1024;
const LEAST_MEMORY: u64 = 2 * 1024;
/// Pods on a full node.
const FULL: usize = 250;

#[test]
fn the_daemon_of_a_full_node_that_has_asked_kubernetes_is_small() {
    let host = Host::new();
    host.install();
    let server = host.server(&[taint(KEY)]);
    let daemon = host.start_program(&released("dotfour-ipamd"), "10.240.1.1-10.240.1.250");
    let pods: Vec<Netns> = (0..FULL).map(|_| Netns::create().unwrap()).collect();
    server.eventually_has(&host, &[]);
    for (number, pod) in pods.iter().enumerate() {
        host.node.add(&key(&format!("{number:064x}")), &format!("web-{number}"), pod.as_fd()).unwrap();
    }
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.0.id())).unwrap();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
    };
    println!("resident with {FULL} pods: {} KiB, and {} KiB at most", kib("VmRSS:"), kib("VmHWM:"));
    let most = if rustix::param::page_size() > 4096 { LENIENT_MEMORY } else { MEMORY };
    assert!((LEAST_MEMORY..=most).contains(&kib("VmHWM:")), "{status}");
}

#[test]
fn a_node_without_the_taint_is_asked_once_and_not_changed() {
    let host = Host::new();
    host.install();
    let server = host.server(&[taint("a")]);
    let _daemon = host.start();
    eventually("it is told", || host.node.log().contains("the node node-1 has no taint node.dotfour.io/not-ready"));
    assert_eq!(server.answered(), [("GET".to_owned(), 200)]);
}

#[test]
fn a_node_that_others_change_meanwhile_loses_nothing_of_theirs() {
    let host = Host::new();
    host.install();
    let server = host.server(&[taint(KEY), taint("a")]);
    server.set(|state| {
        state.meanwhile = vec![taint("c"), taint("b")];
        state.races = 1;
    });
    let _daemon = host.start();
    server.eventually_has(&host, &[taint("c"), taint("b"), taint("a")]);
    let patches: Vec<u16> =
        server.answered().iter().filter(|(method, _)| method == "PATCH").map(|(_, status)| *status).collect();
    assert_eq!(patches, [409, 422, 200]);
    assert!(!host.node.log().contains("WARN startup"), "{}", host.node.log());
}

#[test]
fn a_node_that_refuses_every_patch_is_told_and_not_asked_without_a_pause() {
    let host = Host::new();
    host.install();
    let server = host.server(&[taint(KEY)]);
    server.set(|state| state.races = u32::MAX);
    let _daemon = host.start();
    eventually("it is told", || {
        host.node.log().contains("the node was changed meanwhile: the object has been modified")
    });
    let asked = server.answered().len();
    assert!((20..=24).contains(&asked), "ten questions and as many patches, and not {asked}");
    host.serves();
    server.set(|state| state.races = 0);
    server.eventually_has(&host, &[]);
}

#[test]
fn an_api_server_that_does_not_answer_delays_nothing() {
    let host = Host::new();
    host.install();
    let server = host.server(&[taint(KEY)]);
    let nft = |words: &str| {
        let output = host.node.wire.run(|| Command::new("nft").arg(words).output().unwrap()).unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    nft("add table inet hole; add chain inet hole way { type filter hook input priority 0; policy accept; }");
    nft("add rule inet hole way tcp dport 6443 drop");
    let begun = std::time::Instant::now();
    let daemon = host.start();
    host.serves();
    // It has ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(9), "it took {:?}", begun.elapsed());
    assert_eq!(server.answered(), []);
    let begun = std::time::Instant::now();
    assert!(daemon.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(9), "the end took {:?}", begun.elapsed());
    // It is not waited for for ever, and asked again.
    let _daemon = host.start();
    eventually("it is told", || host.node.log().contains("is still on the node node-1, and will be tried again"));
    assert!(host.node.log().contains("10.240.0.100:6443 does not answer: nothing within 10s"), "{}", host.node.log());
    nft("delete table inet hole");
    server.eventually_has(&host, &[]);
}

#[test]
fn a_right_or_a_trust_that_is_missing_is_told_once_and_pods_are_served() {
    let host = Host::new();
    host.install();
    let server = host.server(&[taint(KEY)]);
    server.set(|state| state.forbidden = true);
    let daemon = host.start();
    let told = || host.node.log().matches("is still on the node node-1").count();
    eventually("it is told", || told() == 1);
    host.serves();
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(server.answered(), [("GET".to_owned(), 403)], "asked again soon");
    let log = host.node.log();
    assert!(log.contains("forbids the daemon's account to get nodes/node-1 (status 403)"), "{log}");
    assert!(log.contains("nodes \"node-1\" is forbidden"), "{log}");
    drop(daemon);

    // A server that another authority vouches for gets no token. The account's files are read anew each time.
    server.set(|state| state.forbidden = false);
    host.put("ca.crt", &tls().1);
    let _daemon = host.start();
    eventually("it is told", || told() == 2);
    assert!(host.node.log().contains("invalid peer certificate"), "{}", host.node.log());
    assert_eq!(server.answered().len(), 1);
    host.put("ca.crt", &server.authority);
    server.eventually_has(&host, &[]);
    assert_eq!(told(), 2);
}

#[test]
fn outside_of_a_pod_the_daemon_says_that_and_serves() {
    let host = Host::new();
    host.install();
    let directory = host.node.directory.path().display();
    let config = host.node.config(&format!(
        "startupTaint: {KEY}\ncniBinDir: {directory}/bin\ncniConfDir: {directory}/net.d\n\
         source: {{kind: static, subnet: 10.240.0.0/16, addresses: [10.240.0.5-10.240.0.9], refresh: 50ms}}\n"
    ));
    let daemon = host.node.start(&config);
    eventually("it is told", || host.node.log().contains("KUBERNETES_SERVICE_HOST is not in the environment"));
    host.serves();
    drop(daemon);
    let mut command = Command::new(DAEMON);
    command.args(["run", "--config"]).arg(&config).env("KUBERNETES_SERVICE_HOST", "api.example.com");
    let _daemon = host.node.start_as(&mut command);
    let told = "KUBERNETES_SERVICE_HOST=api.example.com, and a pod's has an IP address there";
    eventually("it is told", || host.node.log().contains(told));
}
