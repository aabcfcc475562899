//! Stores in progress, so that a purge that comes while one runs is not undone by it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;

#[derive(Default)]
struct Running {
    count: usize,
    purged_at: u64,
}

/// All streamed stores in progress of one device, by key hash.
#[derive(Default)]
pub(in crate::store) struct Fills {
    running: DashMap<u64, Running>,
    /// How many there are, or are about to be: purges of a single key need no look where there is none.
    count: AtomicUsize,
    purges: AtomicU64,
    all_purged_at: AtomicU64,
}

/// One store in progress.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    key_hash: u64,
    began_at: u64,
}

impl Fills {
    /// A store of the key begins.
    pub fn begin(&self, key_hash: u64) -> Fill {
        self.count.fetch_add(1, Ordering::SeqCst);
        let mut running = self.running.entry(key_hash).or_default();
        running.count += 1;
        Fill { key_hash, began_at: self.purges.load(Ordering::SeqCst) }
    }

    /// A store of the key ended, well or not.
    pub fn end(&self, fill: Fill) {
        self.running.remove_if_mut(&fill.key_hash, |_, running| {
            running.count -= 1;
            running.count == 0
        });
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    /// The key is purged.
    pub fn purge(&self, key_hash: u64) {
        if self.count.load(Ordering::SeqCst) > 0
            && let Some(mut running) = self.running.get_mut(&key_hash)
        {
            running.purged_at = self.purges.fetch_add(1, Ordering::SeqCst) + 1;
        }
    }

    /// Everything is purged.
    pub fn purge_all(&self) {
        let now = self.purges.fetch_add(1, Ordering::SeqCst) + 1;
        self.all_purged_at.fetch_max(now, Ordering::SeqCst);
    }

    /// Whether a purge that covers the key came after the store began.
    pub fn is_purged(&self, fill: Fill) -> bool {
        let own = self.running.get(&fill.key_hash).map_or(0, |running| running.purged_at);
        own.max(self.all_purged_at.load(Ordering::SeqCst)) > fill.began_at
    }

    /// Number of stores in progress.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.running.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_purges_after_the_beginning_count() {
        let fills = Fills::default();
        let first = fills.begin(1);
        fills.purge(1);
        let second = fills.begin(1);
        assert!(fills.is_purged(first) && !fills.is_purged(second));
        fills.end(first);
        fills.purge_all();
        assert!(fills.is_purged(second));
        fills.end(second);
        assert_eq!((fills.len(), fills.count.load(Ordering::SeqCst)), (0, 0));
    }
}
