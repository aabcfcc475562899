//! Purges: of a key, by a tag, by the beginning of keys, of everything.

use super::{Cache, Purge, StoreError};
use crate::store::{Ack, Condition, Stored};

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

    /// Purges a key: [`Purge::Hard`] as [`Cache::remove`] does. [`Purge::Soft`] makes it stale, on the device before
    /// this returns; a store in progress of the key is stored as stale. During recovery it purges as a hard one. True if
    /// a live entry was there.
    ///
    /// # Errors
    /// As those of [`Cache::remove`], or of [`Cache::update`] for a soft one, which then may not hold.
    pub async fn purge_key(&self, key: &[u8], how: Purge) -> Result<bool, StoreError> {
        if how == Purge::Hard {
            return self.remove(key).await;
        }
        // What an earlier run stored cannot be made stale before it is found again: it goes.
        if !self.is_ready() {
            return self.remove(key).await;
        }
        let expired = self.expire_as(key, Condition::Always, Some(Ack::Flushed)).await?;
        Ok(matches!(expired, Stored::Yes(_)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{CacheOptions, StoreOptions};
    use crate::clock::{Clock, Timestamp};
    use crate::device::SimDevice;
    use crate::store::FormatOptions;

    #[tokio::test(start_paused = true)]
    async fn a_soft_purge_of_a_key_is_durable_and_covers_what_is_being_stored() {
        let (sim, clock) = (SimDevice::new(16 << 20, 512), Clock::manual(Timestamp(1000)));
        Cache::format_device(&sim.open(), &FormatOptions::default(), &clock).await.unwrap();
        let open = async || {
            let (options, clock) = (CacheOptions::default(), clock.clone());
            let cache = Cache::open_device(sim.open(), options, clock).await.unwrap();
            cache.ready().await;
            cache
        };
        let cache = open().await;
        let options = StoreOptions {
            ttl: Some(std::time::Duration::from_secs(100)),
            ack: Some(Ack::Flushed),
            ..StoreOptions::default()
        };
        assert!(!cache.purge_key(b"key", Purge::Soft).await.unwrap(), "it is not there");
        for len in [10, 3 << 20] {
            let body = vec![1; len];
            cache.put(b"key", body, Condition::Always, &options).await.unwrap();
            let mut writer = cache.store(b"key", options.clone()).unwrap();
            writer.write_chunk(b"of before").await.unwrap();
            assert!(cache.purge_key(b"key", Purge::Soft).await.unwrap());
            let ended = writer.finalize(Condition::Always).await;
            assert!(matches!(ended, Ok(Stored::Yes(_))), "{ended:?}");
            assert!(cache.lookup(b"key").await.is_none(), "{len}");
            assert_eq!(cache.lookup_stale(b"key").await.unwrap().len(), 9);
        }
        sim.power_cut(7);
        drop(cache);
        let cache = open().await;
        assert!(cache.lookup(b"key").await.is_none());
        assert!(cache.lookup_stale(b"key").await.is_some());
        assert!(cache.purge_key(b"key", Purge::Hard).await.unwrap());
        assert!(cache.lookup_stale(b"key").await.is_none());
    }
}
