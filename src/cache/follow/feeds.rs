//! The stores in progress that may be followed, by key. Owns who may attach to one.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::feed::Feed;
use crate::cache::leases::SharedLease;
use crate::store::Fill;

/// The stores in progress that may be followed. Its lock is a leaf.
#[derive(Default)]
pub(in crate::cache) struct Feeds {
    /// Of each key the newest is last.
    of_key: Mutex<HashMap<Vec<u8>, Vec<Open>>>,
}

#[derive(Clone)]
struct Open {
    feed: Arc<Feed>,
    fill: Arc<Fill>,
    /// Who waits for what becomes of the store.
    lease: SharedLease,
}

impl Feeds {
    /// A store begins.
    pub fn add(&self, feed: &Arc<Feed>, fill: &Arc<Fill>, lease: &SharedLease) {
        let (feed, fill, lease) = (Arc::clone(feed), Arc::clone(fill), Arc::clone(lease));
        let key = feed.about.key.clone();
        self.of_key.lock().entry(key).or_default().push(Open { feed, fill, lease });
    }

    /// Nobody waits any more for stores of a key that was purged since they began.
    pub fn free_purged(&self, key: &[u8]) {
        let open = self.of_key.lock().get(key).cloned().unwrap_or_default();
        for Open { feed, fill, lease } in open {
            if feed.is_purged(&fill) {
                let held = lease.lock().take();
                drop(held);
            }
        }
    }

    /// A store ended: nobody attaches to it any more.
    pub fn remove(&self, feed: &Arc<Feed>) {
        let mut of_key = self.of_key.lock();
        let Some(open) = of_key.get_mut(&feed.about.key) else { return };
        // Dropped after the lock is released: it may be the last to have the body's memory.
        let at = open.iter().position(|open| Arc::ptr_eq(&open.feed, feed));
        let removed = at.map(|at| open.remove(at));
        if open.is_empty() {
            of_key.remove(&feed.about.key);
        }
        drop(of_key);
        drop(removed);
    }

    /// The newest store of a key that goes on, and of which the key was not purged since it began.
    pub fn newest(&self, key: &[u8]) -> Option<Arc<Feed>> {
        let open: Vec<_> = {
            let of_key = self.of_key.lock();
            let open = of_key.get(key)?.iter().rev();
            open.map(|Open { feed, fill, .. }| (Arc::clone(feed), Arc::clone(fill))).collect()
        };
        let goes_on =
            |(feed, fill): &(Arc<Feed>, Arc<Fill>)| !feed.has_failed() && !feed.is_purged(fill);
        open.into_iter().find(goes_on).map(|(feed, _)| feed)
    }
}
