//! One reader of a body that is still being stored. Owns how far it has come.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{Stream, try_unfold};
use parking_lot::Mutex;

use super::error::FollowError;
use super::feed::{Feed, Look};
use crate::cache::body::BodyReader;
use crate::cache::hit::Hit;
use crate::store::{Lifetime, Stale};

/// Reads a body while it is stored: what has come at once, and the rest as it comes.
///
/// It is woken for what comes, works from any runtime and thread, and has the writer wait for nothing. As long as
/// it is near the writer it is served from memory, and what others get at the same time is shared with them.
/// When it fell behind by more than two slices (of about 1 MiB), or memory for stores in progress is short, it
/// reads the slices that are stored already from the device. They stay as long as the store is under way; after
/// that they may be evicted like any others, and a follower that is not done gets [`FollowError::Lost`].
///
/// The end comes cleanly once the writer was finalized with a whole body, also where that is not published: because
/// of the store's condition, because the key was purged meanwhile, or because the store failed after that.
/// A writer that fails or is dropped before is an error, and never an end.
pub struct Follower {
    feed: Arc<Feed>,
    /// Where it is in the body.
    at: u64,
    /// Bytes given since it last let others run.
    given: u64,
    /// Reads what was published. The mutex, never locked, makes a follower `Sync` although reads under way
    /// are not.
    published: Option<Box<Mutex<BodyReader>>>,
    failed: Option<FollowError>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut follower = f.debug_struct("Follower");
        follower.field("position", &self.at).field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Follower {
    /// From the first byte on.
    pub(super) fn new(feed: Arc<Feed>) -> Follower {
        feed.joined();
        Follower { feed, at: 0, given: 0, published: None, failed: None }
    }

    /// The metadata given at the store, at most [`METADATA_LEN_MAX`](crate::METADATA_LEN_MAX) bytes.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        &self.feed.about.metadata
    }

    /// When the store began and when its entry is to end.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        self.feed.about.lifetime
    }

    /// The body's length in bytes, if it was announced. Nobody holds the writer to it.
    #[must_use]
    pub fn len_hint(&self) -> Option<u64> {
        self.feed.about.len_hint
    }

    /// Where it is in the body: bytes given so far, or as far as it was moved.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Goes on with the byte at `position`, which need not be there yet: a position behind the end of the body is
    /// its end.
    pub fn seek(&mut self, position: u64) {
        if position != self.at {
            self.at = position;
            self.published = None;
        }
    }

    /// The next piece of the body, at most 1 MiB and never empty; waits until there is one. `None` at the end of
    /// the whole body. Dropped before it is done, it loses nothing.
    ///
    /// A piece counts as memory of bodies that are read ([`range_buffer_bytes`](crate::CacheOptions)) until it
    /// is dropped, as far as there is any; beyond that, pieces are of at most 64 KiB.
    ///
    /// # Errors
    /// See [`FollowError`]. What was given is not the whole body; each later call gives the error again.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, FollowError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.given >= u64::from(self.feed.store.layout().slice_size) {
            self.given = 0;
            // One that finds all in memory would not let the writer run, nor the others.
            tokio::task::yield_now().await;
        }
        let next = self.next_piece().await;
        match &next {
            Ok(Some(piece)) => {
                self.at += piece.len() as u64;
                self.given += piece.len() as u64;
            }
            Ok(None) => {}
            Err(error) => self.failed = Some(error.clone()),
        }
        next
    }

    /// The pieces of the body as a stream; the first error ends it.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, FollowError>> + Send + 'static {
        try_unfold(self, async |mut follower| {
            Ok(follower.next_chunk().await?.map(|piece| (piece, follower)))
        })
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, FollowError> {
        if self.published.is_some() {
            return self.next_published().await;
        }
        let feed = Arc::clone(&self.feed);
        loop {
            // Before the look, so that no change after it is missed.
            let changed = feed.changed();
            match feed.look(self.at) {
                Look::Piece(bytes) => return Ok(Some(feed.store.cover(bytes))),
                Look::Present { start, piece } => {
                    if let Some(bytes) = feed.copy(start, &piece) {
                        return Ok(Some(feed.store.cover(bytes)));
                    }
                    changed.await;
                }
                Look::Slice(object, range) => {
                    let read = feed.read(object, range).await;
                    return read.map(Some).ok_or(FollowError::Lost);
                }
                Look::Value(cas) => {
                    self.published = self.find_published(cas).await;
                    return self.next_published().await;
                }
                Look::Wait => changed.await,
                Look::End => return Ok(None),
                Look::Failed(error) => return Err(error),
            }
        }
    }

    /// The rest of a short body that was published, if its entry is still the one of the key.
    async fn find_published(&self, cas: u64) -> Option<Box<Mutex<BodyReader>>> {
        let store = &self.feed.store;
        let (entry, tier) = store.lookup(&self.feed.about.key, Stale::Accept).await?;
        if entry.version().0 != cas {
            return None;
        }
        let hit = Hit::whole_body(store, entry, tier);
        let reader = hit.range(self.at..hit.len()).await.ok()?;
        Some(Box::new(Mutex::new(reader)))
    }

    async fn next_published(&mut self) -> Result<Option<Bytes>, FollowError> {
        let Some(reader) = &mut self.published else { return Err(FollowError::Lost) };
        reader.get_mut().next_chunk().await.map_err(|_| FollowError::Lost)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.feed.left();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_may_be_shared_and_sent() {
        fn is_shared<T: Send + Sync>() {}
        is_shared::<Follower>();
    }
}
