//! What a lookup gives: an entry's metadata at once, its body or a range of it piece by piece.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::body::BodyReader;
use super::validator::Validator;
use crate::clock::Timestamp;
use crate::format::ObjectHead;
use crate::store::{
    BodyShare, Entry, HeldBody, LargeObject, Lifetime, RangeOptions, Store, Tier, TruncatedBody,
    ZeroRangeOption,
};

/// A live entry.
pub struct Hit {
    entry: Entry,
    tier: Tier,
    /// If unknown, only lookups that accept stale entries get this hit.
    age_known: bool,
    rest: Rest,
    /// The reader of [`Hit::next_chunk`], boxed because most hits have none and are moved a few
    /// times. The mutex, never locked, makes a hit `Sync` although reads under way are not.
    body: Option<Box<Mutex<BodyReader>>>,
}

impl fmt::Debug for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hit = f.debug_struct("Hit");
        hit.field("len", &self.len()).field("cas", &self.cas()).field("tier", &self.tier);
        hit.field("lifetime", &self.lifetime()).finish_non_exhaustive()
    }
}

/// Where the body is.
enum Rest {
    /// In the entry, with a share of the memory budget if the body needs one.
    Here(Option<BodyShare>),
    /// In the store only: too many bodies are in memory already.
    Elsewhere(Store),
    /// In slices.
    Sliced(Box<Sliced>),
}

struct Sliced {
    object: LargeObject,
    /// How ranges are read.
    options: RangeOptions,
}

impl Hit {
    pub(super) fn whole_body(store: &Store, entry: Entry, tier: Tier) -> Hit {
        let age_known = store.knows_age_of(&entry);
        let (entry, rest) = match store.hold_body(entry) {
            HeldBody::Here(entry, share) => (entry, Rest::Here(share)),
            HeldBody::Elsewhere(entry) => (entry, Rest::Elsewhere(store.clone())),
        };
        Hit { entry, tier, age_known, rest, body: None }
    }

    /// A large object.
    pub(super) fn sliced(
        store: &Store,
        (entry, tier): (Entry, Tier),
        head: ObjectHead,
        options: RangeOptions,
    ) -> Hit {
        let object = store.large_object(head);
        let age_known = store.knows_age_of(&entry);
        let rest = Rest::Sliced(Box::new(Sliced { object, options }));
        Hit { entry, tier, age_known, rest, body: None }
    }

    /// Whether the index has all pieces of the body; the time grows with the body's length.
    pub async fn is_complete(&self) -> bool {
        self.has(0..self.len()).await
    }

    /// Whether the index has all pieces of a range of the body.
    pub async fn has(&self, range: Range<u64>) -> bool {
        match &self.rest {
            Rest::Here(_) | Rest::Elsewhere(_) => true,
            Rest::Sliced(sliced) if self.is_partial() => sliced.object.lacks_nothing(range).await,
            Rest::Sliced(sliced) => sliced.object.has(range).await,
        }
    }

