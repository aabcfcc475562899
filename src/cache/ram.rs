//! The RAM tier: copies of hot entries, bounded in bytes. Reached only with a place from the
//! index, so a copy of a dead entry is never served; evicts by the library's scan-resistant
//! policy (a Clock-PRO close to S3-FIFO).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quick_cache::sync::Cache as QuickCache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::store::{Entry, Place, Resident};

/// Bytes that map and policy take per entry, besides the entry itself: key, 21 bytes of
/// bookkeeping and the ghosts, at the library's load factor.
const OVERHEAD: u64 = 100;
/// Length in bytes of an entry that a full tier takes every second time it is offered, and the share
/// of the times it takes the longest. Large entries cost the room of many others, so they come
/// in only if they are asked for often; what is asked for once stays out (docs/performance.md).
const HALF_TAKEN_LEN: u64 = 64 << 10;
const SHARE_MIN: u64 = 8;
/// Mean entry that the map is first sized for; it grows for smaller ones.
const EXPECTED_ENTRY: u64 = 4096;

#[derive(Clone)]
struct ByBytes;

impl Weighter<Place, Entry> for ByBytes {
    fn weight(&self, _: &Place, entry: &Entry) -> u64 {
        entry.weight() as u64 + OVERHEAD
    }
}

/// Hands evicted entries back to the caller of the insertion.
#[derive(Clone)]
struct GiveBack;

impl Lifecycle<Place, Entry> for GiveBack {
    type RequestState = Vec<Entry>;

    fn on_evict(&self, evicted: &mut Vec<Entry>, _: Place, entry: Entry) {
        evicted.push(entry);
    }
}

/// A byte-bounded, scan-resistant cache of entries.
pub(super) struct RamTier {
    cache: QuickCache<Place, Entry, ByBytes, DefaultHashBuilder, GiveBack>,
    /// Whether the last change was that an entry had to go for another.
    full: AtomicBool,
    /// Draws made so far by which a full tier chooses.
    draws: AtomicU64,
}

impl RamTier {
    /// A tier of at most `bytes` bytes.
    pub fn new(bytes: u64) -> RamTier {
        let items = usize::try_from(bytes / EXPECTED_ENTRY).unwrap_or(usize::MAX).max(64);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(bytes)
            // An entry must fit a shard; slices are about 1 MiB.
            .shards(usize::try_from(bytes >> 25).unwrap_or(64).clamp(1, 64))
            .build();
        let cache = match options {
            Ok(options) => {
                QuickCache::with_options(options, ByBytes, DefaultHashBuilder::default(), GiveBack)
            }
            Err(_) => {
                QuickCache::with(items, bytes, ByBytes, DefaultHashBuilder::default(), GiveBack)
            }
        };
        RamTier { cache, full: AtomicBool::new(false), draws: AtomicU64::new(0) }
    }

    /// Bytes kept now.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// Entries kept now.
    pub fn entries(&self) -> u64 {
        self.cache.len() as u64
    }
}

/// A number that looks random, the same one for the same `number` (SplitMix64, Steele et al. 2014).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Resident for RamTier {
    fn admits(&self, len: u64) -> bool {
        if !self.full.load(Ordering::Relaxed) {
            return true;
        }
        let total = (HALF_TAKEN_LEN + len).min(SHARE_MIN * HALF_TAKEN_LEN);
        mix(self.draws.fetch_add(1, Ordering::Relaxed)) % total < HALF_TAKEN_LEN
    }

    fn get(&self, place: Place) -> Option<Entry> {
        self.cache.get(&place)
    }

    fn insert(&self, entry: Entry) -> Vec<Entry> {
        let mut evicted = Vec::new();
        self.cache.insert_with_lifecycle(entry.place(), entry, &mut evicted);
        if !evicted.is_empty() {
            self.full.store(true, Ordering::Relaxed);
        }
        evicted
    }

    fn remove(&self, place: Place) {
        if self.cache.remove(&place).is_some() {
            self.full.store(false, Ordering::Relaxed);
        }
    }

    fn is_on(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a thousand entries of `len` bytes a full tier takes.
    fn taken(len: u64) -> usize {
        let tier = RamTier::new(1 << 20);
        tier.full.store(true, Ordering::Relaxed);
        (0..1000).filter(|_| tier.admits(len)).count()
    }

    #[test]
    fn the_longer_an_entry_the_more_often_it_has_to_be_offered() {
        let expected = [(400, 994), (16 << 10, 800), (64 << 10, 500), (256 << 10, 200)];
        for (len, share) in expected {
            assert!(taken(len).abs_diff(share) < 50, "{} of 1000 with {len} B", taken(len));
        }
        for len in [448 << 10, 1 << 20, u64::MAX - HALF_TAKEN_LEN] {
            assert!(taken(len).abs_diff(125) < 50, "{} of 1000 with {len} B", taken(len));
        }
    }

    #[test]
    fn a_tier_with_room_takes_everything() {
        let tier = RamTier::new(1 << 20);
        assert!((0..1000).all(|_| tier.admits(1 << 20)));
    }
}
