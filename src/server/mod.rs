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
pub mod proxy;

mod acceptor;
mod admin_peer;
mod bounded;
mod buffers;
mod count;
mod ended;
mod exposition;
mod gate;
mod input;
mod key_locks;
mod metadata;
mod options;
mod parts;
mod patience;
mod presence;
mod routes;
mod seldom;
mod send_budget;
mod socket_file;
mod standing;
#[cfg(test)]
mod test_peer;
mod turns;
mod workers;

pub use options::{Options, RunError};
pub use parts::Server;
pub use send_budget::SendBudget;

use std::future::Future;
use std::sync::Arc;

pub use exposition::write_server;

use crate::cache::Cache;
use crate::fair_memory::FairMemory;
use codec::head_reader::HEAD_LEN_MAX;
use counters::Counters;
use listener::Listener;
use memcached::parse::RETRIEVAL_LEN_MAX;
use standing::Standing;

impl Server {
    /// A server for `cache`.
    #[must_use]
    pub fn new(mut options: Options, cache: Cache) -> Server {
        let (bytes_max, wanted) = (options.socket_buffer_bytes_max, options.connections_all_max);
        options.connections_all_max = SendBudget::connections_max(bytes_max, wanted);
        if options.connections_all_max < wanted {
            tracing::info!(
                wanted,
                connections_max = options.connections_all_max,
                bytes_max,
                "the memory for socket buffers has no room for all connections"
            );
        }
        let connections_max = options.connections_all_max;
        let send_budget = SendBudget::new(bytes_max, options.unsent_bytes_max, connections_max);
        let input_memory = FairMemory::new(
            options.input_bytes_max,
            input::kept_max(RETRIEVAL_LEN_MAX.max(HEAD_LEN_MAX)),
            cache.options().write_buffer_wait,
        );
        let input_buffers_max = connections_max as u64 * buffers::BUFFER_LEN as u64;
        let input = (input_memory, input_buffers_max);
        let counters = Arc::new(Counters::new(options.workers.get(), send_budget, input));
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
        let standing = Arc::new(Standing::new(self.counters.clone()));
        let acceptor = acceptor::Acceptor::new(listeners, &standing, &self.options)?;
        let workers = workers::Workers::start(&self, &standing)?;
        acceptor.run(&workers, shutdown).await;
        workers.drain().await;
        Ok(())
    }
}
