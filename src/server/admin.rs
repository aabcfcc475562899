//! The admin listener: metrics and health over HTTP/1.1 on loopback TCP. Read-only: no request
//! changes or shows cached data.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::admin_peer::{AdminSocket, LastMoved, is_for_this_host};
use super::seldom::Seldom;
use crate::metrics::{self, Metrics};

/// Connections open at one time. For a further one the one is cut on which nothing has moved for
/// longest, so that nobody keeps others from looking.
pub const CONNECTIONS_MAX: usize = 32;
/// Longest wait for a request's head; also how long a connection may be idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest life of a connection: ends readers that take nothing.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(300);
/// Read buffer of a connection in bytes, which also bounds a request's head.
const BUFFER_SIZE: usize = 16 << 10;
/// Most header fields of a request.
const HEADERS_MAX: usize = 64;
/// Pause after a failed accept, so that a lack of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long open connections may take to end at shutdown.
const DRAIN: Duration = Duration::from_secs(1);

/// Whether the cache can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Recovered and serving.
    Ready,
    /// Serving, but something is wrong; the reasons are for people. Answered like `Ready`: a cache
    /// that still works should stay in use.
    Degraded(Vec<String>),
    /// Not serving now; the reason is for people.
    NotReady(String),
}

/// What the admin listener shows.
pub struct Admin {
    metrics: Metrics,
    readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
}

/// The admin listener was asked to stand on an address that other hosts can reach.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not a loopback address: the admin listener serves this host only")]
pub struct NotLoopback(SocketAddr);

impl Admin {
    /// Shows `metrics`, and asks `readiness` at every `/readyz`.
    #[must_use]
    pub fn new(
        metrics: Metrics,
        readiness: impl Fn() -> Readiness + Send + Sync + 'static,
    ) -> Admin {
        Admin { metrics, readiness: Box::new(readiness) }
    }

    /// Serves `listener` until `shutdown` completes, then gives connections a second to end.
    ///
    /// # Errors
    /// The listener is not on a loopback address, or its address cannot be read.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, NotLoopback(address)));
        }
        let admin = Arc::new(self);
        let (stop, stopped) = watch::channel(());
        let port = address.port();
        let mut connections = JoinSet::new();
        tokio::select! {
            () = admin.accept((&listener, port), &mut connections, &stopped) => {}
            () = shutdown => {}
        }
        drop(listener);
        drop(stop);
        let drained = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN, drained).await;
        connections.shutdown().await;
        Ok(())
    }

    async fn accept(
        self: &Arc<Self>,
        (listener, port): (&TcpListener, u16),
        connections: &mut JoinSet<()>,
        stopped: &watch::Receiver<()>,
    ) {
        let mut errors = Seldom::default();
        let mut open: Vec<Open> = Vec::new();
        loop {
            let accepted = listener.accept().await;
            while let Some(ended) = connections.try_join_next() {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    tracing::error!(%error, "an admin connection failed");
                }
            }
            match accepted {
                Ok((stream, _)) => {
                    make_room(&mut open);
                    let (admin, stopped) = (Arc::clone(self), stopped.clone());
                    let last_moved = Arc::new(LastMoved::now());
                    let socket = AdminSocket { stream, last_moved: Arc::clone(&last_moved) };
                    let serves = admin.serve_connection(socket, port, stopped);
                    open.push(Open { task: connections.spawn(serves), last_moved });
                    // Of many that come at once each is looked at before it makes room for others.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    if let Some(count) = errors.count(Instant::now()) {
                        tracing::warn!(%error, count, "cannot accept an admin connection");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve_connection(
        self: Arc<Self>,
        stream: AdminSocket,
        port: u16,
        mut stopped: watch::Receiver<()>,
    ) {
        let service = service_fn(move |request: Request<Incoming>| {
            let response = match is_for_this_host(&request, port) {
                true => self.answer(request.method(), request.uri().path()),
                false => respond(StatusCode::MISDIRECTED_REQUEST, TEXT, ANOTHER_HOST),
            };
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(BUFFER_SIZE)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = tokio::time::sleep(CONNECTION_LIFETIME) => Ok(()),
            _ = stopped.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "an admin connection ended early");
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        const HTML: &str = "text/html; charset=utf-8";
        if !matches!(*method, Method::GET | Method::HEAD) {
            let text = "this listener is read-only: use GET or HEAD\n";
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/metrics" => respond(StatusCode::OK, metrics::CONTENT_TYPE, self.metrics.render()),
            "/healthz" => respond(StatusCode::OK, TEXT, "alive\n"),
            "/readyz" => match (self.readiness)() {
                Readiness::Ready => respond(StatusCode::OK, TEXT, "ready\n"),
                Readiness::Degraded(reasons) => {
                    let lines: String =
                        reasons.iter().map(|reason| format!("degraded: {reason}\n")).collect();
                    respond(StatusCode::OK, TEXT, format!("ready\n{lines}"))
                }
                Readiness::NotReady(reason) => {
                    respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n"))
                }
            },
            "/" => respond(StatusCode::OK, HTML, INDEX),
            _ => respond(StatusCode::NOT_FOUND, TEXT, "not found: try /\n"),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

/// The answer to a request whose `Host` is not this one.
const ANOTHER_HOST: &str = "this listener is for this host: name localhost, 127.0.0.1 or [::1] and \
    the port\n";

/// An open connection.
struct Open {
    task: AbortHandle,
    last_moved: Arc<LastMoved>,
}

/// Cuts the connection that has stood still for longest, if there are too many.
fn make_room(open: &mut Vec<Open>) {
    open.retain(|connection| !connection.task.is_finished());
    if open.len() < CONNECTIONS_MAX {
        return;
    }
    let idlest = (0..open.len()).min_by_key(|&index| open[index].last_moved.get());
    if let Some(index) = idlest {
        open.swap_remove(index).task.abort();
        tracing::debug!("an admin connection is cut to make room for another");
    }
}

const INDEX: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
<title>rawcached</title></head><body><h1>rawcached</h1><ul>\
<li><a href=\"/metrics\">metrics</a> for Prometheus</li>\
<li><a href=\"/healthz\">healthz</a>: the process is alive</li>\
<li><a href=\"/readyz\">readyz</a>: the cache is recovered and serving</li>\
</ul></body></html>\n";

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
