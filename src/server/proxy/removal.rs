//! Removing what is stored, where nobody is told whether that worked.

use super::shelf::Shelf;
use crate::cache::StoreError;

impl Shelf {
    /// Removes what is stored under a key. What fails is a matter of the device, which says so itself.
    pub(super) async fn drop_stored(&self, key: &[u8]) {
        log_failed(&self.http.cache.remove(key).await.map(drop), "a response was not removed");
    }

    /// Removes a stored response that is not what the origin has, unless another took its place.
    pub(super) async fn drop_version(&self, key: &[u8], cas: u64) {
        let cache = &self.http.cache;
        if cache.lookup_stale_head(key).await.is_some_and(|hit| hit.cas() == cas) {
            log_failed(&cache.remove(key).await.map(drop), "a response was not removed");
        }
    }
}

/// Notes a change of what is stored that failed: the client has its answer all the same.
pub(super) fn log_failed(done: &Result<(), StoreError>, what: &str) {
    if let Err(error) = done {
        tracing::debug!(%error, "{what}");
    }
}
