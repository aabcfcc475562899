//! The RAM tier: copies of hot entries, bounded in bytes. Reached only with a place from the
//! index, so a copy of a dead entry is never served; evicts by the library's scan-resistant
//! policy (a Clock-PRO close to S3-FIFO).

use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache as QuickCache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::store::{Entry, Place, Resident};

/// Bytes that map and policy take per entry, besides the entry itself: key, 21 bytes of
/// bookkeeping and the ghosts, at the library's load factor.
const OVERHEAD: u64 = 100;
/// A full tier admits an entry of `weight` bytes with probability `HALF / (HALF + weight)`, and at least
/// one in `HEAVIEST_TAKEN_ONE_IN`. A heavy entry displaces many others, so it must be asked for often
/// (docs/measurements/servers.md).
const HALF_TAKEN_WEIGHT: u64 = 64 << 10;
const HEAVIEST_TAKEN_ONE_IN: u64 = 4;
/// Mean weight that the map is first sized for; the map grows if entries are smaller.
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

/// A byte-bounded, scan-resistant cache of entries. When it is full, chance decides whether a heavy
/// entry is admitted.
pub(super) struct RamTier {
    cache: QuickCache<Place, Entry, ByBytes, DefaultHashBuilder, GiveBack>,
    /// Bytes certainly free: all at first, none after an eviction, plus what was removed since.
    room: AtomicU64,
    /// Random draws made so far, one per admission decided by chance.
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
        RamTier { cache, room: AtomicU64::new(bytes), draws: AtomicU64::new(0) }
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

/// A pseudo-random number determined by `number` (SplitMix64, Steele et al. 2014).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Resident for RamTier {
    fn admits(&self, weight: u64) -> bool {
        if weight <= self.room.load(Ordering::Relaxed) {
            return true;
        }
        let total = HALF_TAKEN_WEIGHT.saturating_add(weight);
        let total = total.min(HEAVIEST_TAKEN_ONE_IN * HALF_TAKEN_WEIGHT);
        mix(self.draws.fetch_add(1, Ordering::Relaxed)) % total < HALF_TAKEN_WEIGHT
    }

    fn get(&self, place: Place) -> Option<Entry> {
        self.cache.get(&place)
    }

    fn insert(&self, entry: Entry) -> Vec<Entry> {
        let (place, weight) = (entry.place(), ByBytes.weight(&entry.place(), &entry));
        let mut evicted = Vec::new();
        self.cache.insert_with_lifecycle(place, entry, &mut evicted);
        let taken = match &evicted[..] {
            [] => weight,
            // An entry too heavy for the tier takes no room.
            [refused] if refused.place() == place => 0,
            _ => u64::MAX,
        };
        let spend = |room: u64| Some(room.saturating_sub(taken));
        let _ = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
        evicted
    }

    fn remove(&self, place: Place) {
        if let Some((_, entry)) = self.cache.remove(&place) {
            self.room.fetch_add(ByBytes.weight(&place, &entry), Ordering::Relaxed);
        }
    }

    fn is_on(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a thousand entries of `weight` bytes a full tier takes.
    fn taken(weight: u64) -> usize {
        let tier = RamTier::new(1 << 20);
        tier.room.store(0, Ordering::Relaxed);
        (0..1000).filter(|_| tier.admits(weight)).count()
    }

    #[test]
    fn the_heavier_an_entry_the_more_often_it_has_to_be_offered() {
        let expected = [(400, 994), (16 << 10, 800), (64 << 10, 500), (128 << 10, 333)];
        for (weight, share) in expected {
            assert!(taken(weight).abs_diff(share) < 50, "{} with {weight} B", taken(weight));
        }
        for weight in [192 << 10, 1 << 20, u64::MAX] {
            assert!(taken(weight).abs_diff(250) < 50, "{} with {weight} B", taken(weight));
        }
    }

    #[test]
    fn what_there_is_room_for_is_taken() {
        let tier = RamTier::new(1 << 20);
        assert!((0..1000).all(|_| tier.admits(1 << 20)));
    }
}
