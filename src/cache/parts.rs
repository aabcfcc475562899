//! Objects that are stored part by part, in any order and by several writers. Owns what an unfinished writer
//! leaves.

use std::fmt;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;

use super::leases::OfLease;
use super::validator::Validator;
use super::{BodyReader, Cache, StoreOptions, check_lengths};
use crate::fair_memory::Held;
#[cfg(feature = "daemon")]
use crate::store::Fill;
use crate::store::{
    Ack, Condition, Declaration, Declared, PartialObject, RangeOptions, StoreError, Ticket,
    TruncatedBody,
};

/// An object of which parts can be stored, by [`Cache::declare`]. Clones share it. While one of them is held, parts
/// that are there stay, unless they are evicted, even if the object is replaced.
#[derive(Clone)]
pub struct Parts {
    cache: Cache,
    object: Arc<PartialObject>,
    version: u64,
    is_new: bool,
    ack: Option<Ack>,
}

/// Stores bytes of an object from one position on. Dropped before [`PartWriter::finish`], it loses what it was
/// given since the last multiple of 64 KiB.
pub struct PartWriter {
    parts: Parts,
    held: Held,
    /// Where the bytes that are gathered begin.
    at: u64,
    /// What it stored, and what was there already, came between these.
    tickets: Option<(Ticket, Ticket)>,
    /// A chunk was not taken whole.
    broken: bool,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("len", &self.len()).field("cas", &self.version).finish()
    }
}

impl fmt::Debug for PartWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartWriter").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Cache {
    /// Begins an object of `len` bytes that comes part by part, or goes on with one that was begun with the
    /// same validator and length: its metadata, tags and lifetime stay as they are then, as if they were not
    /// given. A stale one stays stale: [`Cache::update`] gives it a new lifetime. Another version of the key is
    /// replaced unless it is younger by a second or more: by when each was stored or last validated, less its
    /// [`StoreOptions::age`]. One that is not stored in parts is also replaced if it is stale or lacks pieces.
    /// `None` if it is not replaced, or if this version has another length.
    ///
    /// What [`Cache::put`] and [`Cache::store`] stored has no validator, and is always another version: look first,
    /// with [`Cache::lookup_stale_head`].
    ///
    /// Lookups find the object as soon as all of it is there; until then [`Cache::lookup_head`] gives it, and
    /// [`Hit::missing`](super::Hit::missing) names what is missing. What is evicted is missing again and can be
    /// stored again. `follow` and `len_hint` have no effect.
    ///
    /// # Errors
    /// See [`StoreError`]. An error before the object is begun leaves what there is; with [`Ack::Flushed`] the flush
    /// may fail after an older version was replaced.
    pub async fn declare(
        &self,
        key: &[u8],
        len: u64,
        validator: &Validator,
        options: &StoreOptions,
    ) -> Result<Option<Parts>, StoreError> {
        let (of, condition) = ((len, validator), Condition::Always);
        self.declare_with(key, of, (condition, options), OfLease::default()).await
    }

    /// As [`Cache::declare`], if a condition holds of what there is, whole or not; purges since `fill` began prevail.
    #[cfg(feature = "daemon")]
    pub(crate) async fn declare_if(
        &self,
        key: &[u8],
        of: (u64, &Validator),
        how: (Condition, &StoreOptions),
        fill: Fill,
    ) -> Result<Option<Parts>, StoreError> {
        let of_lease = OfLease { fill: Some(fill), held: None };
        self.declare_with(key, of, how, of_lease).await
    }

    /// As [`Cache::declare`], with what a lease brings.
    pub(super) async fn declare_with(
        &self,
        key: &[u8],
        (len, validator): (u64, &Validator),
        (condition, options): (Condition, &StoreOptions),
        of_lease: OfLease,
    ) -> Result<Option<Parts>, StoreError> {
        check_lengths(key, &options.metadata)?;
        let (store, limit) = (&self.inner.store, self.object_len_max());
        if len > limit {
            return Err(StoreError::TooLarge { limit });
        }
        let (lifetime, tags) = (self.lifetime_of(options), store.tag_hashes(&options.tags)?);
        let (validator, metadata) = (validator.as_bytes(), &options.metadata[..]);
        let declaration =
            Declaration { len, validator, metadata, tags: &tags, lifetime, condition };
        let fill = of_lease.fill.unwrap_or_else(|| store.begin_fill(key));
        let declared = store.declare(key, &declaration, fill).await?;
        let Declared::Parts { object, version, tickets, is_new } = declared else {
            return Ok(None);
        };
        if self.is_flushed(options.ack) {
            store.flush_between(tickets.0, tickets.1).await?;
        }
        self.inner.leases.note_stored(key, || store.hash_of_key(key), of_lease.held);
        let (cache, ack) = (self.clone(), options.ack);
        Ok(Some(Parts { cache, object, version, is_new, ack }))
    }
}

