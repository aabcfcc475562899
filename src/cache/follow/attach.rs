//! Attaching to a store in progress by its key.

use super::follower::Follower;
use crate::cache::Cache;

impl Cache {
    /// Follows the newest store in progress of a key, from the first byte of its body on. `None` if there is
    /// none that was begun with [`follow`](crate::StoreOptions::follow), or the key was purged since: a store
    /// whose end is known is not in progress any more, and what it published, lookups find.
    #[must_use]
    pub fn follow(&self, key: &[u8]) -> Option<Follower> {
        self.inner.feeds.newest(key).map(Follower::new)
    }
}

#[cfg(test)]
#[cfg(feature = "daemon")]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::cache::follow::feed::{About, Feed, Look};
    use crate::clock::{Clock, Timestamp};
    use crate::fair_memory::FairMemory;

    /// What two threads do that come to one buffer at one time.
    #[tokio::test]
    async fn a_piece_is_not_taken_from_the_slice_after_the_one_that_was_looked_at() {
        let cache = Cache::simulated(Clock::manual(Timestamp(1_000_000))).await;
        let slice = cache.device_store().layout().slice_size as usize;
        let memory = FairMemory::new(10 << 20, slice, Duration::from_secs(3));
        let mut held = memory.hold(slice);
        let about = About {
            key: b"key".to_vec(),
            metadata: Bytes::new(),
            tags: Vec::new(),
            lifetime: cache.lifetime(None, Duration::ZERO),
            len_hint: None,
        };
        let store = cache.device_store().clone();
        let feed = Feed::new(about, store, (memory.clone(), held.window()));
        held.stage(&vec![1; slice]).await.unwrap();
        feed.grown(slice as u64);
        let Look::Present { start, piece } = feed.look(10) else { panic!("it is in the buffer") };
        assert!(feed.copy(start, &piece).is_some_and(|bytes| bytes[0] == 1));
        let buffer = held.take().unwrap();
        feed.taken(&buffer, false);
        assert_eq!(feed.copy(start, &piece), None);
        feed.stored(|| None);
        held.begin_anew(buffer, slice);
        held.stage(&vec![2; slice]).await.unwrap();
        assert_eq!(feed.copy(start, &piece), None, "these are of the next slice");
    }
}
