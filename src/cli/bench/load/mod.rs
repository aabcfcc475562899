//! `rawcached bench load`: requests to a running server over its socket, as many as it takes or at
//! a given rate, every byte of every answer verified. Owns no server: it starts, formats and stops
//! nothing.

mod address;
mod arguments;
mod clients;
mod command;
mod connection;
mod counters;
mod figures;
mod outcome;
mod pace;
mod report;
mod requests;
mod sizes;
mod trace;
mod values;
mod wire;
mod worker;

use std::sync::Arc;

pub use address::{Address, Protocol};
pub use clients::Clients;
pub use connection::WrongBytes;
pub use counters::metric;
pub use outcome::Outcome;
pub use pace::Phase;
pub use requests::{Popularity, Request, Requests, Source, each_once};
pub use sizes::Sizes;
pub use trace::Trace;
pub use values::Values;
pub use wire::Wire;

pub(in crate::cli) use arguments::LoadArgs;
pub(in crate::cli) use command::run;

/// How a server is loaded.
#[derive(Clone)]
pub struct Load {
    /// Where it listens.
    pub address: Address,
    /// The form of requests.
    pub wire: Wire,
    /// The values that are stored.
    pub values: Arc<Values>,
    /// Connections, over all threads.
    pub connections: usize,
    /// Threads, at most one for each connection.
    pub threads: usize,
    /// Most requests in flight on a connection.
    pub depth: usize,
    /// Store values that a read did not find.
    pub fill_on_miss: bool,
    /// Compare every byte that is read with what was stored.
    pub verify: bool,
}
