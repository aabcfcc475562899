//! How many entries fit into the index's part of memory. Pure.

use crate::format::FooterRecord;

/// Bytes that an entry takes at most: a cache line for seven at the load below which a shard shrinks, and
/// something for its pieces and for entries that find no place.
const ENTRY_BYTES_MAX: u64 = 12;
/// Bytes that a shard takes besides: a cache line for itself, another for the bucket that is not full, and
/// where its pieces are.
const SHARD_BYTES: u64 = 160;
/// The open regions are two, of entries and of purges.
const OPEN_REGIONS: u64 = 2;
/// What the footer of each is made of takes at most one part in this many; entries have the rest.
const FOOTER_SHARE: u64 = 8;
/// Entries are in at least this many regions, the open one among them.
const REGIONS_MIN: usize = 4;
/// Reclaim begins when less than one part in this many is left.
const HEADROOM_SHARE: usize = 16;

/// Limits that follow from a number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexLimit {
    bytes: u64,
    /// Entries at most.
    pub entries: usize,
    /// Entries of one region at most.
    pub records: usize,
    /// Bytes of what the footer of one region is made of, at most.
    pub footer: u64,
}

impl IndexLimit {
    /// The limits for an index of `bytes` bytes, what the open regions hold included.
    #[must_use]
    pub fn of(bytes: u64) -> IndexLimit {
        let count = |bytes: u64, of: u64| usize::try_from(bytes / of).unwrap_or(usize::MAX).max(1);
        let footer = bytes / FOOTER_SHARE;
        let rest = bytes - OPEN_REGIONS * footer;
        let entries = count(rest.saturating_sub(SHARD_BYTES << super::SHARD_BITS), ENTRY_BYTES_MAX);
        IndexLimit {
            bytes,
            entries,
            // Only a small index has fewer entries than a region may hold. Were all of them in the open region,
            // none could be freed.
            records: entries.div_ceil(REGIONS_MIN),
            footer: footer.max(size_of::<FooterRecord>() as u64),
        }
    }

    /// The bytes that the limits are for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether an index of `len` entries takes no more.
    #[must_use]
    pub fn is_full(&self, len: usize) -> bool {
        len >= self.entries
    }

    /// Most entries that a start takes over from a snapshot: a few more than there should be, since stores
    /// side by side may go beyond the limit by some.
    #[must_use]
    pub fn entries_loaded_max(&self) -> u64 {
        (self.entries + self.entries / HEADROOM_SHARE) as u64
    }

    /// Whether an index of `len` entries is nearly full: regions must be freed.
    #[must_use]
    pub fn is_short(&self, len: usize) -> bool {
        len >= self.entries - self.entries / HEADROOM_SHARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::index::Index;
    use crate::store::index::index_entry::{Location, SizeClass};

    #[test]
    fn a_full_index_fits_into_its_bytes_however_it_became_full() {
        for bytes in [2 << 20, 8 << 20] {
            let limit = IndexLimit::of(bytes);
            let (index, mut worst, mut number) = (Index::new(), 0, 0);
            let mut random = fastrand::Rng::with_seed(7);
            let mut keys = Vec::new();
            for _ in 0..3 {
                while !limit.is_full(index.len()) {
                    let key_hash = random.u64(..);
                    number += 1;
                    index.lock(key_hash).insert(Location(number), SizeClass::of(64));
                    keys.push((key_hash, Location(number)));
                    if number.is_multiple_of(4096) {
                        worst = worst.max(index.bytes() as u64);
                    }
                }
                // A third goes, as when regions are freed.
                random.shuffle(&mut keys);
                for (key_hash, location) in keys.split_off(keys.len() / 3 * 2) {
                    assert!(index.lock(key_hash).remove(location).is_some());
                }
            }
            let total = worst + OPEN_REGIONS * limit.footer;
            println!("{total} of {bytes} bytes, {} entries", limit.entries);
            assert!(total <= bytes, "{total} of {bytes} bytes");
            assert!(total > bytes / 10 * 6, "{total} of {bytes} bytes");
        }
    }
}
