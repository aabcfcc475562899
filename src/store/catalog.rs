//! Index, accounts of regions and copies in RAM as one. Owns that index and accounts say the same: an index
//! entry comes and goes together with its bytes in the account of its region, under its bucket lock.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::Layout;
use crate::store::entry::Entry;
use crate::store::index::index_entry::{IndexEntry, Location, SizeClass};
use crate::store::index::limit::IndexLimit;
use crate::store::index::{Index, Locked};
use crate::store::place::{DeviceNumber, Place};
use crate::store::ram_tier::Resident;
use crate::store::region::row::Region;
use crate::store::region::table::RegionTable;

/// What there is of entries in memory.
pub(super) struct Catalog {
    /// To be read. Recovery alone fills it by itself, and the accounts beside it.
    pub(super) index: Index,
    /// What the index may grow to.
    pub(super) limit: IndexLimit,
    pub(super) regions: Arc<RegionTable>,
    pub(super) resident: Arc<dyn Resident>,
    layout: Layout,
    device: DeviceNumber,
    /// The number of the last entry that was kept in RAM only; 0 before the first.
    last_in_ram: AtomicU64,
}

/// The index entries of one bucket, locked. Reclaim counts on it that no index entry means nothing alive.
pub(super) struct Bucket<'a> {
    entries: Locked<'a>,
    catalog: &'a Catalog,
}

impl Catalog {
    /// Without entries.
    pub fn new(
        regions: Arc<RegionTable>,
        resident: Arc<dyn Resident>,
        (layout, limit): (Layout, IndexLimit),
    ) -> Catalog {
        let device = regions.device();
        let last_in_ram = AtomicU64::new(0);
        Catalog { index: Index::new(), limit, regions, resident, layout, device, last_in_ram }
    }

