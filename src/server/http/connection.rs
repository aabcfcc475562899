//! One HTTP connection: hyper reads requests and writes answers; this adds time limits.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::running::{Activity, Running};
use super::service::Service;
use super::socket::CountedSocket;
use crate::server::counters::Shard;
use crate::server::gate::Gate;

/// Longest head of a request, and longest read, in bytes: room for a key and headers of their
/// greatest lengths. hyper's own limit of 100 header lines stays: with any other, hyper allocates a
/// table for each request.
const BUFFER_LEN_MAX: usize = 128 << 10;

/// Counts one connection while it lives.
struct Opened(Arc<Shard>);

impl Opened {
    fn count(shard: &Arc<Shard>) -> Opened {
        shard.http.connections_opened.bump();
        Opened(shard.clone())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.http.connections_closed.bump();
    }
}

/// Serves one connection until either side ends it.
pub(in crate::server) async fn serve<S>(stream: S, service: Arc<Service>, gate: Arc<Gate>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let _opened = Opened::count(&service.shard);
    let activity = Arc::new(Activity::default());
    let socket = CountedSocket { stream, shard: service.shard.clone(), activity: activity.clone() };
    let answer = service_fn(|request: Request<Incoming>| {
        let running = Running::begin(&activity, &service.shard);
        let service = service.clone();
        async move {
            let answer = service.answer(request).await;
            Ok::<_, Infallible>(answer.map(|body| body.ending(running)))
        }
    });
    let connection = http1::Builder::new()
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(service.idle_timeout)
        .max_buf_size(BUFFER_LEN_MAX)
        .serve_connection(TokioIo::new(socket), answer);
    let mut connection = pin!(connection);
    let mut stalled = pin!(activity.stalled(service.stall_timeout));
    let served = tokio::select! {
        biased;
        served = connection.as_mut() => served,
        () = poll_fn(|cx| gate.poll_closed(cx)) => {
            // Finishes the answer in progress, then ends the connection.
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                served = connection.as_mut() => served,
                () = stalled.as_mut() => Ok(()),
            }
        }
        () = stalled.as_mut() => Ok(()),
    };
    if let Err(error) = served {
        count_refused(&service.shard, &error);
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

/// Requests that hyper answers itself, with 400, 414 or 431, are never seen by the service.
fn count_refused(shard: &Shard, error: &hyper::Error) {
    if error.is_parse() {
        shard.protocol_errors.bump();
    }
}
