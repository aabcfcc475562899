//! HTTP/1.1 over one cache: objects under `/v1/objects/<key>`, streamed in and out, by ranges and
//! with preconditions. Owns connections and the meaning of requests; the codec owns their form, the
//! server sockets and threads. `docs/http.md` says what clients can rely on.

pub(super) mod body;
pub(super) mod body_error;
pub(super) mod connection;
pub(super) mod counts;
mod delete;
mod dispatch;
mod exposition;
pub(super) mod get;
mod head;
pub(super) mod key;
pub(super) mod lifetime;
mod patch;
mod purge;
pub(super) mod put;
mod put_part;
pub(super) mod refusal;
pub(super) mod repeated;
mod representation;
pub(super) mod request_body;
pub(super) mod running;
pub(super) mod service;
pub(super) mod wire;

pub(super) use connection::{Objects, serve};
pub(super) use counts::HttpShard;
pub use counts::{HttpOperation, HttpSnapshot, METHODS, STATUS_CLASSES};
pub(super) use exposition::write_http;
pub use head::KEPT;
pub use put::put_hears;
pub(super) use service::{Service, Shared};
pub(super) use wire::Socket;

/// The answer when there are too many connections.
pub(super) const REJECTION: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\
    Retry-After: 1\r\nContent-Length: 0\r\n\r\n";
