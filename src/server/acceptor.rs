//! Accepts connections and hands them to workers in turn. Never reads from one.

use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::counters::{Counters, Ticket};
use super::ended::Ended;
use super::http;
use super::listener::{Listener, Protocol, Stream, WatchedListener};
use super::listener_counts::ListenerCounts;
use super::options::{Options, RunError};
use super::seldom::Seldom;
use super::standing::Standing;
use super::workers::{Arrival, Workers};

/// Pause after a failed accept: a lack of file descriptors does not pass at once.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
const REJECTION: &[u8] = b"SERVER_ERROR too many open connections\r\n";
const NOT_ADMITTED: &[u8] = b"SERVER_ERROR this user may not connect here\r\n";
const NOT_ADMITTED_HTTP: &[u8] = b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\
    Content-Type: text/plain\r\nContent-Length: 31\r\n\r\nthis user may not connect here\n";

pub(super) struct Acceptor {
    listeners: Vec<(WatchedListener, Arc<ListenerCounts>)>,
    /// The listener polled last: the next poll begins after it, so that none starves.
    turn: usize,
    counters: Arc<Counters>,
    ended: Arc<Ended>,
}

/// A listener's share of `room` connections, of the `wanted` ones of all listeners: at least one.
fn share(limit: usize, wanted: usize, room: usize) -> usize {
    if wanted <= room { limit } else { (limit * room / wanted).max(1) }
}

impl Acceptor {
    pub(super) fn new(
        listeners: Vec<Listener>,
        standing: &Standing,
        options: &Options,
    ) -> Result<Acceptor, RunError> {
        let (counters, ended) = (standing.counters.clone(), standing.ended.clone());
        let connections_all_max = options.connections_all_max;
        let limit_of = |listener: &Listener| {
            listener.rules().connections_max.unwrap_or(options.connections_max)
        };
        let wanted: usize = listeners.iter().map(limit_of).sum();
        let watch = |listener: Listener| {
            let name = listener.address().to_string();
            let limit = share(limit_of(&listener), wanted, connections_all_max);
            let counts = counters.add_listener(name, limit);
            listener.watch().map(|listener| (listener, counts))
        };
        let listeners = listeners.into_iter().map(watch).collect::<Result<_, _>>()?;
        Ok(Acceptor { listeners, turn: 0, counters, ended })
    }

    /// Accepts until `shutdown` is ready.
    pub(super) async fn run(mut self, workers: &Workers, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut errors = Seldom::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => return,
                accepted = poll_fn(|cx| self.poll_accept(cx)) => accepted,
            };
            match accepted {
                Ok(stream) => self.admit(stream, workers),
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

    /// A connection of the listener whose turn it was.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        for _ in 0..self.listeners.len() {
            self.turn = (self.turn + 1) % self.listeners.len();
            if let Poll::Ready(accepted) = self.listeners[self.turn].0.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }

    /// Connections that ended keep their place while the kernel keeps their bytes.
    fn take_place(&self, counts: &Arc<ListenerCounts>) -> Option<Ticket> {
        Ticket::take(&self.counters, counts).or_else(|| {
            self.ended.close_read();
            Ticket::take(&self.counters, counts)
        })
    }

    fn admit(&self, stream: Stream, workers: &Workers) {
        let (listener, counts) = &self.listeners[self.turn];
        let (protocol, access) = (listener.protocol, listener.access);
        self.counters.acceptor().connections_total.bump();
        let connections = counts.connections.load(Ordering::Relaxed);
        tracing::debug!(listener = counts.name, connections, "a client connects");
        if !listener.admits(&stream) {
            counts.refused_peer.bump();
            return self.refuse(
                &stream,
                match protocol {
                    Protocol::Memcached => NOT_ADMITTED,
                    Protocol::Http | Protocol::Proxy(_) => NOT_ADMITTED_HTTP,
                },
            );
        }
        match self.take_place(counts) {
            Some(ticket) => workers.hand_over(Arrival { stream, protocol, access, ticket }),
            None => {
                counts.refused_full.bump();
                tracing::debug!(
                    listener = counts.name,
                    "no connection is free: the client is refused"
                );
                self.refuse(
                    &stream,
                    match protocol {
                        Protocol::Memcached => REJECTION,
                        Protocol::Http | Protocol::Proxy(_) => http::REJECTION,
                    },
                );
            }
        }
    }

    fn refuse(&self, mut stream: &Stream, answer: &[u8]) {
        self.counters.acceptor().connections_rejected.bump();
        // A new socket has room for a line; if not, it is closed anyway.
        let _ = stream.write(answer);
    }
}
