//! The server: takes connections on its listeners, spreads them over worker threads and
//! speaks the memcached protocol or HTTP on them. Owns sockets and threads; never touches a device.

pub mod access;
pub mod admin;
pub mod codec;
pub mod counters;
pub mod http;
pub mod listener;
pub mod listener_counts;
pub mod memcached;
pub mod peers;

mod accept_errors;
mod acceptor;
mod admin_peer;
mod buffers;
mod count;
mod exposition;
mod gate;
mod key_locks;
mod metadata;
mod options;
mod parts;
mod presence;
mod socket_file;
mod turns;
mod workers;

pub use options::{Options, RunError};
pub use parts::Server;

use std::future::Future;
use std::sync::Arc;

pub use exposition::write_server;

use crate::cache::Cache;
use counters::Counters;
use listener::Listener;

impl Server {
    /// A server for `cache`.
    #[must_use]
    pub fn new(options: Options, cache: Cache) -> Server {
        let counters = Arc::new(Counters::new(options.workers.get()));
        Server { options, cache, counters, key_locks: Arc::default() }
    }

    /// What this server counts.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Serves until `shutdown` is ready, then drains: listeners are closed, commands in
    /// progress are finished within [`Options::drain_timeout`], and what is left is cut.
    ///
    /// Must be called within a tokio runtime with I/O and time, which only accepts connections.
    ///
    /// # Errors
    /// [`RunError`] if it could not start; nothing is left running then.
    pub async fn run(
        self,
        listeners: Vec<Listener>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), RunError> {
        let acceptor = acceptor::Acceptor::new(listeners, self.counters.clone(), &self.options)?;
        let workers = workers::Workers::start(&self)?;
        acceptor.run(&workers, shutdown).await;
        workers.drain().await;
        Ok(())
    }
}
