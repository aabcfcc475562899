//! The server: takes connections on its listeners, spreads them over worker threads and
//! speaks the memcached protocol or HTTP on them. Owns sockets and threads; never touches a device.

pub mod admin;
pub mod counters;
pub mod http;
pub mod listener;
pub mod memcached;

mod accept_errors;
mod acceptor;
mod buffers;
mod exposition;
mod gate;
mod metadata;
mod socket_file;
mod turns;
mod workers;

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

pub use exposition::write_server;

use crate::cache::Cache;
use counters::Counters;
use listener::Listener;

/// How a server works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads; each serves its share of the connections.
    pub workers: NonZeroUsize,
    /// Open connections at most; further ones get an error and are closed.
    pub connections_max: usize,
    /// How long a shutdown waits for commands in progress.
    pub drain_timeout: Duration,
    /// Largest value in bytes.
    pub value_len_max: u64,
    /// Memory for values and long lines that arrive in several pieces, over all connections,
    /// in bytes. When it is used up, values go to the cache piece by piece and long lines are
    /// refused.
    pub staging_len_max: u64,
    /// Lifetime of entries that are to live for ever; longer lifetimes are cut to it.
    pub ttl_max: Duration,
    /// Longest wait for an HTTP request to be complete up to its body, counted from the end of
    /// the one before it.
    pub http_idle_timeout: Duration,
    /// How long an HTTP client may neither send nor take a byte while its request is answered.
    pub http_stall_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            connections_max: 4096,
            drain_timeout: Duration::from_secs(10),
            value_len_max: 64 << 20,
            staging_len_max: 64 << 20,
            ttl_max: Duration::from_secs(365 * 24 * 60 * 60),
            http_idle_timeout: Duration::from_secs(60),
            http_stall_timeout: Duration::from_secs(300),
        }
    }
}

/// Why a server could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener cannot be waited for.
    #[error(transparent)]
    Listen(#[from] listener::ListenError),
    /// A worker thread or its runtime could not be started.
    #[error("cannot start a worker thread")]
    Worker(#[source] std::io::Error),
}

/// A server that is not running yet.
#[derive(Clone)]
pub struct Server {
    options: Options,
    cache: Cache,
    counters: Arc<Counters>,
}

impl Server {
    /// A server for `cache`.
    #[must_use]
    pub fn new(options: Options, cache: Cache) -> Server {
        let counters = Arc::new(Counters::new(options.workers.get()));
        Server { options, cache, counters }
    }

    /// What this server counts, for whoever reports it.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Serves until `shutdown` is ready, then drains: listeners are closed, commands in
    /// progress are finished within [`Options::drain_timeout`], and what is left is cut.
    ///
    /// Must be called within a tokio runtime with I/O and time; that one only accepts.
    ///
    /// # Errors
    /// [`RunError`] if it could not start; nothing is left running then.
    pub async fn run(
        self,
        listeners: Vec<Listener>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), RunError> {
        let acceptor = acceptor::Acceptor::new(listeners, self.counters.clone(), &self.options)?;
        let workers = workers::Workers::start(&self)?;
        acceptor.run(&workers, shutdown).await;
        workers.drain().await;
        Ok(())
    }
}
