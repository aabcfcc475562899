//! Emptying fails half way: the region's contents must be as before.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::*;
use crate::clock::{Clock, Timestamp};
use crate::device::{Effect, Fault, OperationKind, SimDevice};
use crate::format::{Sequence, Tombstone};
use crate::store::formatting::FormatOptions;
use crate::store::log::slot::TOMBSTONES_PER_SLOT_MAX;
use crate::store::lookup::sought::Stale;
use crate::store::mutation::request::{Condition, Lifetime, Value};
use crate::store::options::Options;
use crate::store::ram_tier::NotResident;
use crate::store::reclaim::victim::Victim;
use crate::store::shared::Store;
use crate::store::testing::{self, REGION};

const START: Timestamp = Timestamp(1_000_000);

/// An empty store of ten regions that only the test empties.
fn open() -> (Runtime, SimDevice, Store) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let (sim, clock) = (SimDevice::new(10 * REGION + (256 << 10), 4096), Clock::manual(START));
    let store = runtime.block_on(testing::create(&sim, &clock));
    store.shared.background.tasks.lock().as_ref().unwrap().reclaimer.abort();
    (runtime, sim, store)
}

async fn put(store: &Store, key: &str, len: usize) {
    let end = START.plus(Duration::from_secs(1000));
    let lifetime = Lifetime { stored_at: START, age_secs: 0, fresh_until: end, keep_until: end };
    let value = Value { metadata: b"", body: &vec![7; len], lifetime, tags: &[], ram_only: false };
    store.put(key.as_bytes(), &value, Condition::Always, None).await.unwrap();
}

async fn has(store: &Store, key: &str) -> bool {
    store.lookup(key.as_bytes(), Stale::Refuse).await.is_some()
}

