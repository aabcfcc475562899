//! Goal: clients get the answers of the protocols, whatever they send. Method: bytes over real sockets to
//! servers in this process, most of them over a simulated device.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod admin;
mod http;
mod http_connections;
mod http_memory;
mod http_reads;
#[path = "../http_support/mod.rs"]
mod http_support;
mod memcached;
mod memcached_connections;
mod memcached_oracle;
#[path = "../memcached_support/mod.rs"]
mod memcached_support;
mod metrics;
#[path = "../support/mod.rs"]
mod support;
#[path = "../test_log/mod.rs"]
mod test_log;
