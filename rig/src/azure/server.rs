//! An HTTP service of the platform's: a listener in the fabric, served on a thread with a runtime of its own, so that the
//! rig's users need none.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use crate::fabric::Fabric;

/// A running service. Ends when dropped.
#[derive(Debug)]
pub(super) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a service on port 80 of one of the fabric's addresses. An error of `answer` closes the connection without
    /// a byte.
    pub(super) fn start<A, F, B>(name: &'static str, fabric: &Fabric, address: Ipv4Addr, answer: A) -> io::Result<Self>
    where
        A: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + 'static,
        F: Future<Output = io::Result<Response<B>>> + Send + 'static,
        B: Body<Error = io::Error> + Send + 'static,
        B::Data: Send,
    {
        let listener = fabric.netns().netns().run(|| TcpListener::bind((address, 80))).flatten()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(name, listener, answer) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Server { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve<A, F, B>(name: &str, listener: TcpListener, answer: A)
where
    A: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = io::Result<Response<B>>> + Send + 'static,
    B: Body<Error = io::Error> + Send + 'static,
    B::Data: Send,
{
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(e) => return eprintln!("{name}: {e}"),
    };
    loop {
        // A connection that failed before it was accepted concerns only its client.
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, peer));
            // Errors here are the client's leaving or a fault that was asked for.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A body that is there as a whole.
#[derive(Debug)]
pub(super) struct Whole(Option<Bytes>);

impl Whole {
    pub(super) fn new(bytes: Bytes) -> Self {
        Whole(Some(bytes))
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.0.as_ref().map(Bytes::len).unwrap_or_default();
        SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
    }
}
