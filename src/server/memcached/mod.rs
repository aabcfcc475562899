//! The memcached text protocol over one cache: classic and meta commands, values as large as the cache
//! takes. Owns the bytes on a connection; never opens sockets or threads.

mod answers;
mod arithmetic;
mod base64;
mod body;
mod budget;
mod closed;
pub mod command;
mod connection;
mod expiry;
mod flush;
mod key;
pub mod meta;
mod meta_delete;
mod meta_get;
mod number;
pub mod parse;
mod parse_meta;
mod peer;
mod permitted;
mod reads;
mod refused;
mod retrieval;
mod service;
mod stats;
mod storage;
mod timed;
mod wins;

pub(super) use connection::serve;
pub(super) use service::{Service, Shared};
