//! The RAM tier: copies of hot entries, bounded in bytes. Reached only with a place from the
//! index, so a copy of a dead entry is never served; evicts by the library's scan-resistant
//! policy (a Clock-PRO close to S3-FIFO).

use quick_cache::sync::Cache as QuickCache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::store::{Entry, Place, Resident};

/// Bytes that map and policy take per entry, besides the entry itself: key, 21 bytes of
/// bookkeeping and the ghosts, at the library's load factor.
const OVERHEAD: u64 = 100;
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
        RamTier { cache }
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

impl Resident for RamTier {
    fn get(&self, place: Place) -> Option<Entry> {
        self.cache.get(&place)
    }

    fn insert(&self, entry: Entry) -> Vec<Entry> {
        let mut evicted = Vec::new();
        self.cache.insert_with_lifecycle(entry.place(), entry, &mut evicted);
        evicted
    }

    fn remove(&self, place: Place) {
        self.cache.remove(&place);
    }

    fn is_on(&self) -> bool {
        true
    }
}