/// Stores "key" in one region and a newer version in the next, both sealed; gives the second region.
async fn overwritten(store: &Store) -> u32 {
    put(store, "key", 100).await;
    for n in 0..5 {
        put(store, &format!("first-{n}"), 60_000).await;
    }
    put(store, "key", 200).await;
    let region = {
        let bucket = store.shared.catalog.lock(store.key_hash(b"key"));
        bucket.candidates()[0].location().split(&store.shared.layout).0
    };
    for n in 0..4 {
        put(store, &format!("second-{n}"), 60_000).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(store.shared.catalog.regions.on_device(region).state(), RegionState::Sealed);
    assert!(!store.shared.catalog.regions.is_oldest(region));
    region
}

/// Uses up every region, down to the last place for a tombstone.
fn use_up_all_room(store: &Store) {
    for count in [TOMBSTONES_PER_SLOT_MAX, 1] {
        let tombstones = vec![Tombstone { key_hash: 9, sequence: Sequence(1) }; count];
        let mut log = store.shared.log.lock();
        while let Ok(at) = log.reserve_tombstones(count, Appender::Reclaim, START) {
            log.fill_tombstones(at, &tombstones, START);
        }
    }
}

#[test]
fn a_region_whose_tombstones_find_no_room_stays_and_is_served() {
    let (runtime, _, store) = open();
    runtime.block_on(async {
        let region = overwritten(&store).await;
        use_up_all_room(&store);
        let freed = Reclaimer::new(store.clone())
            .try_to_free(Victim::whole(region), RegionState::Sealed)
            .await;
        assert!(matches!(freed, Err(StoreError::Busy(_))), "{freed:?}");
        for key in ["key", "second-0", "second-1"] {
            assert!(has(&store, key).await, "{key}");
        }
        let row = store.shared.catalog.regions.on_device(region);
        assert_eq!((row.state(), row.failures()), (RegionState::Sealed, 0), "not set aside");
        assert_eq!(store.shared.catalog.regions.unindexed_count(), 0, "nothing was taken out");
        store.check_accounting();
    });
}

#[test]
fn a_region_that_the_device_does_not_read_is_set_aside() {
    let (runtime, sim, store) = open();
    runtime.block_on(async {
        let region = overwritten(&store).await;
        let start = store.shared.layout.region_offset(region);
        let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
        sim.inject(fault.within(start..start + REGION).always());
        let freed = Reclaimer::new(store.clone())
            .try_to_free(Victim::whole(region), RegionState::Sealed)
            .await;
        assert!(matches!(freed, Err(StoreError::Device(_))), "{freed:?}");
        sim.clear_faults();
        assert!(has(&store, "second-0").await);
        assert_eq!(store.shared.catalog.regions.on_device(region).failures(), 1);
        assert_eq!(store.set_aside_regions(), 1);
    });
}

#[test]
fn nothing_is_carried_out_of_a_region_with_a_hole() {
    let (runtime, sim, store) = open();
    runtime.block_on(async {
        let region = overwritten(&store).await;
        let start = store.shared.layout.region_offset(region);
        // Its slots are scanned, and one is lost.
        sim.corrupt(start + REGION - 1, 1);
        let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
        sim.inject(fault.within(start + REGION / 2..start + REGION / 2 + 4096).always());
        let reclaimer = Reclaimer::new(store.clone());
        for attempt in 1..4 {
            let freed = reclaimer.try_to_free(Victim::whole(region), RegionState::Sealed).await;
            assert!(matches!(freed, Err(StoreError::Device(_))), "{freed:?}");
            assert_eq!(store.counters().tombstones_carried, 0, "in attempt {attempt}");
        }
        sim.clear_faults();
        reclaimer.try_to_free(Victim::whole(region), RegionState::Sealed).await.unwrap();
        assert!(store.counters().tombstones_carried > 0);
    });
}

#[test]
fn where_tombstones_find_no_room_the_oldest_region_without_any_goes() {
    let (runtime, _, store) = open();
    runtime.block_on(async {
        let region = overwritten(&store).await;
        let oldest = store.shared.catalog.regions.oldest().unwrap();
        assert_ne!(oldest, region, "that one has the tombstone of the older version");
        assert_eq!(Reclaimer::new(store.clone()).oldest_without_tombstones(), Some(oldest));
        let free = store.shared.log.lock().free_count();
        Reclaimer::new(store.clone()).make_room_otherwise("test").await.unwrap();
        assert_eq!(store.shared.log.lock().free_count(), free + 1);
        assert!(!has(&store, "first-0").await && has(&store, "key").await);
    });
}

#[test]
fn a_region_that_was_sealed_for_its_memory_can_be_read_with_that_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let region_size = 4 << 20;
    let (sim, clock) = (SimDevice::new(10 * region_size + (256 << 10), 4096), Clock::manual(START));
    let format = FormatOptions { region_size: Some(region_size), ..FormatOptions::default() };
    runtime.block_on(async {
        Store::format(&sim.open(), &format, &clock).await.unwrap();
        let options = Options { index_bytes_max: 1 << 20, ..Options::default() };
        let store = Store::open(sim.open(), options, clock, Arc::new(NotResident)).await.unwrap();
        store.recovered().await;
        for n in 0..4000 {
            put(&store, &format!("key-{n}"), 8).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut sealed = 0;
        for (region, row) in store.shared.catalog.regions.iter() {
            if row.state() == RegionState::Sealed {
                sealed += 1;
                let footer = store.read_footer(region, row.generation()).await.unwrap();
                assert!(footer.is_some(), "reclaim cannot see which of its entries were hit");
            }
        }
        assert!(sealed > 0);
    });
}

/// After a crash no region may be free, and none open: then nothing can be carried.
#[test]
fn a_condemned_region_whose_tombstones_find_no_room_does_not_keep_the_oldest_from_being_freed() {
    let (runtime, _, store) = open();
    runtime.block_on(async {
        for len in [10, 20] {
            put(&store, "twice in the oldest region", len).await;
        }
        let region = overwritten(&store).await;
        let regions = &store.shared.catalog.regions;
        let oldest = regions.oldest().unwrap();
        assert!(regions.on_device(oldest).tombstones() > 0);
        regions.on_device(region).condemn();
        use_up_all_room(&store);
        let mut reclaimer = Reclaimer::new(store.clone());
        let freed = reclaimer.reclaim_one().await;
        assert!(matches!(freed, Ok(true)), "{freed:?}");
        assert_eq!(regions.on_device(oldest).state(), RegionState::Free);
        assert!(has(&store, "key").await && has(&store, "second-0").await);
        // There is room for tombstones again.
        let freed = reclaimer.reclaim_one().await;
        assert!(matches!(freed, Ok(true)), "{freed:?}");
        assert!(!has(&store, "second-0").await, "the condemned one is next");
        store.check_accounting();
    });
}
