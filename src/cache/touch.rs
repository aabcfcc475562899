//! New lifetimes for entries that stay where they are.

use std::time::Duration;

use super::Cache;
use crate::store::{Ack, Lifetime, StoreError};

impl Cache {
    /// Changes the lifetime of a live entry without moving it; gives the new one.
    ///
    /// # Errors
    /// The device failed.
    pub async fn touch(&self, key: &[u8], ttl: Duration) -> Result<Option<Lifetime>, StoreError> {
        self.touch_with_grace(key, ttl, Duration::ZERO, Some(Ack::Buffered)).await
    }

    /// As [`Cache::touch`], with `grace` behind the fresh lifetime, in which only callers that
    /// ask for stale entries get it. `ack` takes the place of [`CacheOptions::ack`](super::CacheOptions::ack).
    ///
    /// # Errors
    /// The device failed.
    pub async fn touch_with_grace(
        &self,
        key: &[u8],
        ttl: Duration,
        grace: Duration,
        ack: Option<Ack>,
    ) -> Result<Option<Lifetime>, StoreError> {
        self.touch_entry(key, None, self.lifetime(Some(ttl), grace), ack).await
    }

    /// As [`Cache::touch_with_grace`], if the live entry has this CAS value; `lifetime` says when it is
    /// to end. `None` if it has not.
    ///
    /// # Errors
    /// The device failed.
    pub async fn touch_version(
        &self,
        key: &[u8],
        cas: u64,
        lifetime: Lifetime,
        ack: Option<Ack>,
    ) -> Result<Option<Lifetime>, StoreError> {
        self.touch_entry(key, Some(cas), self.capped(lifetime), ack).await
    }

    /// As [`Cache::touch_version`], of any version if none is given.
    #[cfg(feature = "daemon")]
    pub(crate) async fn touch_until(
        &self,
        key: &[u8],
        cas: Option<u64>,
        (lifetime, ack): (Lifetime, Option<Ack>),
    ) -> Result<Option<Lifetime>, StoreError> {
        self.touch_entry(key, cas, self.capped(lifetime), ack).await
    }

    async fn touch_entry(
        &self,
        key: &[u8],
        cas: Option<u64>,
        lifetime: Lifetime,
        ack: Option<Ack>,
    ) -> Result<Option<Lifetime>, StoreError> {
        let Lifetime { fresh_until, keep_until, .. } = lifetime;
        let touched = self.inner.store.touch_version(key, cas, fresh_until, keep_until).await?;
        if touched.is_some() && self.is_flushed(ack) {
            self.inner.store.flush_through(self.inner.store.last_ticket()).await?;
        }
        Ok(touched)
    }
}
