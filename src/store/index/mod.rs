//! The index: key hash to slot location, without keys. Owns the entries and grows by itself; never does
//! I/O and never compares keys.
//!
//! The low hash bits choose one of 4096 shards, each with a lock. The next 25 bits are kept with the
//! entry: they choose its two buckets and tell it from others.

mod bucket;
mod dump;
pub(super) mod index_entry;
pub(super) mod key_hash;
pub(super) mod limit;
mod shard;
mod table;
#[cfg(test)]
mod tests;
pub(super) mod unverified;

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::store::index::index_entry::{IndexEntry, Location, SizeClass};
use bucket::Print;
use shard::Shard;

pub use shard::Candidates;

const SHARD_BITS: u32 = 12;

fn print_of(key_hash: u64) -> Print {
    Print::of(key_hash >> SHARD_BITS)
}

/// A shard on cache lines of its own.
#[derive(Default)]
#[repr(align(64))]
struct Slot(Mutex<Shard>);

/// An entry for bulk insertion.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    /// Hash of the key.
    pub key_hash: u64,
    /// Place of its slot.
    pub location: Location,
    /// Bound of the slot's length.
    pub class: SizeClass,
}

/// The index of one device.
pub struct Index {
    shards: Box<[Slot]>,
    /// Entries in all shards.
    len: AtomicUsize,
}

/// One locked shard: a decision under this lock is atomic for every key in the shard.
pub struct Locked<'a> {
    shard: MutexGuard<'a, Shard>,
    key_hash: u64,
    len: &'a AtomicUsize,
}

impl Index {
    /// An empty index of 256 KiB.
    #[must_use]
    pub fn new() -> Index {
        let shards = (0..1 << SHARD_BITS).map(|_| Slot::default()).collect();
        Index { shards, len: AtomicUsize::new(0) }
    }

    /// Locks the shard of a key. Hold it for a few cache lines' work, never across I/O.
    #[must_use]
    pub fn lock(&self, key_hash: u64) -> Locked<'_> {
        let shard = self.shards[Index::shard_of(key_hash)].0.lock();
        Locked { shard, key_hash, len: &self.len }
    }

    /// Removes every entry of one shard for which `drop` is true; gives their number.
    pub fn sweep_shard(&self, shard: usize, mut drop: impl FnMut(IndexEntry) -> bool) -> usize {
        let dropped = self.shards[shard].0.lock().retain(|entry| !drop(entry));
        self.len.fetch_sub(dropped, Ordering::Relaxed);
        dropped
    }

    /// The shard of a key.
    #[must_use]
    pub fn shard_of(key_hash: u64) -> usize {
        usize::try_from(key_hash & ((1 << SHARD_BITS) - 1)).unwrap_or(0)
    }

    /// Adds many entries to one shard under one lock.
    ///
    /// # Panics
    /// Panics if a key belongs to another shard.
    pub fn insert_many(&self, shard: usize, entries: &[Fresh]) {
        let Some(first) = entries.first() else { return };
        let mut locked = self.shards[shard].0.lock();
        locked.reserve(entries.len(), print_of(first.key_hash));
        for fresh in entries {
            assert_eq!(Index::shard_of(fresh.key_hash), shard, "an entry of another shard");
            let print = print_of(fresh.key_hash);
            locked.insert(print, IndexEntry::new(fresh.location, fresh.class, print.entry_bits()));
        }
        self.len.fetch_add(entries.len(), Ordering::Relaxed);
    }

    /// Number of shards, for [`Index::sweep_shard`].
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory the index has allocated.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let heap: usize = self.shards.iter().map(|shard| shard.0.lock().heap_bytes()).sum();
        size_of_val(&*self.shards) + heap
    }
}

impl Default for Index {
    fn default() -> Self {
        Index::new()
    }
}

impl Locked<'_> {
    fn print(&self) -> Print {
        print_of(self.key_hash)
    }

    /// Entries whose fingerprint matches the key, hit or not.
    #[must_use]
    pub fn candidates(&self) -> Candidates {
        self.shard.candidates(self.print())
    }

    /// Shows each entry whose fingerprint matches the key, hit or not.
    pub fn each_candidate(&self, show: impl FnMut(IndexEntry)) {
        self.shard.each_candidate(self.print(), show);
    }

    /// Whether the key has an entry with exactly this location.
    #[must_use]
    pub fn contains(&self, location: Location) -> bool {
        self.shard.find(self.print(), location).is_some()
    }

    /// The entry with exactly this location.
    #[must_use]
    pub fn get(&self, location: Location) -> Option<IndexEntry> {
        self.shard.find(self.print(), location).map(|spot| self.shard.entry(spot))
    }

    /// Adds an entry for the key.
    pub fn insert(&mut self, location: Location, class: SizeClass) {
        let print = self.print();
        self.shard.insert(print, IndexEntry::new(location, class, print.entry_bits()));
        self.len.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes the entry with exactly this location.
    pub fn remove(&mut self, location: Location) -> Option<IndexEntry> {
        let print = self.print();
        let removed = self.shard.remove(print, location)?;
        self.len.fetch_sub(1, Ordering::Relaxed);
        Some(removed)
    }

    /// Sets the hit flag of the entry with this location.
    pub fn mark_hit(&mut self, location: Location) {
        if let Some(spot) = self.shard.find(self.print(), location) {
            let entry = self.shard.entry(spot).hit();
            self.shard.set_entry(spot, entry);
        }
    }

    /// Clears the hit flag of the entry with this location.
    pub fn clear_hit(&mut self, location: Location) {
        if let Some(spot) = self.shard.find(self.print(), location) {
            let entry = self.shard.entry(spot).not_hit();
            self.shard.set_entry(spot, entry);
        }
    }
}
