//! The memcached text protocol over one cache: commands as memcached 1.6.18 has them, values
//! as large as the cache takes them. Owns what a connection says and hears; never opens
//! sockets or threads.

pub mod command;
pub mod parse;

mod arithmetic;
mod body;
mod connection;
mod expiry;
mod flush;
mod input;
mod number;
mod peer;
mod retrieval;
mod service;
mod stats;
mod storage;

pub(super) use connection::serve;
pub(super) use flush::FlushSchedule;
pub(super) use service::Service;
