//! Purges: of a key, by a tag, by the beginning of keys, of everything.

use super::{Cache, Purge, StoreError};

impl Cache {
    /// Purges a key: gone at once and on every path, on the device before this returns, and a
    /// store in progress of the key will fail. True if a live entry was there; of a large one pieces
    /// may have been evicted, so that a lookup would have missed it.
    ///
    /// # Errors
    /// The device failed: the entry is gone now, but may come back after a crash.
    pub async fn remove(&self, key: &[u8]) -> Result<bool, StoreError> {
        self.inner.store.purge(key).await
    }

    /// Purges the entries that were stored with a tag, however many, in constant time, on every path at once and
    /// on the device before it returns. A store in progress with the tag fails, or is stored as stale.
    ///
    /// # Errors
    /// The tag is empty or longer than 1 KiB. The device failed: the purge holds now, but a crash may undo it.
    pub async fn purge_tag(&self, tag: impl AsRef<[u8]>, how: Purge) -> Result<(), StoreError> {
        self.inner.store.purge_tag(tag.as_ref(), how).await
    }

    /// As [`Cache::purge_tag`], of the entries whose keys begin with `prefix`. Keys that the caller hashed do
    /// not begin with what they were made of.
    ///
    /// # Errors
    /// The prefix is empty or longer than a key. The device failed: the purge holds now, but a crash may undo it.
    pub async fn purge_prefix(
        &self,
        prefix: impl AsRef<[u8]>,
        how: Purge,
    ) -> Result<(), StoreError> {
        self.inner.store.purge_prefix(prefix.as_ref(), how).await
    }

    /// Purges everything stored so far, in constant time, on the device before it returns.
    ///
    /// # Errors
    /// The device failed: the purge holds now, but a crash may undo it.
    pub async fn purge_all(&self, how: Purge) -> Result<(), StoreError> {
        self.inner.store.purge_all(how).await
    }
}