    /// The bytes of `range` that are not there, in order, of an object that is stored part by part
    /// ([`Cache::declare`](super::Cache::declare)): not filled yet, or evicted. May read the header of each
    /// 64 KiB, once. Where there are more than 1000 gaps, or 4096 pieces of 64 KiB with a gap, the last range goes
    /// to the end of `range`. Of other objects it gives nothing, even if pieces were evicted: ask
    /// [`Hit::is_complete`].
    pub async fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        match &self.rest {
            Rest::Sliced(sliced) if self.is_partial() => sliced.object.missing(range).await,
            _ => Vec::new(),
        }
    }

    /// Hashes of its tags.
    #[cfg(feature = "daemon")]
    pub(crate) fn tag_hashes(&self) -> Vec<u64> {
        self.entry.tags().collect()
    }

    /// Whether the object is stored part by part. It stays so when all parts are there: [`Hit::is_complete`] says
    /// that.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.entry.is_partial()
    }

    /// The validator of an object that is stored part by part.
    #[must_use]
    pub fn validator(&self) -> Option<Validator> {
        self.entry.validator().map(Validator::stored)
    }

    /// Begins to read the body of a large object, so that a damaged first piece is a miss.
    pub(super) async fn begin_body(&mut self) -> Result<(), TruncatedBody> {
        if matches!(self.rest, Rest::Sliced(_)) && self.body.is_none() {
            self.body = Some(Box::new(Mutex::new(self.range(0..self.len()).await?)));
        }
        Ok(())
    }

    /// Length of the whole body in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty body is an entry like any other")]
    pub fn len(&self) -> u64 {
        match &self.rest {
            Rest::Here(_) | Rest::Elsewhere(_) => self.entry.body_len() as u64,
            Rest::Sliced(sliced) => sliced.object.body_len(),
        }
    }

    /// The metadata given at the store.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        self.entry.metadata()
    }

    /// Unique to this version of the entry: each store and each update that copies has its own. It stays
    /// when eviction moves the entry, and with new lifetimes.
    #[must_use]
    pub fn cas(&self) -> u64 {
        self.entry.version().0
    }

    /// When the entry was stored and when it ends.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        self.entry.lifetime()
    }

    /// How old the object is at `now`: since it was stored, or an update made it fresh, and how old it was
    /// then (RFC 9111, section 4.2.3).
    #[must_use]
    pub fn age(&self, now: Timestamp) -> Duration {
        let lifetime = self.lifetime();
        now.since(lifetime.stored_at) + Duration::from_secs(lifetime.age_secs.into())
    }

    /// How long the entry has been stale at `now`, zero if it is fresh; `None` if nobody knows,
    /// because the wall clock was wrong while the cache was down.
    #[must_use]
    pub fn staleness(&self, now: Timestamp) -> Option<Duration> {
        self.age_known.then(|| now.since(self.lifetime().fresh_until))
    }

    /// Whether the entry is fresh at `now`.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.age_known && self.lifetime().fresh_until > now
    }

    /// Where the entry was found.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// The whole body if it is in memory already: bodies of up to one slice, about 1 MiB, unless
    /// too many of more than 64 KiB are held at the moment.
    #[must_use]
    pub fn whole(&self) -> Option<&[u8]> {
        matches!(self.rest, Rest::Here(_)).then(|| self.entry.body())
    }

    /// Has ranges of this body read with `options` in place of the cache's own.
    ///
    /// # Errors
    /// A threshold, size, count or time is zero.
    pub fn set_range_options(&mut self, options: RangeOptions) -> Result<(), ZeroRangeOption> {
        options.check()?;
        if let Rest::Sliced(sliced) = &mut self.rest {
            sliced.options = options;
        }
        Ok(())
    }

    /// Begins to read a range of the body, cut at the body's end. When this returns, the first piece
    /// is verified, and no other piece is known to be missing.
    ///
    /// # Errors
    /// A piece was evicted, or the first one is damaged: this is a miss.
    pub async fn range(&self, range: Range<u64>) -> Result<BodyReader, TruncatedBody> {
        let end = range.end.min(self.len());
        let range = range.start.min(end)..end;
        match &self.rest {
            Rest::Here(share) => {
                let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                let bytes = self.entry.shared_body();
                let bytes = bytes.slice(within(range.start)..within(range.end));
                Ok(BodyReader::memory(match share {
                    Some(share) => share.cover(bytes),
                    None => bytes,
                }))
            }
            Rest::Elsewhere(store) => BodyReader::again((store, &self.entry), range).await,
            Rest::Sliced(sliced) => {
                BodyReader::object(&sliced.object, range, &sliced.options).await
            }
        }
    }

    /// The whole body, in memory. [`Hit::next_chunk`] gives large bodies piece by piece.
    ///
    /// # Errors
    /// A piece was evicted, is damaged or took too long.
    pub async fn bytes(mut self) -> Result<Bytes, TruncatedBody> {
        let first = self.next_chunk().await?.unwrap_or_default();
        let mut whole = Vec::new();
        while let Some(piece) = self.next_chunk().await? {
            if whole.is_empty() {
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(if whole.is_empty() { first } else { whole.into() })
    }

    /// The next piece of the whole body, at most 1 MiB; `None` at its end.
    ///
    /// # Errors
    /// A piece was evicted, is damaged or took too long: the body ends here, short.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, TruncatedBody> {
        if self.body.is_none() {
            self.body = Some(Box::new(Mutex::new(self.range(0..self.len()).await?)));
        }
        match &mut self.body {
            Some(body) => body.get_mut().next_chunk().await,
            None => Ok(None),
        }
    }
}
