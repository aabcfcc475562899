//! Goal: clients get the answers of the protocols, whatever they send. Method: bytes over real sockets to
//! servers in this process, most of them over a simulated device.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;
mod admin;
mod changes;
mod http;
mod http_connections;
mod http_heads;
mod http_letter;
mod http_memory;
mod http_parts;
mod http_reads;
mod http_responses;
mod listeners;
mod memcached;
mod memcached_connections;
mod memcached_memory;
mod memcached_meta;
mod memcached_meta_oracle;
mod memcached_oracle;
mod memcached_refused;
mod metrics;
mod proxy;
mod standing;
