//! The memcached text protocol over one cache: the classic commands of memcached, values as large as
//! the cache takes. Owns the bytes on a connection; never opens sockets or threads.

mod arithmetic;
mod body;
mod budget;
mod closed;
pub mod command;
mod connection;
mod expiry;
mod flush;
mod number;
pub mod parse;
mod peer;
mod permitted;
mod retrieval;
mod service;
mod stats;
mod storage;
mod timed;

pub(super) use connection::serve;
pub(super) use service::{Service, Shared};
