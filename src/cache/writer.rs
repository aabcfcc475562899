//! A streamed store: bytes come in pieces of any length, at most one slice of them waits in
//! memory. The object appears with its head, or not at all.

use std::fmt;
use std::future::poll_fn;
#[cfg(feature = "daemon")]
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
#[cfg(feature = "daemon")]
use tokio::io::AsyncRead;

use super::follow::feed::{About, Feed};
use super::follow::follower::Follower;
use super::follow::leader::Leader;
use super::leases::{Held, OfLease, SharedLease};
use super::{Cache, StoreOptions};
use crate::fair_memory::{self, Short};
use crate::format::Records;
use crate::store::{Condition, Fill, Lifetime, StoreError, Stored, Ticket, Upload, Value};

/// A store in progress. Dropping it cancels the store and leaves the old entry as it is.
pub struct Writer {
    fill: Arc<Fill>,
    /// Tells those who follow.
    leader: Option<Leader>,
    /// The slices before the present one.
    upload: Upload,
    cache: Cache,
    key: Vec<u8>,
    options: StoreOptions,
    /// Hashes of the tags.
    tags: Vec<u64>,
    lifetime: Lifetime,
    /// The slice so far.
    held: fair_memory::Held,
    len: u64,
    /// A chunk was not taken whole: what is here is not the body.
    broken: bool,
    /// Others wait for what becomes of it.
    lease: SharedLease,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// Whether anybody follows it.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.leader.as_ref().is_some_and(Leader::is_followed)
    }

    /// # Errors
    /// [`StoreError::Crowded`]: there is no room for a body as long as was announced. The tags are too many or
    /// too long.
    pub(super) fn new(
        cache: Cache,
        key: &[u8],
        options: StoreOptions,
        of_lease: OfLease,
    ) -> Result<Writer, StoreError> {
        let lifetime = cache.lifetime_of(&options);
        let store = &cache.inner.store;
        let tags = options.tag_hashes(store)?;
        let upload = store.begin_upload(key, lifetime, options.len_hint)?;
        let fill = of_lease.fill.unwrap_or_else(|| store.begin_fill(key));
        let fill = Arc::new(fill);
        let held = cache.inner.write_buffer.hold(expected(&options, 0));
        let lease = SharedLease::new(Mutex::new(of_lease.held));
        let leader = options.follow.then(|| {
            let StoreOptions { metadata, len_hint, .. } = options.clone();
            let (key, tags) = (key.to_vec(), tags.clone());
            let about = About { key, metadata, tags, lifetime, len_hint };
            let memory = (cache.inner.write_buffer.clone(), held.window());
            let feed = Feed::new(about, store.clone(), memory);
            Leader::begin(feed, &cache.inner.feeds, &fill, &lease)
        });
        let (key, len, broken) = (key.to_vec(), 0, false);
        if leader.is_some()
            && let Some(held) = &*lease.lock()
        {
            // Who waits may follow from now on.
            held.announce();
        }
        Ok(Writer {
            fill,
            leader,
            upload,
            cache,
            key,
            options,
            tags,
            lifetime,
            held,
            len,
            broken,
            lease,
        })
    }

    /// The same writer with a lease that others wait for.
    pub(super) fn holding(self, lease: Option<Held>) -> Writer {
        *self.lease.lock() = lease;
        self
    }

    /// A reader that follows this store from the first byte of its body on: see [`Cache::follow`]. `None` if it was
    /// not begun with [`StoreOptions::follow`], or its key was purged meanwhile.
    #[must_use]
    pub fn follower(&self) -> Option<Follower> {
        self.leader.as_ref().and_then(Leader::follower)
    }

    /// Appends bytes of any length to the body.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`]; [`StoreError::Crowded`] if the body is longer than was announced, or
    /// nothing was, and stores under way take half of the device; [`StoreError::Busy`] after a long
    /// wait for memory, or because others waited long for that of this store; or a failed device.
    /// [`StoreError::Incomplete`] after a call that failed, or was dropped before it ended. The store is over.
    pub async fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        self.check_whole()?;
        // Stays so if this fails, or if the caller drops it half way.
        self.broken = true;
        let taken = self.take_chunk(chunk).await;
        if let (Err(error), Some(leader)) = (&taken, &self.leader) {
            leader.fail(error);
        }
        self.broken = taken.is_err();
        taken
    }

    /// # Errors
    /// [`StoreError::Incomplete`] if a chunk was not taken whole: what comes now has another place in the body
    /// than those who follow would think.
    fn check_whole(&self) -> Result<(), StoreError> {
        if !self.broken {
            return Ok(());
        }
        if let Some(leader) = &self.leader {
            leader.fail(&StoreError::Incomplete);
        }
        Err(StoreError::Incomplete)
    }

    async fn take_chunk(&mut self, mut chunk: &[u8]) -> Result<(), StoreError> {
        let limit = self.cache.object_len_max();
        if self.len + chunk.len() as u64 > limit {
            return Err(StoreError::TooLarge { limit });
        }
        while !chunk.is_empty() {
            self.end_slice().await?;
            let take = chunk.len().min(self.slice_size() - self.held.len());
            self.held.stage(&chunk[..take]).await?;
            self.grow(take as u64);
            chunk = &chunk[take..];
        }
        Ok(())
    }

    /// Appends what `source` has at once or next, at most `len_max` bytes, without a copy on the way; gives
    /// their number, or `None` if there is no memory yet for what may come: a chunk makes it.
    ///
    /// # Errors
    /// Those of `source`, and inside of them [`StoreError::Busy`] as for [`Writer::write_chunk`].
    #[cfg(feature = "daemon")]
    pub(crate) async fn read_from<R: AsyncRead + Unpin>(
        &mut self,
        source: &mut R,
        len_max: u64,
    ) -> io::Result<Result<Option<usize>, StoreError>> {
        if let Err(error) = self.check_whole() {
            return Ok(Err(error));
        }
        let len_max = len_max.min(self.cache.object_len_max().saturating_sub(self.len));
        let len_max = usize::try_from(len_max).unwrap_or(usize::MAX);
        let read = poll_fn(|cx| self.held.poll_read(cx, source, len_max)).await?;
        self.broken |= read.is_err();
        let read = read.map_err(StoreError::from);
        match (&read, &self.leader) {
            (Err(error), Some(leader)) => leader.fail(error),
            _ => self.grow(read.as_ref().ok().copied().flatten().unwrap_or(0) as u64),
        }
        Ok(read)
    }

    /// Waits until this store fails because it is slow and others need its memory, and gives the error that
    /// its next call would give: for callers that wait for more bytes meanwhile.
    pub async fn lost(&self) -> StoreError {
        StoreError::from(poll_fn(|cx| self.held.poll_lost(cx)).await)
    }

    fn slice_size(&self) -> usize {
        self.cache.inner.store.layout().slice_size as usize
    }

    /// Stores the slice if it is whole.
    async fn end_slice(&mut self) -> Result<(), StoreError> {
        if self.held.len() == self.slice_size() {
            let staged = self.held.take()?;
            self.append(staged).await?;
        }
        Ok(())
    }

    /// So many more bytes have come.
    fn grow(&mut self, bytes: u64) {
        self.len += bytes;
        if let Some(leader) = &self.leader {
            leader.grown(self.len);
        }
    }

    async fn append(&mut self, staged: Vec<u8>) -> Result<(), StoreError> {
        if let Some(leader) = &self.leader {
            leader.taken(&staged);
        }
        self.append_slice(&staged).await?;
        self.held.begin_anew(staged, expected(&self.options, self.len));
        Ok(())
    }

    async fn append_slice(&mut self, staged: &[u8]) -> Result<(), StoreError> {
        self.upload.append(staged).await?;
        if let Some(leader) = &self.leader {
            leader.stored(&self.upload);
        }
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
        if let Some(leader) = self.leader.take() {
            leader.settle(&published);
        }
        if let Ok((Stored::Yes(_), _)) = &published {
            // It can be read, which may be long before it is acknowledged.
            let inner = &self.cache.inner;
            let hash = || inner.store.hash_of_key(&self.key);
            let held = self.lease.lock().take();
            inner.leases.note_stored(&self.key, hash, held);
        }
        let stored =
            self.cache.end_store(&self.key, (condition, self.options.ack), published).await;
        if matches!(stored, Ok(Stored::Yes(_))) && self.upload.is_at_risk() {
            // Its head came after a write that failed, and its slices before.
            self.cache.drop_failed(&self.key).await;
            return Err(StoreError::NotDurable);
        }
        stored
    }

    async fn publish(&mut self, condition: Condition) -> Result<(Stored, Ticket), StoreError> {
        if self.broken {
            return Err(StoreError::Incomplete);
        }
        let staged = self.held.take()?;
        if let Some(leader) = &self.leader {
            leader.came_whole(&staged);
        }
        let store = &self.cache.inner.store;
        if self.upload.is_empty() {
            let body = &staged[..];
            let value = Value {
                metadata: &self.options.metadata,
                lifetime: self.lifetime,
                tags: &self.tags,
                ram_only: self.cache.is_ram_only(&self.lifetime, self.options.ack, body.len()),
                body,
            };
            store.put(&self.key, &value, condition, Some(&self.fill)).await
        } else {
            if !staged.is_empty() {
                self.append_slice(&staged).await?;
            }
            let how = (condition, &*self.fill);
            let records = Records { tags: self.tags.clone(), ..Records::default() };
            let parts = (&self.options.metadata[..], &records);
            self.upload.publish(&self.key, parts, how).await
        }
    }
}

/// Bytes that come after the first `len`, as far as is known.
fn expected(options: &StoreOptions, len: u64) -> usize {
    let rest = options.len_hint.map_or(u64::MAX, |hint| hint.saturating_sub(len));
    usize::try_from(rest).unwrap_or(usize::MAX)
}

impl From<Short> for StoreError {
    fn from(short: Short) -> StoreError {
        StoreError::Busy(match short {
            Short::UsedUp => "memory for stores in progress is used up",
            Short::GaveWay => "memory for stores in progress is used up, and this one is slow",
        })
    }
}
