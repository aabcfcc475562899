//! One plain HTTP/1.1 upstream: its connections, which are kept for the next request, and on each of
//! them one request after the other. Knows nothing of what may be stored.
//!
//! A request and its response are two halves that go on at one time: an upstream may answer before
//! it has the whole body.

mod connection;
mod error;
mod idle;
mod pool;
mod request;
mod request_end;
mod response;
mod stream;
#[cfg(test)]
mod test_upstream;
mod tunnel;

pub(in crate::server) use connection::Connection;
pub(in crate::server) use error::UpstreamError;
pub(in crate::server) use pool::{Reuse, Upstream};
pub(in crate::server::proxy) use response::Response;
pub(in crate::server) use tunnel::{Moved, Tunnel};
