//! Index, accounts of regions and copies in RAM as one. Owns that index and accounts say the same: an index
//! entry comes and goes together with its bytes in the account of its region, under its bucket lock.

use std::ops::Deref;
use std::sync::Arc;

use crate::format::Layout;
use crate::store::index::word::{Location, SizeClass, Word};
use crate::store::index::{Index, Locked};
use crate::store::ram_tier::Resident;
use crate::store::region::row::Region;
use crate::store::region::table::RegionTable;

/// What there is of entries in memory.
pub(super) struct Catalog {
    /// To be read. Recovery alone fills it by itself, and the accounts beside it.
    pub(super) index: Index,
    pub(super) regions: Arc<RegionTable>,
    pub(super) resident: Arc<dyn Resident>,
    layout: Layout,
}

/// The index entries of one bucket, locked. Reclaim counts on it that no index entry means nothing alive.
pub(super) struct Bucket<'a> {
    entries: Locked<'a>,
    catalog: &'a Catalog,
}

impl Catalog {
    /// Without entries.
    pub fn new(regions: Arc<RegionTable>, resident: Arc<dyn Resident>, layout: Layout) -> Catalog {
        Catalog { index: Index::new(), regions, resident, layout }
    }

    /// Locks the bucket of a key; see [`Index::lock`].
    #[inline]
    pub fn lock(&self, key_hash: u64) -> Bucket<'_> {
        Bucket { entries: self.index.lock(key_hash), catalog: self }
    }

    /// Removes every index entry of a shard that points into `region`; gives their number.
    pub fn sweep_shard(&self, shard: usize, region: u32) -> usize {
        self.index.sweep_shard(shard, |word| {
            let is_there = word.location().split(&self.layout).0 == region;
            if is_there {
                self.uncount(word);
            }
            is_there
        })
    }

    #[inline]
    fn uncount(&self, word: Word) {
        let (region, _) = word.location().split(&self.layout);
        if let Some(row) = self.regions.get(region) {
            row.sub_live(word.class().len_max());
        }
    }
}

impl Bucket<'_> {
    /// Adds the index entry of a slot in the region with this account.
    #[inline]
    pub fn insert(&mut self, row: &Region, location: Location, class: SizeClass) {
        row.add_live(class.len_max());
        self.entries.insert(location, class);
    }

    /// Adds the index entry of what is in RAM only, in no region.
    pub fn insert_in_ram(&mut self, location: Location, class: SizeClass) {
        self.entries.insert(location, class);
    }

    /// Removes the index entry with exactly this location.
    #[inline]
    pub fn remove(&mut self, location: Location) -> Option<Word> {
        let removed = self.entries.remove(location);
        if let Some(word) = removed {
            self.catalog.uncount(word);
        }
        removed
    }

    /// Marks the index entry with this location as hit.
    pub fn mark_hit(&mut self, location: Location) {
        self.entries.mark_hit(location);
    }

    /// Forgets that it was.
    pub fn clear_hit(&mut self, location: Location) {
        self.entries.clear_hit(location);
    }
}

impl<'a> Deref for Bucket<'a> {
    type Target = Locked<'a>;

    #[inline]
    fn deref(&self) -> &Locked<'a> {
        &self.entries
    }
}