impl Parts {
    /// Length of the whole body in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty body is an object like any other")]
    pub fn len(&self) -> u64 {
        self.object.body_len()
    }

    /// CAS value of the object when it was declared.
    #[must_use]
    pub fn cas(&self) -> u64 {
        self.version
    }

    /// Whether the object was begun by this declaration.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// When the declaration began: later purges prevail.
    #[cfg(feature = "daemon")]
    pub(crate) fn since(&self) -> &Fill {
        self.object.since()
    }

    /// The bytes of `range` that are not there, in order, with the limits of [`Hit::missing`](super::Hit::missing). May
    /// read the header of each 64 KiB, once.
    pub async fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.object.missing(range).await
    }

    /// Begins to read a range of the body, cut at the body's end, all of which should be there: see
    /// [`Parts::missing`]. When this returns, the first piece is verified.
    ///
    /// # Errors
    /// A piece is missing, or the first one is damaged.
    pub async fn range(&self, range: Range<u64>) -> Result<BodyReader, TruncatedBody> {
        let end = range.end.min(self.len());
        let range = range.start.min(end)..end;
        BodyReader::object(self.object.object(), range, &RangeOptions::default()).await
    }

    /// Stores the bytes of the body that begin at `at`, and acknowledges them as the options of the declaration
    /// say. What is there already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the object was replaced or evicted, or has ended, and [`StoreError::Purged`] if
    /// its key was purged; [`StoreError::Range`] if the bytes go beyond its end; [`StoreError::Fragmented`] if
    /// they are the 17th piece of 64 KiB, and none touches another; [`StoreError::NotDurable`] if the device
    /// failed since the declaration: declare the object again. Others as for all stores. What was stored before stays.
    pub async fn fill(&self, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let mut writer = self.writer(at);
        writer.write_chunk(bytes).await?;
        writer.finish().await
    }

    /// Begins to store bytes from the position `at` of the body on, as they come.
    #[must_use]
    pub fn writer(&self, at: u64) -> PartWriter {
        let held = self.cache.inner.write_buffer.hold(self.room_at(at));
        PartWriter { parts: self.clone(), held, at, tickets: None, broken: false }
    }

    /// Bytes from `at` up to the end of its granule.
    fn room_at(&self, at: u64) -> usize {
        let end = if at < self.len() { self.object.granule_end(at) } else { at };
        usize::try_from(end - at).unwrap_or(usize::MAX)
    }
}

impl PartWriter {
    /// Where the bytes begin that it has not stored yet: what came before is there for readers.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Appends bytes of any length.
    ///
    /// # Errors
    /// As those of [`Parts::fill`]; [`StoreError::Incomplete`] after a call that failed or was dropped before it ended;
    /// [`StoreError::Busy`] after a long wait for memory, or because others waited
    /// long for that of this writer. It is over then.
    pub async fn write_chunk(&mut self, mut chunk: &[u8]) -> Result<(), StoreError> {
        if self.broken {
            return Err(StoreError::Incomplete);
        }
        let (len, end) = (self.parts.len(), self.at + self.held.len() as u64);
        if end.saturating_add(chunk.len() as u64) > len {
            return Err(StoreError::Range { len });
        }
        // Stays so if this fails, or if the caller drops it half way.
        self.broken = true;
        while !chunk.is_empty() {
            let room = self.parts.room_at(self.at) - self.held.len();
            let (now, later) = chunk.split_at(chunk.len().min(room));
            self.held.stage(now).await?;
            if now.len() == room {
                self.store().await?;
            }
            chunk = later;
        }
        self.broken = false;
        Ok(())
    }

    /// Stores what was gathered, and acknowledges all of it as the options of the declaration say.
    ///
    /// # Errors
    /// As those of [`Parts::fill`].
    pub async fn finish(mut self) -> Result<(), StoreError> {
        if self.broken {
            return Err(StoreError::Incomplete);
        }
        self.store().await?;
        let cache = &self.parts.cache;
        match self.tickets {
            Some((first, last)) if cache.is_flushed(self.parts.ack) => {
                cache.inner.store.flush_between(first, last).await
            }
            _ => Ok(()),
        }
    }

    /// Waits until this writer fails because it is slow and others need its memory, and gives the error that
    /// its next call would give: for callers that wait for more bytes meanwhile.
    pub async fn lost(&self) -> StoreError {
        StoreError::from(poll_fn(|cx| self.held.poll_lost(cx)).await)
    }

    async fn store(&mut self) -> Result<(), StoreError> {
        let staged = self.held.take()?;
        if !staged.is_empty() {
            let flushed = self.parts.cache.is_flushed(self.parts.ack);
            let (seen, last) = self.parts.object.fill(self.at, &staged, flushed).await?;
            let first = self.tickets.map_or(seen, |(first, _)| first.min(seen));
            self.tickets = Some((first, last));
        }
        self.at += staged.len() as u64;
        self.held.begin_anew(staged, self.parts.room_at(self.at));
        Ok(())
    }
}
