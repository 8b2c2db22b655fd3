//! The instance metadata service: plain HTTP on 169.254.169.254, port 80, in the fabric.
//!
//! It says what is on the asker's NIC, under `/metadata/instance`, and which versions of its interface there are. Requests
//! from anything but a NIC's primary address do not get this far: [`crate::fabric`] drops them. What it refuses it
//! refuses as Azure's does ([`rules`]), five requests a second and node included.

pub mod document;
pub mod rules;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};

use self::rules::{Answer, Asked, Refusal};
use super::INSTANCE_METADATA;
use super::nics::Nics;
use super::server::{Server, Whole};
use crate::RigError;
use crate::fabric::Fabric;

/// How many requests a node may make in a second.
pub const REQUESTS_PER_SECOND: usize = 5;

/// The running instance metadata service. Ends when dropped.
#[derive(Debug)]
pub struct Metadata {
    shared: Arc<Shared>,
    _server: Server,
}

#[derive(Debug)]
struct Shared {
    nics: Arc<Mutex<Nics>>,
    log: Mutex<Log>,
}

/// Who asked, and when lately.
#[derive(Debug, Default)]
struct Log {
    asked: Vec<IpAddr>,
    lately: BTreeMap<IpAddr, VecDeque<Instant>>,
}

impl Metadata {
    /// Starts it in the fabric.
    pub fn start(fabric: &Fabric, nics: Arc<Mutex<Nics>>) -> Result<Self, RigError> {
        let shared = Arc::new(Shared { nics, log: Mutex::default() });
        let served = Arc::clone(&shared);
        let answer = move |request: Request<Incoming>, peer: SocketAddr| {
            let answer = served.answer(&request, peer.ip(), Instant::now());
            async move { io::Result::Ok(response(answer)) }
        };
        let server =
            Server::start("metadata", fabric, INSTANCE_METADATA, answer).map_err(RigError::InstanceMetadata)?;
        Ok(Metadata { shared, _server: server })
    }

    /// The addresses that asked, one for each request, oldest first.
    pub fn asked(&self) -> Vec<IpAddr> {
        self.shared.log().asked.clone()
    }
}

impl Shared {
    /// Guards small lists; never held over IO.
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request<Incoming>, from: IpAddr, now: Instant) -> Result<Answer, Refusal> {
        if !self.log().admit(from, now) {
            return Err(Refusal::TooMany);
        }
        let asked = Asked {
            method: request.method().as_str(),
            path: request.uri().path(),
            query: request.uri().query().unwrap_or_default(),
            metadata: request.headers().get("metadata").map(HeaderValue::as_bytes),
            forwarded: request.headers().contains_key("x-forwarded-for"),
        };
        let nics = self.nics.lock().unwrap_or_else(PoisonError::into_inner);
        let nic = node(from).and_then(|node| nics.with_primary(node)).ok_or(Refusal::NotFound)?;
        rules::answer(&asked, || document::write(nic, nics.subnet()))
    }
}

impl Log {
    fn admit(&mut self, from: IpAddr, now: Instant) -> bool {
        self.asked.push(from);
        let lately = self.lately.entry(from).or_default();
        while lately.front().is_some_and(|then| now.duration_since(*then) >= Duration::from_secs(1)) {
            lately.pop_front();
        }
        lately.push_back(now);
        lately.len() <= REQUESTS_PER_SECOND
    }
}

fn node(from: IpAddr) -> Option<Ipv4Addr> {
    match from {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

fn response(answer: Result<Answer, Refusal>) -> Response<Whole> {
    let (status, kind, text) = match answer {
        Ok(Answer::Json(text)) => (StatusCode::OK, "application/json; charset=utf-8", text),
        Ok(Answer::Text(text)) => (StatusCode::OK, "text/plain; charset=utf-8", text),
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
            (status, "application/json; charset=utf-8", refusal.body())
        }
    };
    let mut response = Response::new(Whole::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_request_within_a_second_is_one_too_many() {
        let mut log = Log::default();
        let start = Instant::now();
        let (one, other) = (IpAddr::from([10, 0, 0, 4]), IpAddr::from([10, 0, 0, 5]));
        assert!((0..5).all(|_| log.admit(one, start)));
        assert!(!log.admit(one, start + Duration::from_millis(999)));
        assert!(log.admit(other, start));
        // The refused one counts too.
        assert!((0..4).all(|_| log.admit(one, start + Duration::from_millis(1500))));
        assert!(!log.admit(one, start + Duration::from_millis(1500)));
        assert_eq!(log.asked.len(), 12);
    }
}
