//! The wireserver: plain HTTP on 168.63.129.16, port 80, in the fabric.
//!
//! Requests from anything
//! but a NIC's primary address do not get this far: [`crate::fabric`] drops them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::document::{Facts, write};
use super::nics::Nics;
use super::server::Server;
use super::{Fault, WIRESERVER};
use crate::RigError;
use crate::fabric::Fabric;

/// The one document it serves.
const PATH: &str = "/machine/plugins";
const QUERY: &str = "comp=nmagent&type=getinterfaceinfov1";

/// The running wireserver. Ends when dropped.
#[derive(Debug)]
pub struct Wireserver {
    shared: Arc<Shared>,
    _server: Server,
}

#[derive(Debug)]
struct Shared {
    nics: Arc<Mutex<Nics>>,
    faults: Mutex<Faults>,
    requests: AtomicUsize,
    asked: Mutex<Vec<IpAddr>>,
}

#[derive(Debug, Default)]
struct Faults {
    everywhere: Fault,
    of_node: BTreeMap<Ipv4Addr, Fault>,
}

impl Wireserver {
    /// Starts it in the fabric.
    pub fn start(fabric: &Fabric, nics: Arc<Mutex<Nics>>) -> Result<Self, RigError> {
        let shared =
            Arc::new(Shared { nics, faults: Mutex::default(), requests: AtomicUsize::new(0), asked: Mutex::default() });
        let served = Arc::clone(&shared);
        let answer = move |request, peer| answer(request, peer, Arc::clone(&served));
        let server = Server::start("wireserver", fabric, WIRESERVER, answer).map_err(RigError::Wireserver)?;
        Ok(Wireserver { shared, _server: server })
    }

    /// Makes it misbehave towards every node, from the next request on. [`Fault::None`] ends it.
    pub fn set_fault(&self, fault: Fault) {
        let mut faults = self.shared.faults();
        faults.everywhere = fault;
        faults.of_node.clear();
    }

    /// Makes it misbehave towards the node with this primary address only.
    pub fn set_fault_for(&self, primary: Ipv4Addr, fault: Fault) {
        self.shared.faults().of_node.insert(primary, fault);
    }

    /// How many requests for the document have come so far.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// The addresses that asked for anything, one for each request, oldest first.
    pub fn asked(&self) -> Vec<IpAddr> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    /// Guards one small value; never held over IO.
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault_for(&self, node: Ipv4Addr) -> Fault {
        let faults = self.faults();
        faults.of_node.get(&node).unwrap_or(&faults.everywhere).clone()
    }

    /// The document for the NIC with this primary address; `None` if there is no such NIC.
    fn document(&self, node: Ipv4Addr, fault: &Fault, request: usize, now: Instant) -> Option<String> {
        let nics = self.nics.lock().unwrap_or_else(PoisonError::into_inner);
        let nic = nics.with_primary(node)?;
        let then = match fault {
            Fault::Lag(lag) => now.checked_sub(*lag).unwrap_or(now),
            _ => now,
        };
        let addresses = nic.addresses_at(then);
        let facts = Facts { mac: nic.mac, subnet: nics.subnet(), primary: node.into(), addresses, request };
        Some(write(&facts, fault))
    }
}

/// Answers one request. An error closes the connection without a byte.
async fn answer(request: Request<Incoming>, peer: SocketAddr, shared: Arc<Shared>) -> io::Result<Response<Document>> {
    shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(peer.ip());
    let IpAddr::V4(node) = peer.ip() else { return Ok(status(StatusCode::NOT_FOUND)) };
    if request.uri().path() != PATH || request.uri().query() != Some(QUERY) {
        return Ok(status(StatusCode::NOT_FOUND));
    }
    if request.method() != Method::GET {
        return Ok(status(StatusCode::METHOD_NOT_ALLOWED));
    }
    let number = shared.requests.fetch_add(1, Ordering::Relaxed);
    let fault = shared.fault_for(node);
    match &fault {
        Fault::Nothing => return Err(io::Error::other("closed on purpose")),
        Fault::Status(code) => return Ok(status(StatusCode::from_u16(*code).unwrap_or(StatusCode::IM_A_TEAPOT))),
        Fault::Hang(duration) => tokio::time::sleep(*duration).await,
        _ => {}
    }
    let Some(text) = shared.document(node, &fault, number, Instant::now()) else {
        return Ok(status(StatusCode::NOT_FOUND));
    };
    let (half, _) = text.split_at_checked(text.len() / 2).unwrap_or_default();
    Ok(match fault {
        Fault::Half => document(half.to_owned(), half.len(), false),
        Fault::CutOff => document(half.to_owned(), text.len(), true),
        _ => {
            let length = text.len();
            document(text, length, false)
        }
    })
}

fn status(status: StatusCode) -> Response<Document> {
    let mut response = document(String::new(), 0, false);
    *response.status_mut() = status;
    response
}

/// A response with its Content-Length: clients read only 4096 bytes without one.
fn document(text: String, announced_length: usize, cut_off: bool) -> Response<Document> {
    let rest = if cut_off { Rest::PauseThenBreak } else { Rest::End };
    let mut response = Response::new(Document { text: Some(text.into()), rest, announced_length });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/xml; charset=utf-8"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(announced_length));
    response
}

/// A body that may break off before its announced end.
#[derive(Debug)]
struct Document {
    text: Option<Bytes>,
    rest: Rest,
    announced_length: usize,
}

/// What follows the text.
#[derive(Debug)]
enum Rest {
    End,
    /// hyper sends what it has when a body makes it wait, and throws it away when a body fails.
    PauseThenBreak,
    Break,
}

impl Body for Document {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(bytes) = self.text.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match self.rest {
            Rest::End => Poll::Ready(None),
            Rest::PauseThenBreak => {
                self.rest = Rest::Break;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Rest::Break => Poll::Ready(Some(Err(io::Error::other("cut off on purpose")))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.announced_length).unwrap_or(u64::MAX))
    }
}
