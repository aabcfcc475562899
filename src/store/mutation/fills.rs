//! Stores in progress: a purge that comes meanwhile must prevent their publication.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;

#[derive(Default)]
struct Running {
    count: usize,
    purged_at: u64,
    /// When it was made stale.
    expired_at: u64,
}

/// All streamed stores in progress on one device, by key hash.
#[derive(Default)]
pub(in crate::store) struct Fills {
    running: DashMap<u64, Running>,
    /// Number of stores in progress or about to begin: at 0, a purge of one key need not look for them.
    count: AtomicUsize,
    purges: AtomicU64,
    all_purged_at: AtomicU64,
    /// How many stores in progress began after the purge record of each number.
    seen: Mutex<BTreeMap<u64, usize>>,
}

/// One store in progress; it ends when this is dropped.
pub struct Fill {
    fills: Arc<Fills>,
    key_hash: u64,
    /// Another key whose purges count too.
    also: Option<u64>,
    began_at: u64,
    /// The purge that was its own.
    own_at: u64,
    /// Number of the last purge record before it.
    seen: u64,
}

impl Fills {
    /// Begins a store of the key; `last_record` gives the number of the last purge record.
    pub fn begin(self: &Arc<Self>, key_hash: u64, last_record: impl FnOnce() -> u64) -> Fill {
        self.count.fetch_add(1, Ordering::SeqCst);
        let seen = {
            let mut all_seen = self.seen.lock();
            // Under the lock: no record after this is forgotten.
            let seen = last_record();
            *all_seen.entry(seen).or_default() += 1;
            seen
        };
        self.running.entry(key_hash).or_default().count += 1;
        let began_at = self.purges.load(Ordering::SeqCst);
        Fill { fills: Arc::clone(self), key_hash, also: None, began_at, own_at: 0, seen }
    }

    /// Begins a store of another key that counts as begun when `first` did. Purges of the key of `first` count for it
    /// too.
    pub fn begin_with(self: &Arc<Self>, key_hash: u64, first: &Fill) -> Fill {
        let mut fill = self.begin(key_hash, || first.seen);
        self.running.entry(first.key_hash).or_default().count += 1;
        fill.also = Some(first.key_hash);
        fill.began_at = first.began_at;
        fill
    }

    /// Notes a purge of the key.
    pub fn purge(&self, key_hash: u64) {
        if self.count.load(Ordering::SeqCst) > 0
            && let Some(mut running) = self.running.get_mut(&key_hash)
        {
            running.purged_at = self.purges.fetch_add(1, Ordering::SeqCst) + 1;
        }
    }

    /// Notes a purge of the key of `own` for all but that; false if one covers that too.
    pub fn purge_others(&self, own: &mut Fill) -> bool {
        if own.is_purged() {
            return false;
        }
        let Some(mut running) = self.running.get_mut(&own.key_hash) else { return false };
        // Nobody notes one from here on.
        if running.purged_at > own.began_at.max(own.own_at) {
            return false;
        }
        running.purged_at = self.purges.fetch_add(1, Ordering::SeqCst) + 1;
        own.own_at = running.purged_at;
        true
    }

    /// Notes that the key is to be stale.
    pub fn expire(&self, key_hash: u64) {
        if self.count.load(Ordering::SeqCst) > 0
            && let Some(mut running) = self.running.get_mut(&key_hash)
        {
            running.expired_at = self.purges.fetch_add(1, Ordering::SeqCst) + 1;
        }
    }

    /// Notes a purge of everything.
    pub fn purge_all(&self) {
        let now = self.purges.fetch_add(1, Ordering::SeqCst) + 1;
        self.all_purged_at.fetch_max(now, Ordering::SeqCst);
    }

    /// All stores in progress began after the purge record of this number.
    pub fn oldest_seen(&self) -> u64 {
        self.seen.lock().first_key_value().map_or(u64::MAX, |(seen, _)| *seen)
    }

