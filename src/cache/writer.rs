//! A streamed store: bytes come in pieces of any length, at most one slice of them waits in
//! memory. The object appears with its head, or not at all.

use std::fmt;

use bytes::BytesMut;

use super::write_buffer::Held;
use super::{Cache, StoreOptions};
use crate::store::{Condition, Fill, Lifetime, StoreError, Stored, Ticket, Upload, Value};

/// A store in progress. Dropping it cancels the store and leaves the old entry as it is.
pub struct Writer {
    fill: Fill,
    /// The slices before the present one.
    upload: Upload,
    cache: Cache,
    key: Vec<u8>,
    options: StoreOptions,
    lifetime: Lifetime,
    /// The slice so far.
    held: Held,
    len: u64,
    /// A chunk was not taken whole: what is here is not the body.
    broken: bool,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// # Errors
    /// [`StoreError::Crowded`]: there is no room for a body as long as was announced.
    pub(super) fn new(
        cache: Cache,
        key: &[u8],
        options: StoreOptions,
    ) -> Result<Writer, StoreError> {
        let lifetime = cache.lifetime_of(&options);
        let store = &cache.inner.store;
        let upload = store.begin_upload(lifetime, options.len_hint)?;
        let fill = store.begin_fill(key);
        let held = cache.inner.write_buffer.hold();
        let (key, len, broken) = (key.to_vec(), 0, false);
        Ok(Writer { fill, upload, cache, key, options, lifetime, held, len, broken })
    }

    /// Appends bytes of any length to the body.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`]; [`StoreError::Crowded`] if the body is longer than was announced, or
    /// nothing was, and stores under way take half of the device; [`StoreError::Busy`] after a long
    /// wait for memory, or because others waited long for that of this store; or a failed device.
    /// The store is over.
    pub async fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        // Stays so if this fails, or if the caller drops it half way.
        let was_broken = std::mem::replace(&mut self.broken, true);
        self.take_chunk(chunk).await?;
        self.broken = was_broken;
        Ok(())
    }

    async fn take_chunk(&mut self, mut chunk: &[u8]) -> Result<(), StoreError> {
        self.len += chunk.len() as u64;
        let limit = self.cache.object_len_max();
        if self.len > limit {
            return Err(StoreError::TooLarge { limit });
        }
        let slice_size = self.slice_size();
        while !chunk.is_empty() {
            if self.held.len() == slice_size {
                let staged = self.held.take()?;
                self.append(staged).await?;
            }
            let take = chunk.len().min(slice_size - self.held.len());
            self.held.stage(&chunk[..take]).await?;
            chunk = &chunk[take..];
        }
        Ok(())
    }

    fn slice_size(&self) -> usize {
        self.cache.inner.store.layout().slice_size as usize
    }

    async fn append(&mut self, staged: BytesMut) -> Result<(), StoreError> {
        self.upload.append(&staged).await?;
        self.held.slice_ended(staged);
        Ok(())
    }

    /// Publishes the object if `condition` holds, atomically replacing the old one, and
    /// acknowledges it as the options say.
    ///
    /// # Errors
    /// [`StoreError::Purged`] if the key was purged since the store began. After other errors the old
    /// entry goes too, unless it was a store with a condition: then only what was published, and may
    /// not be durable.
    pub async fn finalize(mut self, condition: Condition) -> Result<Stored, StoreError> {
        let published = self.publish(condition).await;
        self.cache.end_store(&self.key, (condition, self.options.ack), published).await
    }

    async fn publish(&mut self, condition: Condition) -> Result<(Stored, Ticket), StoreError> {
        if self.broken {
            return Err(StoreError::Incomplete);
        }
        let staged = self.held.take()?;
        let store = &self.cache.inner.store;
        if self.upload.is_empty() {
            let body = &staged[..];
            let value = Value {
                metadata: &self.options.metadata,
                lifetime: self.lifetime,
                ram_only: self.cache.is_ram_only(&self.lifetime, self.options.ack, body.len()),
                body,
            };
            store.put(&self.key, &value, condition, Some(&self.fill)).await
        } else {
            if !staged.is_empty() {
                self.append(staged).await?;
            }
            let how = (condition, &self.fill);
            self.upload.publish(&self.key, &self.options.metadata, how).await
        }
    }
}