    /// Locks the bucket of a key; see [`Index::lock`].
    #[inline]
    pub fn lock(&self, key_hash: u64) -> Bucket<'_> {
        Bucket { entries: self.index.lock(key_hash), catalog: self }
    }

    /// Whether the index takes no more entries.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.limit.is_full(self.index.len())
    }

    /// Whether the index is nearly full: regions must be freed.
    pub fn is_short(&self) -> bool {
        self.limit.is_short(self.index.len())
    }

    /// Removes every index entry of a shard that points into `region`; gives their number.
    pub fn sweep_shard(&self, shard: usize, region: u32) -> usize {
        self.index.sweep_shard(shard, |index_entry| {
            let is_there = index_entry.location().split(&self.layout).0 == region;
            if is_there {
                self.uncount(index_entry);
            }
            is_there
        })
    }

    /// Removes the index entries of a shard whose entries are in RAM only.
    pub fn sweep_in_ram(&self, shard: usize) {
        if self.last_in_ram.load(Ordering::Acquire) > 0 {
            self.index.sweep_shard(shard, |index_entry| index_entry.location().is_in_ram());
        }
    }

    /// The place that an index entry in a locked bucket names.
    #[inline]
    pub fn place_of(&self, bucket: &Locked<'_>, index_entry: IndexEntry) -> Place {
        let location = index_entry.location();
        if location.is_in_ram() {
            // If its location was given again since, nobody finds it any more.
            let number = location.number_in_ram(self.last_in_ram.load(Ordering::Acquire));
            return Place::in_ram(self.device, number);
        }
        let (region, _) = location.split(&self.layout);
        self.regions.generation_of(region).place_of(index_entry, bucket)
    }

    #[inline]
    fn uncount(&self, index_entry: IndexEntry) {
        let (region, _) = index_entry.location().split(&self.layout);
        if let Some(row) = self.regions.get(region) {
            row.sub_live(index_entry.class().len_max());
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

    /// Adds an entry that is in RAM only, and the index entry of it; gives those that were lost for it,
    /// whose index entries must go once the bucket is released.
    #[must_use]
    pub fn insert_in_ram(
        &mut self,
        class: SizeClass,
        entry_at: impl FnOnce(Place) -> Entry,
    ) -> Vec<Entry> {
        let catalog = self.catalog;
        let number = catalog.last_in_ram.fetch_add(1, Ordering::AcqRel) + 1;
        let place = Place::in_ram(catalog.device, number);
        let mut lost = catalog.resident.insert(entry_at(place));
        let put_out = lost.len();
        lost.retain(|entry| entry.place() != place);
        if lost.len() == put_out {
            self.entries.insert(place.location(), class);
        }
        lost
    }

    /// Removes the index entry with exactly this location.
    #[inline]
    pub fn remove(&mut self, location: Location) -> Option<IndexEntry> {
        let removed = self.entries.remove(location);
        if let Some(index_entry) = removed {
            self.catalog.uncount(index_entry);
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::device::SimDevice;
    use crate::store::formatting::FormatOptions;
    use crate::store::lookup::sought::Stale;
    use crate::store::mutation::request::{Condition, Lifetime, Value};
    use crate::store::options::Options;
    use crate::store::shared::Store;

    /// Keeps all that it is offered.
    #[derive(Default)]
    struct Everything(Mutex<HashMap<Place, Entry>>);

    impl Resident for Everything {
        fn admits(&self, _: u64) -> bool {
            true
        }

        fn get(&self, place: Place) -> Option<Entry> {
            self.0.lock().get(&place).cloned()
        }

        fn insert(&self, entry: Entry) -> Vec<Entry> {
            self.0.lock().insert(entry.place(), entry);
            Vec::new()
        }

        fn remove(&self, place: Place) {
            self.0.lock().remove(&place);
        }

        fn is_on(&self) -> bool {
            true
        }
    }

    /// A store on a device like all others that this makes.
    async fn open(tier: &Arc<Everything>, device_number: DeviceNumber) -> Store {
        let clock = Clock::manual(Timestamp(1_000_000));
        let sim = SimDevice::new(4 << 20, 4096);
        let format = FormatOptions { region_size: Some(256 << 10), ..FormatOptions::default() };
        Store::format(&sim.open(), &format, &clock).await.unwrap();
        let options = Options { device_number, ..Options::default() };
        let store = Store::open(sim.open(), options, clock, Arc::clone(tier) as _).await.unwrap();
        store.recovered().await;
        store
    }

    async fn put(store: &Store, key: &str, body: &[u8], ram_only: bool) {
        let stored_at = Timestamp(1_000_000);
        let end = stored_at.plus(Duration::from_secs(1000));
        let lifetime = Lifetime { stored_at, age_secs: 0, fresh_until: end, keep_until: end };
        let value = Value { metadata: b"", body, lifetime, tags: &[], ram_only };
        store.put(key.as_bytes(), &value, Condition::Always, None).await.unwrap();
    }

    async fn get(store: &Store, key: &str) -> Option<Vec<u8>> {
        store.lookup(key.as_bytes(), Stale::Refuse).await.map(|(entry, _)| entry.body().to_vec())
    }

    #[tokio::test(start_paused = true)]
    async fn stores_that_share_a_ram_tier_give_what_is_on_their_own_devices() {
        let tier = Arc::new(Everything::default());
        let stores = [open(&tier, DeviceNumber(0)).await, open(&tier, DeviceNumber(1)).await];
        for ram_only in [false, true] {
            for (store, body) in stores.iter().zip([b"one", b"two"]) {
                put(store, "key", body, ram_only).await;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            for _ in 0..2 {
                for (store, body) in stores.iter().zip([b"one", b"two"]) {
                    assert_eq!(get(store, "key").await.unwrap(), body);
                }
            }
            assert_eq!(tier.0.lock().len(), 2, "both are in it");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_in_ram_only_whose_location_was_given_again_is_lost_and_no_other() {
        let tier = Arc::new(Everything::default());
        let store = open(&tier, DeviceNumber(0)).await;
        put(&store, "old", b"old body", true).await;
        let number = &store.shared.catalog.last_in_ram;
        number.fetch_add((1 << 32) - 1, Ordering::AcqRel);
        assert_eq!(get(&store, "old").await.unwrap(), b"old body", "it was not given again yet");
        put(&store, "new", b"new body", true).await;
        let places: Vec<Place> = tier.0.lock().keys().copied().collect();
        assert_eq!(places[0].location(), places[1].location());
        assert_ne!(places[0], places[1]);
        for _ in 0..2 {
            assert_eq!(get(&store, "old").await, None);
            assert_eq!(get(&store, "new").await.unwrap(), b"new body");
        }
        put(&store, "old", b"again", true).await;
        assert_eq!(get(&store, "old").await.unwrap(), b"again");
        assert_eq!(get(&store, "new").await.unwrap(), b"new body");
    }
}
