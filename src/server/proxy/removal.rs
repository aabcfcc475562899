//! Removing what is stored, where nobody is told whether that worked.

use super::shelf::Shelf;
use crate::cache::StoreError;

impl Shelf {
    /// Removes what is stored under a key. What fails is a matter of the device, which says so itself.
    pub(super) async fn drop_stored(&self, key: &[u8]) {
        log_failed(&self.http.cache.remove(key).await.map(drop), "a response was not removed");
    }
}

/// Notes a change of what is stored that failed: the client has its answer all the same.
pub(super) fn log_failed(done: &Result<(), StoreError>, what: &str) {
    if let Err(error) = done {
        tracing::debug!(%error, "{what}");
    }
}
