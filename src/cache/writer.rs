//! A streamed store: bytes come in pieces of any length, at most one slice of them waits in
//! memory. Owns the staging budget; the object appears with its head, or not at all.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Cache, StoreOptions};
use crate::format::{ObjectHead, Sequence, SliceKey};
use crate::store::{Condition, Fill, Lifetime, StoreError, Stored, Ticket, Value};

/// Staging memory is taken in steps of this many bytes, as the bytes arrive: a slow sender
/// holds only what it has sent.
const STAGING_STEP: usize = 64 << 10;

/// The memory that all stores in progress share. When it is used up stores wait for each other,
/// each with a part of a slice: so that they do not wait in a circle, one at a time may take what
/// completes its slice from a reserve.
#[derive(Clone)]
pub(super) struct Staging {
    free: Arc<Semaphore>,
    /// Whole or not there.
    reserve: Arc<Semaphore>,
    reserve_len: usize,
    limit: usize,
    wait_max: Duration,
}

/// What a store in progress got.
enum Granted {
    Step(OwnedSemaphorePermit),
    Reserve(OwnedSemaphorePermit),
}

impl Staging {
    /// A budget of `bytes` for slices of `slice_size`. Stores wait for at most `wait_max` at a time.
    pub fn new(bytes: u64, slice_size: usize, wait_max: Duration) -> Staging {
        let limit = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let reserve_len = slice_size.next_multiple_of(STAGING_STEP);
        // A small budget has none: a part of it would be missed.
        let reserve_len = if limit >= 2 * reserve_len { reserve_len } else { 0 };
        Staging {
            free: Arc::new(Semaphore::new(limit - reserve_len)),
            reserve: Arc::new(Semaphore::new(usize::from(reserve_len > 0))),
            reserve_len,
            limit,
            wait_max,
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        let unused = self.reserve.available_permits() * self.reserve_len;
        (self.limit - unused - self.free.available_permits()) as u64
    }

    /// Bytes at most.
    pub fn limit(&self) -> u64 {
        self.limit as u64
    }

    /// One step, or the reserve.
    async fn take(&self) -> Result<Granted, StoreError> {
        let step = u32::try_from(STAGING_STEP).unwrap_or(u32::MAX);
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_many_owned(step) {
            return Ok(Granted::Step(permit));
        }
        let granted = async {
            tokio::select! {
                biased;
                permit = Arc::clone(&self.free).acquire_many_owned(step) => permit.map(Granted::Step),
                permit = Arc::clone(&self.reserve).acquire_owned() => permit.map(Granted::Reserve),
            }
        };
        match tokio::time::timeout(self.wait_max, granted).await {
            Ok(Ok(granted)) => Ok(granted),
            _ => Err(StoreError::Busy("memory for stores in progress is used up")),
        }
    }
}

/// A store in progress. Dropping it cancels the store and leaves the old entry as it is.
pub struct Writer {
    cache: Cache,
    key: Vec<u8>,
    options: StoreOptions,
    lifetime: Lifetime,
    fill: Fill,
    staged: BytesMut,
    permits: Vec<OwnedSemaphorePermit>,
    /// Held until the slice is complete, in which it was needed.
    reserve: Option<OwnedSemaphorePermit>,
    object: Option<Sequence>,
    slices: u32,
    len: u64,
    /// A chunk was not taken whole: what is here is not the body.
    broken: bool,
    finished: bool,
}

impl Writer {
    pub(super) fn new(cache: Cache, key: &[u8], options: StoreOptions) -> Writer {
        let fill = cache.inner.store.begin_fill(key);
        let lifetime = cache.lifetime(&options);
        Writer {
            cache,
            key: key.to_vec(),
            options,
            lifetime,
            fill,
            staged: BytesMut::new(),
            permits: Vec::new(),
            reserve: None,
            object: None,
            slices: 0,
            len: 0,
            broken: false,
            finished: false,
        }
    }

    /// Appends bytes of any length to the body.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Busy`] after a long wait for memory, or a failed
    /// device; the store is over.
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
            if self.staged.len() == slice_size {
                self.append_slice().await?;
            }
            let take = chunk.len().min(slice_size - self.staged.len());
            self.make_room(self.staged.len() + take).await?;
            self.staged.extend_from_slice(&chunk[..take]);
            chunk = &chunk[take..];
        }
        Ok(())
    }

    /// Takes memory for a slice of which `len` bytes have come.
    async fn make_room(&mut self, len: usize) -> Result<(), StoreError> {
        while self.reserve.is_none() && self.permits.len() * STAGING_STEP < len {
            match self.cache.inner.staging.take().await? {
                Granted::Step(permit) => self.permits.push(permit),
                Granted::Reserve(permit) => self.reserve = Some(permit),
            }
        }
        Ok(())
    }

    fn slice_size(&self) -> usize {
        self.cache.inner.store.layout().slice_size as usize
    }

    async fn append_slice(&mut self) -> Result<Ticket, StoreError> {
        let object = match self.object {
            Some(object) => object,
            None => *self.object.insert(self.cache.inner.store.name_object().await?),
        };
        let key = SliceKey { object, number: self.slices };
        let ticket = self.cache.inner.store.append_slice(key, &self.staged, self.lifetime).await?;
        self.slices += 1;
        self.staged.clear();
        if self.reserve.is_some() {
            // Others wait: the next slice takes its turn behind them.
            self.staged = BytesMut::new();
            self.permits.clear();
            self.reserve = None;
        }
        Ok(ticket)
    }

    /// Publishes the object if `condition` holds, atomically replacing the old one, and
    /// acknowledges it as the options say.
    ///
    /// # Errors
    /// [`StoreError::Purged`] if the key was purged since the store began; else the old entry
    /// goes too, as after any failed store.
    pub async fn finalize(mut self, condition: Condition) -> Result<Stored, StoreError> {
        let result = self.publish(condition).await;
        match &result {
            Err(StoreError::Purged) | Ok(_) => {}
            Err(_) => self.cache.drop_failed(&self.key).await,
        }
        result
    }

    async fn publish(&mut self, condition: Condition) -> Result<Stored, StoreError> {
        if self.broken {
            return Err(StoreError::Incomplete);
        }
        let store = &self.cache.inner.store;
        let (stored, ticket) = if self.object.is_none() {
            let body = &self.staged[..];
            let value = Value {
                metadata: &self.options.metadata,
                lifetime: self.lifetime,
                ram_only: self.cache.is_ram_only(&self.lifetime, self.options.ack, body.len()),
                body,
            };
            store.put(&self.key, &value, condition, Some(self.fill)).await?
        } else {
            if !self.staged.is_empty() {
                self.append_slice().await?;
            }
            let head = ObjectHead {
                len: self.len,
                object: self.object.unwrap_or_default(),
                slice_size: self.cache.inner.store.layout().slice_size,
            };
            let metadata = self.options.metadata.clone();
            let store = &self.cache.inner.store;
            store
                .put_head(&self.key, (&metadata, head), self.lifetime, (condition, self.fill))
                .await?
        };
        // Published: whatever happens from here on, the slices belong to the object.
        self.finished |= matches!(stored, Stored::Yes(_));
        self.cache.acknowledge(ticket, self.options.ack).await?;
        Ok(stored)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let orphans = self.object.filter(|_| !self.finished).map(|object| (object, self.slices));
        self.cache.inner.store.end_fill(self.fill, orphans);
    }
}
