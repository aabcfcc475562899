//! Connections to one upstream: as many as there may be, and old ones before new ones.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::time::{Instant, timeout_at};

use super::connection::Connection;
use super::error::UpstreamError;
use super::idle::Idle;
use super::stream::Stream;
use crate::server::proxy::options::UpstreamOptions;

/// One upstream, as one worker asks it.
#[derive(Debug)]
pub(in crate::server) struct Upstream {
    options: Arc<UpstreamOptions>,
    idle: Arc<Idle>,
    open: Arc<AtomicU64>,
}

/// Which connection a request may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Reuse {
    /// One that served others before, if there is one. The upstream may close it at any moment.
    Allowed,
    /// One of its own: the request must not fail for the age of its connection.
    Fresh,
}

impl Upstream {
    /// An upstream with these options. Nothing is connected yet. `open` counts connections while they live.
    pub(in crate::server) fn new(options: &UpstreamOptions, open: &Arc<AtomicU64>) -> Upstream {
        let idle = Idle::new(options.connections_max);
        Upstream { options: Arc::new(options.clone()), idle, open: Arc::clone(open) }
    }

    /// A connection for one request. Waits for one to become free, then for the upstream to take it.
    ///
    /// # Errors
    /// There is none within the timeout, or the upstream takes none.
    pub(in crate::server) async fn connect(
        &self,
        reuse: Reuse,
    ) -> Result<Connection, UpstreamError> {
        let end = Instant::now() + self.options.connect_timeout;
        let leave = timeout_at(end, self.idle.leave()).await.ok().flatten();
        let leave = leave.ok_or(UpstreamError::NoFreeConnection)?;
        if reuse == Reuse::Allowed
            && let Some(stream) = self.idle.take()
        {
            return Ok(Connection::new(stream, true, &self.options, &self.idle, leave));
        }
        self.idle.make_room();
        let connecting = timeout_at(end, Stream::connect(&self.options.address, &self.open)).await;
        let stream = connecting.map_err(|_| UpstreamError::ConnectTimeout)?;
        let stream = Arc::new(stream.map_err(UpstreamError::Connect)?);
        Ok(Connection::new(stream, false, &self.options, &self.idle, leave))
    }

    #[cfg(test)]
    /// Connections in use.
    pub(in crate::server) fn in_use(&self) -> usize {
        self.idle.in_use()
    }

    #[cfg(test)]
    /// Connections that wait for their next request.
    pub(in crate::server) fn idle(&self) -> usize {
        self.idle.len()
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
