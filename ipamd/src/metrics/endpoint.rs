//! The endpoint that Prometheus, an agent or `curl` scrapes, and a kubelet's probes ask: HTTP/1 on a unix socket or a
//! loopback port.
//!
//! `/metrics` is the text of all metrics. `/healthz` asks the daemon over its own socket, as the plugin would: 200 if it
//! answers that pods can be wired, 503 with the reason otherwise. So it needs nothing but the daemon itself.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::fs::{Mode, chmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, error};

use super::exposition::{self, Exposition};
use crate::client::{self, ClientError};
use crate::config::MetricsTarget;
use crate::errors::with_source;

/// How many scrapes are served at once. More wait in line; a local user cannot make the daemon grow.
const CALLERS: usize = 4;

/// How long one scrape may take, from the connection to the last byte.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most a request's line and headers may have, in bytes; hyper's least.
const MAX_HEAD: usize = 8192;

/// A bound endpoint. Dropping it removes its socket from the file system.
#[derive(Debug)]
pub struct Endpoint {
    listener: Listener,
    /// Only held: removes the socket.
    _path: Option<OwnPath>,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// What there is to be told.
#[derive(Debug)]
struct About {
    exposition: Exposition,
    /// The daemon's socket.
    daemon: PathBuf,
}

#[derive(Debug)]
struct OwnPath(PathBuf);

impl Drop for OwnPath {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.0) {
            debug!("cannot remove {}: {e}", self.0.display());
        }
    }
}

impl Endpoint {
    /// Takes the configured place, so that whatever is in the way is known before the daemon serves; `None` if metrics are
    /// off. A socket that a dead daemon left is replaced. To be called inside the async runtime.
    ///
    /// # Errors
    /// The place is taken, by a living process or by something that is no socket, or cannot be used.
    pub async fn bind(target: &MetricsTarget) -> io::Result<Option<Self>> {
        Ok(match target {
            MetricsTarget::Off => None,
            MetricsTarget::Unix(path) => {
                make_room(path)?;
                let (listener, path) = open(path)?;
                Some(Endpoint { listener: Listener::Unix(listener), _path: Some(path) })
            }
            MetricsTarget::Tcp(address) => {
                Some(Endpoint { listener: Listener::Tcp(TcpListener::bind(address).await?), _path: None })
            }
        })
    }

    /// Answers scrapes, and questions about the daemon that serves this socket, for as long as it is polled.
    pub async fn serve(self, exposition: Exposition, daemon: PathBuf) {
        let about = Arc::new(About { exposition, daemon });
        let places = Arc::new(Semaphore::new(CALLERS));
        loop {
            // Never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let about = Arc::clone(&about);
            let accepted = match &self.listener {
                Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                    tokio::spawn(async move {
                        converse(TokioIo::new(stream), &about).await;
                        drop(place);
                    });
                }),
                Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    tokio::spawn(async move {
                        converse(TokioIo::new(stream), &about).await;
                        drop(place);
                    });
                }),
            };
            if let Err(e) = accepted {
                // Out of descriptors or memory: give others time to return some.
                error!("cannot take a scrape: {e}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Removes a socket that nobody listens on any more.
fn make_room(path: &Path) -> io::Result<()> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if !kind.is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket has this path"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves this socket")),
        Err(e) => Err(e),
    }
}

/// A listening socket that only root may use, from the moment it can be connected to.
fn open(path: &Path) -> io::Result<(UnixListener, OwnPath)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    let path = OwnPath(path.to_owned());
    chmod(&path.0, Mode::RUSR | Mode::WUSR)?;
    listen(&socket, 128)?;
    Ok((UnixListener::from_std(socket.into())?, path))
}

/// One request and its answer. Scrapes are seconds apart, so a connection is not kept for the next one.
async fn converse<I>(stream: I, about: &About)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let service = service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(answer(request.method(), request.uri().path(), about).await)
    });
    let connection = http1::Builder::new().keep_alive(false).max_buf_size(MAX_HEAD).serve_connection(stream, service);
    match timeout(PATIENCE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => debug!("a scrape broke off: {e}"),
        Err(_) => debug!("a scrape took longer than {PATIENCE:?}"),
    }
}

async fn answer(method: &Method, path: &str, about: &About) -> Response<Full<Bytes>> {
    let plain = "text/plain; charset=utf-8";
    let (status, kind, text) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/metrics") => match about.exposition.text() {
            Ok(text) => (StatusCode::OK, exposition::CONTENT_TYPE, text),
            Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, plain, format!("{e}\n")),
        },
        (&Method::GET | &Method::HEAD, "/healthz") => match ask(about.daemon.clone()).await {
            Ok(()) => (StatusCode::OK, plain, "ok\n".into()),
            Err(e) => (StatusCode::SERVICE_UNAVAILABLE, plain, format!("{}\n", with_source(&e))),
        },
        (&Method::GET | &Method::HEAD, _) => {
            (StatusCode::NOT_FOUND, plain, "the metrics are at /metrics, the daemon's health is at /healthz\n".into())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, plain, "only GET\n".into()),
    };
    let refused = status == StatusCode::METHOD_NOT_ALLOWED;
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    if refused {
        headers.insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// Whether the daemon answers on its socket. On a thread of its own, for the question blocks, and the answer must not wait
/// for this one.
async fn ask(daemon: PathBuf) -> Result<(), ClientError> {
    // It is not cancelled, and does not panic.
    tokio::task::spawn_blocking(move || client::ready(&daemon)).await.unwrap_or(Err(ClientError::Unexpected))
}
