//! The writer's end of a feed. Owns that followers learn of every end, also where the writer is just dropped.

use std::sync::Arc;

use super::error::FollowError;
use super::feed::Feed;
use super::feeds::Feeds;
use super::follower::Follower;
use crate::cache::leases::SharedLease;
use crate::store::{Fill, StoreError, Stored, Ticket, Upload};

/// The writer's end of a feed. Dropped before the body was whole, its followers get an error.
pub(in crate::cache) struct Leader {
    feed: Arc<Feed>,
    feeds: Arc<Feeds>,
    fill: Arc<Fill>,
}

impl Leader {
    /// Lets others follow, or wait for its end.
    pub fn begin(feed: Feed, feeds: &Arc<Feeds>, fill: &Arc<Fill>, lease: &SharedLease) -> Leader {
        let feed = Arc::new(feed);
        feeds.add(&feed, fill, lease);
        Leader { feed, feeds: Arc::clone(feeds), fill: Arc::clone(fill) }
    }

    /// One more follower, unless the key was purged.
    pub fn is_followed(&self) -> bool {
        self.feed.is_followed()
    }

    pub fn follower(&self) -> Option<Follower> {
        (!self.feed.is_purged(&self.fill)).then(|| Follower::new(Arc::clone(&self.feed)))
    }

    /// So many bytes have come, and are in the buffer or in slices.
    pub fn grown(&self, len: u64) {
        self.feed.grown(len);
    }

    /// The buffer was taken to be stored, with these bytes in it.
    pub fn taken(&self, buffer: &[u8]) {
        self.feed.taken(buffer, false);
    }

    /// What was taken is a slice of the upload, and the buffer may be used again.
    pub fn stored(&self, upload: &Upload) {
        self.feed.stored(|| upload.object());
    }

    /// All bytes have come, and the rest of them was taken: whatever becomes of the entry, followers have the
    /// body.
    pub fn came_whole(&self, rest: &[u8]) {
        self.feed.taken(rest, true);
        self.feed.came_whole();
    }

    /// The store failed.
    pub fn fail(&self, error: &StoreError) {
        self.feed.fail(match error {
            StoreError::Incomplete => FollowError::GivenUp,
            error => FollowError::Failed(error.clone()),
        });
    }

    /// The store ended so. Nobody attaches any more.
    pub fn settle(self, published: &Result<(Stored, Ticket), StoreError>) {
        match published {
            Ok((Stored::Yes(cas), _)) => self.feed.published(*cas),
            Ok(_) => {}
            Err(error) => self.fail(error),
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.feeds.remove(&self.feed);
        self.feed.writer_left();
    }
}