    /// Number of stores in progress.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.running.len()
    }
}

impl Fill {
    /// Whether a purge that covers the key came after the store began.
    pub(in crate::store) fn is_purged(&self) -> bool {
        let of = |key_hash| self.last_of(key_hash, |running| running.purged_at);
        of(self.key_hash) > self.began_at.max(self.own_at)
            || self.also.map_or(0, of) > self.began_at
            || self.fills.all_purged_at.load(Ordering::SeqCst) > self.began_at
    }

    /// Whether the key was made stale after the store began.
    pub(in crate::store) fn is_expired(&self) -> bool {
        let of = |key_hash| self.last_of(key_hash, |running| running.expired_at);
        of(self.key_hash).max(self.also.map_or(0, of)) > self.began_at
    }

    /// The last time that something happened to a key.
    fn last_of(&self, key_hash: u64, when: impl Fn(&Running) -> u64) -> u64 {
        self.fills.running.get(&key_hash).map_or(0, |running| when(&running))
    }

    /// Number of the last purge record before it began.
    pub(in crate::store) fn seen(&self) -> u64 {
        self.seen
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        for key_hash in [Some(self.key_hash), self.also].into_iter().flatten() {
            self.fills.running.remove_if_mut(&key_hash, |_, running| {
                running.count -= 1;
                running.count == 0
            });
        }
        self.fills.count.fetch_sub(1, Ordering::SeqCst);
        let mut all_seen = self.fills.seen.lock();
        if let Some(count) = all_seen.get_mut(&self.seen) {
            *count -= 1;
            if *count == 0 {
                all_seen.remove(&self.seen);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_key_counts_from_the_first_on() {
        let fills = Arc::new(Fills::default());
        let first = fills.begin(1, || 10);
        assert!(!fills.begin_with(2, &first).is_purged());
        fills.purge_all();
        let second = fills.begin_with(2, &first);
        assert!(second.is_purged() && second.seen() == 10);
        assert!(!fills.begin(2, || 11).is_purged());
        let third = fills.begin(3, || 11);
        let [other, stale] = [4, 5].map(|key_hash| fills.begin_with(key_hash, &third));
        drop(third);
        assert!(!other.is_purged() && !other.is_expired());
        fills.expire(3);
        assert!(!other.is_purged() && other.is_expired());
        drop(stale);
        fills.purge(3);
        assert!(other.is_purged(), "its first key was purged");
        drop((first, second, other));
        assert_eq!(fills.len(), 0);
    }

    #[test]
    fn a_purge_of_others_leaves_its_own() {
        let fills = Arc::new(Fills::default());
        let (other, mut own) = (fills.begin(1, || 10), fills.begin(1, || 10));
        assert!(fills.purge_others(&mut own));
        assert!(other.is_purged() && !own.is_purged());
        assert!(fills.purge_others(&mut own) && !own.is_purged(), "once more");
        fills.purge(1);
        assert!(own.is_purged() && !fills.purge_others(&mut own), "another purge covers it");
        let mut own = fills.begin(1, || 10);
        fills.purge_all();
        assert!(!fills.purge_others(&mut own) && own.is_purged());
    }

    #[test]
    fn only_purges_after_the_beginning_count() {
        let fills = Arc::new(Fills::default());
        let first = fills.begin(1, || 10);
        fills.purge(1);
        let second = fills.begin(1, || 11);
        assert_eq!(fills.oldest_seen(), 10);
        assert!(first.is_purged() && !second.is_purged());
        fills.expire(1);
        let third = fills.begin(1, || 11);
        assert!(second.is_expired() && !second.is_purged() && !third.is_expired());
        drop((first, third));
        assert_eq!(fills.oldest_seen(), 11);
        fills.purge_all();
        assert!(second.is_purged());
        drop(second);
        assert_eq!((fills.len(), fills.count.load(Ordering::SeqCst)), (0, 0));
        assert_eq!(fills.oldest_seen(), u64::MAX);
    }
}
