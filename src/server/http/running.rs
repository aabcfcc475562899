//! A request that is being answered.

use crate::server::counters::Shard;

/// Counts a request in, and out when it is dropped.
pub(in crate::server) struct Running<'a>(&'a Shard);

impl Running<'_> {
    pub(in crate::server) fn begin(shard: &Shard) -> Running<'_> {
        shard.http.requests_started.bump();
        Running(shard)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.http.requests_ended.bump();
    }
}
