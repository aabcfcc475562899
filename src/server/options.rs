//! How a server behaves, and why one does not start.

use std::num::NonZeroUsize;
use std::time::Duration;

use http::StatusCode;

use super::proxy::options::ProxyOptions;

/// How a server works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads; each serves its share of the connections.
    pub workers: NonZeroUsize,
    /// Open connections of each listener that has no limit of its own; further ones get an error and
    /// are closed.
    pub connections_max: usize,
    /// Open connections of all listeners together. If listeners may have more, each gets a share.
    pub connections_all_max: usize,
    /// How long a shutdown waits for commands in progress.
    pub drain_timeout: Duration,
    /// Largest value in bytes.
    pub value_len_max: u64,
    /// Largest old value in bytes of which `append` and `prepend` make a copy.
    pub copied_len_max: u64,
    /// Memory for commands and heads of requests of which a part has arrived, for long heads until they are
    /// answered and for values to append, over all connections, in bytes. When it is used up, the slowest
    /// give way. Each connection at work uses 16 KiB besides.
    pub input_bytes_max: u64,
    /// Memory of the kernel for bytes that clients have not read, over all connections, in bytes. Fewer than
    /// `connections_all_max` connections are taken if it has no room for all.
    pub socket_buffer_bytes_max: u64,
    /// From how many bytes on that wait in memory until clients read, clients that stand still are cut.
    pub unsent_bytes_max: u64,
    /// Lifetime of entries that memcached clients store without one (`exptime` 0).
    pub ttl_default: Duration,
    /// Longest lifetime; longer ones are cut to it.
    pub ttl_max: Duration,
    /// How long a memcached connection may rest between commands; `None` is for ever.
    pub memcached_idle_timeout: Option<Duration>,
    /// How long no byte may move within a command of a memcached connection, or while its answer is
    /// not taken.
    pub memcached_stall_timeout: Duration,
    /// Longest wait for the head of an HTTP request, counted from the end of the previous request.
    pub http_idle_timeout: Duration,
    /// How long an HTTP client may neither send nor take a byte while its request is answered.
    pub http_stall_timeout: Duration,
    /// The status of a GET of a response that is not stored: see `docs/responses.md`.
    pub replay_miss_status: StatusCode,
    /// How the read-through listeners behave, by the numbers in their
    /// [`Protocol`](super::listener::Protocol).
    pub proxies: Vec<ProxyOptions>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            connections_max: 4096,
            connections_all_max: 2 * 4096,
            drain_timeout: Duration::from_secs(10),
            value_len_max: 64 << 20,
            copied_len_max: 1 << 20,
            input_bytes_max: 64 << 20,
            ttl_default: Duration::from_secs(60 * 60),
            socket_buffer_bytes_max: 64 << 20,
            unsent_bytes_max: 64 << 20,
            ttl_max: Duration::from_secs(365 * 24 * 60 * 60),
            memcached_idle_timeout: None,
            memcached_stall_timeout: Duration::from_secs(300),
            http_idle_timeout: Duration::from_secs(60),
            http_stall_timeout: Duration::from_secs(300),
            replay_miss_status: StatusCode::GATEWAY_TIMEOUT,
            proxies: Vec::new(),
        }
    }
}

/// Why a server could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener cannot be waited for.
    #[error(transparent)]
    Listen(#[from] super::listener::ListenError),
    /// A worker thread or its runtime could not be started.
    #[error("cannot start a worker thread")]
    Worker(#[source] std::io::Error),
    /// An access log cannot be opened.
    #[error("cannot open the access log {target}")]
    AccessLog {
        /// Where it was to go.
        target: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}
