//! How one read-through listener behaves.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::header::HeaderName;

use super::purge_token::PurgeToken;
use crate::config::AccessLogTarget;
use crate::http_cache::settings::Settings;

/// How a read-through listener works.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// What its keys begin with: listeners with one name share what they store.
    pub name: String,
    /// Where to ask.
    pub upstream: UpstreamOptions,
    /// How responses are stored and used.
    pub settings: Settings,
    /// Query parameters that are no part of the key.
    pub ignore_query: Vec<String>,
    /// What responses say in `No-Vary-Search` is no part of the key either.
    pub no_vary_search: bool,
    /// Fields of requests that are a part of the key.
    pub key_headers: Vec<HeaderName>,
    /// Largest body that is stored, in bytes; larger ones are passed on.
    pub object_size_max: u64,
    /// Where a range begins, in bytes, or beyond, it is asked of the upstream alone, and not with the whole object.
    pub range_fetch_min: u64,
    /// Ranges are asked for in blocks of at most so many bytes, which begin at multiples of that.
    pub fill_block: u64,
    /// A target is stored from the request of this number on.
    pub min_uses: u16,
    /// Requests to the upstream at one time whose responses are stored, of all workers.
    pub fills_max: usize,
    /// WebSocket goes on to the upstream.
    pub tunnels: bool,
    /// Longest wait for somebody else's fill to begin; then a request goes to the upstream alone.
    pub collapse_timeout: Duration,
    /// How long those who ask for the same get the error that the upstream gave.
    pub error_ttl: Duration,
    /// Whoever has it may PURGE; `None` lets nobody.
    pub purge_token: Option<PurgeToken>,
    /// Where a line for each answer goes; `None` logs none.
    pub access_log: Option<AccessLogOptions>,
}

/// An access log.
#[derive(Clone, Debug)]
pub struct AccessLogOptions {
    /// Where it goes.
    pub target: AccessLogTarget,
    /// Most bytes of lines that wait to be written, each counted with 64 bytes more; further ones are lost.
    pub bytes_max: u64,
}

/// One upstream: plain HTTP/1.1 on this host.
#[derive(Clone, Debug)]
pub struct UpstreamOptions {
    /// Where it listens.
    pub address: UpstreamAddress,
    /// Longest time to connect, in which a free connection is waited for too.
    pub connect_timeout: Duration,
    /// Longest wait for the head of a response, from the end of the request on.
    pub first_byte_timeout: Duration,
    /// How long no byte may move within a body.
    pub between_bytes_timeout: Duration,
    /// Most connections at one time of each worker.
    pub connections_max: usize,
}

/// Where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamAddress {
    /// A stream socket in the file system, written `unix:/path`.
    Unix(PathBuf),
    /// A TCP port of this host, written `http://127.0.0.1:8080`.
    Tcp(SocketAddr),
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            UpstreamAddress::Tcp(address) => write!(f, "http://{address}"),
        }
    }
}

impl UpstreamOptions {
    /// The defaults for `address`.
    #[must_use]
    pub fn new(address: UpstreamAddress) -> UpstreamOptions {
        UpstreamOptions {
            address,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(60),
            between_bytes_timeout: Duration::from_secs(60),
            connections_max: 256,
        }
    }
}

impl ProxyOptions {
    /// The defaults for a listener `name` in front of `upstream`.
    #[must_use]
    pub fn new(name: &str, upstream: UpstreamAddress) -> ProxyOptions {
        ProxyOptions {
            name: name.to_owned(),
            upstream: UpstreamOptions::new(upstream),
            settings: Settings::default(),
            ignore_query: Vec::new(),
            no_vary_search: false,
            key_headers: Vec::new(),
            object_size_max: u64::MAX,
            range_fetch_min: 8 << 20,
            fill_block: 8 << 20,
            min_uses: 1,
            fills_max: usize::MAX,
            tunnels: false,
            collapse_timeout: Duration::from_secs(5),
            error_ttl: Duration::from_secs(1),
            purge_token: None,
            access_log: None,
        }
    }
}
