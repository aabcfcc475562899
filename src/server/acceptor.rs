//! Accepts connections and hands them to workers in turn. Never reads from one.

use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::accept_errors::AcceptErrors;
use super::counters::{Counters, Ticket};
use super::http;
use super::listener::{Listener, Protocol, Stream, WatchedListener};
use super::options::{Options, RunError};
use super::workers::{Arrival, Workers};

/// Pause after a failed accept: a lack of file descriptors does not pass at once.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
const REJECTION: &[u8] = b"SERVER_ERROR too many open connections\r\n";

pub(super) struct Acceptor {
    listeners: Vec<WatchedListener>,
    /// The listener polled last: the next poll begins after it, so that none starves.
    turn: usize,
    counters: Arc<Counters>,
    connections_max: usize,
}

impl Acceptor {
    pub(super) fn new(
        listeners: Vec<Listener>,
        counters: Arc<Counters>,
        options: &Options,
    ) -> Result<Acceptor, RunError> {
        let listeners = listeners.into_iter().map(Listener::watch).collect::<Result<_, _>>()?;
        let connections_max = options.connections_max;
        Ok(Acceptor { listeners, turn: 0, counters, connections_max })
    }

    /// Accepts until `shutdown` is ready.
    pub(super) async fn run(mut self, workers: &Workers, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut errors = AcceptErrors::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => return,
                accepted = poll_fn(|cx| self.poll_accept(cx)) => accepted,
            };
            match accepted {
                Ok((stream, protocol)) => self.admit(stream, protocol, workers),
                Err(error) => {
                    self.counters.acceptor().accept_errors.bump();
                    if let Some(count) = errors.count(Instant::now()) {
                        tracing::warn!(%error, count, "cannot accept a connection");
                    }
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Protocol)>> {
        for _ in 0..self.listeners.len() {
            self.turn = (self.turn + 1) % self.listeners.len();
            let listener = &self.listeners[self.turn];
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(accepted.map(|stream| (stream, listener.protocol)));
            }
        }
        Poll::Pending
    }

    fn admit(&self, stream: Stream, protocol: Protocol, workers: &Workers) {
        let counts = self.counters.acceptor();
        counts.connections_total.bump();
        match Ticket::take(&self.counters, self.connections_max) {
            Some(ticket) => workers.hand_over(Arrival { stream, protocol, ticket }),
            None => {
                counts.connections_rejected.bump();
                // A new socket has room for a line; if not, it is closed anyway.
                let _ = (&stream).write(match protocol {
                    Protocol::Memcached => REJECTION,
                    Protocol::Http => http::REJECTION,
                });
            }
        }
    }
}
