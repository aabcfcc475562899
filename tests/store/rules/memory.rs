//! The index and recovery keep to their parts of memory: whole regions go, never single entries, and what
//! goes does not come back wrong.

use bytes::Bytes;
use futures_util::future::join_all;
use rawcached::cache::{CacheOptions, Condition, StoreError};
use rawcached::device::{Delay, Effect, Fault, OperationKind};

use crate::fill::{body_of, key_of};
use crate::rig::*;

/// For 10 922 entries.
const INDEX: u64 = 1 << 20;
const ENTRIES_MAX: u64 = 10_922;
/// Far more than the index has room for.
const ENTRIES: u64 = 60_000;
const REGIONS: u64 = 40;

fn with_index(bytes: u64) -> CacheOptions {
    options!(CacheOptions { index_bytes_max: bytes, ..plain() })
}

fn with_recovery(bytes: u64) -> CacheOptions {
    options!(CacheOptions { recovery_bytes_max: bytes, ..plain() })
}

/// Whether an entry that [`filled`] made is there, and right.
fn has(rig: &Rig, n: u64) -> bool {
    rig.get(&key_of(n)).is_some_and(|found| {
        assert_eq!(found, body_of(n, 8), "entry {n}");
        true
    })
}

fn check_index(rig: &Rig) {
    let stats = rig.stats().store;
    assert!(stats.entries <= ENTRIES_MAX, "{} entries", stats.entries);
    assert!(stats.index_bytes <= INDEX, "{} bytes", stats.index_bytes);
    rig.cache().device_store().check_accounting();
}

#[test]
fn an_index_at_its_part_takes_every_store_and_frees_the_oldest_regions() {
    for (regions, region_size) in [(REGIONS, REGION), (REGIONS / 4, 4 * REGION)] {
        fill_index(Disk { regions, region_size, ..SMALL });
    }
}

fn fill_index(disk: Disk) {
    let rig = Rig::with(disk, with_index(INDEX));
    let tiny = body(1, 8);
    for n in 0..5 * ENTRIES_MAX {
        rig.put(&key_of(n), &tiny, &for_secs(3000)).unwrap();
        if n % 500 == 0 {
            check_index(&rig);
        }
    }
    rig.sleep(secs(1));
    check_index(&rig);
    let stats = rig.stats().store;
    assert!(stats.regions_free > disk.regions / 2, "{} regions free", stats.regions_free);
    assert_eq!(stats.counters.refused, 0);
    assert!(stats.entries > ENTRIES_MAX / 2, "{} entries", stats.entries);
    // The newest half of what fits, and nothing of the first half of all.
    let newest = 5 * ENTRIES_MAX - ENTRIES_MAX / 2..5 * ENTRIES_MAX;
    assert!(newest.clone().all(|n| rig.get(&key_of(n)).is_some()));
    assert!((0..newest.start / 2).step_by(97).all(|n| rig.get(&key_of(n)).is_none()));
}

/// All entries would be in the open region, which cannot be freed.
#[test]
fn an_index_for_fewer_entries_than_a_region_holds_takes_every_store() {
    // A quarter is for records; 160 bytes a shard, and 12 for each of 20 entries.
    let bytes = ((160_u64 << 12) + 20 * 12).div_ceil(3) * 4;
    let rig = Rig::with(Disk { regions: REGIONS, ..SMALL }, with_index(bytes));
    assert_eq!(rig.stats().store.entries_max, 20);
    for n in 0..500 {
        rig.put(&key_of(n), &body(1, 8), &for_secs(3000)).unwrap();
        assert!(rig.get(&key_of(n)).is_some(), "entry {n}");
        assert!(rig.stats().store.entries <= 20);
    }
    assert_eq!(rig.stats().store.counters.refused, 0);
    assert!((493..500).all(|n| rig.get(&key_of(n)).is_some()));
}

/// Moving slices of stores under way wins no index entry: reclaim would go on for ever, and no time would pass.
#[test]
fn an_index_full_of_slices_of_stores_under_way_refuses_more_of_them() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let bytes = ((160_u64 << 12) + 20 * 12).div_ceil(3) * 4;
        let rig = Rig::with(Disk { regions: REGIONS, ..SMALL }, with_index(bytes));
        let mut writer = rig.cache().store(b"large", for_secs(3000)).unwrap();
        let piece = body(1, 64 << 10);
        let ended = rig.run(async {
            for _ in 0..40 {
                writer.write_chunk(&piece).await?;
            }
            Ok(())
        });
        assert!(matches!(ended, Err(StoreError::Busy(_))), "{ended:?}");
        drop(writer);
        rig.sleep(secs(10));
        rig.put(b"small", &body(2, 100), &for_secs(3000)).unwrap();
        assert!(rig.get(b"small").is_some());
        done.send(()).unwrap();
    });
    is_done.recv_timeout(std::time::Duration::from_secs(60)).expect("it goes on for ever");
}

#[test]
fn with_little_memory_recovery_takes_several_passes_and_finds_everything() {
    for bytes in [64 << 10, 256 << 10, 1 << 20, 64 << 20] {
        let mut rig = filled(ENTRIES, REGIONS);
        rig.options = with_recovery(bytes);
        rig.open();
        let stats = rig.stats().store;
        let (passes, peak) = (stats.counters.recovery_passes, stats.recovery.scratch_peak_bytes);
        println!("{bytes} bytes: {passes} passes, {peak} bytes of versions at most");
        assert_eq!(stats.entries, ENTRIES);
        assert!((0..ENTRIES).step_by(7).all(|n| has(&rig, n)));
        assert_eq!(passes > 1, bytes < ENTRIES * 24, "{bytes} bytes");
        // Versions that are sorted to their parts are not counted, nor that one part is always kept.
        assert!(peak <= bytes.max(256 << 10), "{peak} of {bytes} bytes");
        rig.cache().device_store().check_accounting();
    }
}

#[test]
fn changes_between_two_passes_of_recovery_count() {
    let mut rig = filled(ENTRIES, REGIONS);
    rig.options = with_recovery(256 << 10);
    rig.begin().unwrap();
    // Each change takes a while too.
    rig.sim.set_delay(Delay::Sleep(millis(50)));
    let new = body(9, 100);
    let mut n = 0;
    while !rig.cache().is_ready() {
        rig.put(&key_of(n), &new, &for_secs(3000)).unwrap();
        rig.remove(&key_of(n + 1)).unwrap();
        n += 2;
    }
    rig.sim.set_delay(Delay::None);
    assert!(n > 10, "{n} changes while it recovered");
    assert!(rig.stats().store.counters.recovery_passes > 1);
    for _ in 0..2 {
        for n in (0..n).step_by(2) {
            assert_eq!(rig.get(&key_of(n)).unwrap(), new, "entry {n}");
            assert_eq!(rig.get(&key_of(n + 1)), None, "entry {}", n + 1);
        }
        assert!((n..ENTRIES).step_by(101).all(|n| has(&rig, n)));
        rig.sleep(secs(2));
        rig.kill();
    }
}

/// As when recovery had memory for all, and saw that it had expired.
#[test]
fn a_purged_key_that_expired_between_two_passes_stays_gone_when_the_clock_is_set_back() {
    // One key a run: what is learnt of the end of one counts for all. Most are in a later pass.
    for n in [0, 7, 1000, 31_000] {
        let mut rig = filled(ENTRIES, REGIONS);
        rig.options = with_recovery(256 << 10);
        rig.begin().unwrap();
        rig.sim.set_delay(Delay::Sleep(millis(50)));
        while rig.stats().store.recovery.parts_done == 0 {
            rig.sleep(millis(10));
        }
        // All of them live for 1000 seconds.
        rig.clock.advance(secs(2000));
        rig.run(rig.cache().ready());
        rig.sim.set_delay(Delay::None);
        assert!(!rig.remove(&key_of(n)).unwrap());
        rig.stop();
        rig.boot_at(WALL + 10);
        rig.options = plain();
        rig.open();
        assert!(!rig.has_stale(&key_of(n)), "entry {n} is back");
    }
}

#[test]
fn regions_that_the_index_has_no_room_for_are_left_out_and_nothing_in_them_comes_back_wrong() {
    let mut rig = filled(ENTRIES, REGIONS);
    rig.options = with_index(INDEX);
    rig.open();
    check_index(&rig);
    let stats = rig.stats().store;
    assert!(stats.counters.regions_left_out > 10, "{:?}", stats.counters);
    assert!(stats.entries > ENTRIES_MAX / 4 * 3, "{} entries", stats.entries);
    assert!((ENTRIES - ENTRIES_MAX / 2..ENTRIES).step_by(11).all(|n| has(&rig, n)));
    assert!((0..ENTRIES / 2).step_by(97).all(|n| !has(&rig, n)));
    // Changes of keys that are on the device but not in the index.
    let new = body(9, 100);
    let changed: Vec<u64> = (0..ENTRIES - ENTRIES_MAX).step_by(2500).collect();
    for &n in &changed {
        rig.put(&key_of(n), &new, &flushed()).unwrap();
        rig.remove(&key_of(n + 1)).unwrap();
    }
    let waiting = rig.stats().store.regions_unindexed;
    assert!(waiting > 0, "all were freed already");
    // With memory for all: what was left out and not freed yet is found again.
    rig.stop();
    rig.options = plain();
    rig.open();
    for n in changed {
        assert_eq!(rig.get(&key_of(n)).unwrap(), new, "entry {n}");
        assert_eq!(rig.get(&key_of(n + 1)), None, "entry {}", n + 1);
    }
    let unchanged = (0..ENTRIES - ENTRIES_MAX).step_by(7).filter(|n| n % 2500 > 1);
    let came_back = unchanged.filter(|n| has(&rig, *n)).count();
    println!("{waiting} regions waited to be freed; {came_back} entries in them are found again");
    assert!(came_back > 0);
    rig.cache().device_store().check_accounting();
}

#[test]
fn regions_that_were_left_out_are_freed() {
    let mut rig = filled(ENTRIES, REGIONS);
    rig.options = with_index(INDEX);
    rig.open();
    let left_out = rig.stats().store.counters.regions_left_out;
    // Nothing is written to a device before the first change.
    rig.put(b"first", &body(1, 9), &for_secs(3000)).unwrap();
    rig.sleep(secs(10));
    let stats = rig.stats().store;
    assert!(stats.counters.regions_freed >= left_out, "{:?}", stats.counters);
    assert_eq!(stats.regions_unindexed, 0);
    check_index(&rig);
    rig.kill();
    assert_eq!(rig.stats().store.counters.regions_left_out, 0);
    assert!((ENTRIES - ENTRIES_MAX / 2..ENTRIES).step_by(11).all(|n| has(&rig, n)));
}

#[test]
fn a_snapshot_that_the_index_has_no_room_for_is_not_loaded() {
    let mut rig = filled(ENTRIES, REGIONS);
    rig.options = plain();
    rig.open();
    rig.put(b"first", &body(1, 9), &for_secs(3000)).unwrap();
    rig.restart();
    assert_eq!(rig.stats().store.counters.snapshots_loaded, 1);
    rig.options = with_index(INDEX);
    rig.restart();
    let counters = rig.stats().store.counters;
    assert_eq!((counters.snapshots_loaded, counters.snapshots_refused), (0, 1));
    check_index(&rig);
    assert!((ENTRIES - ENTRIES_MAX / 2..ENTRIES).step_by(11).all(|n| has(&rig, n)));
    rig.put(b"second", &body(1, 9), &for_secs(3000)).unwrap();
    rig.sleep(secs(10));
    rig.restart();
    assert_eq!(rig.stats().store.counters.snapshots_loaded, 1, "this one has room");
    check_index(&rig);
}

#[test]
fn when_recovery_can_remember_no_more_keys_stores_are_refused_and_purges_count() {
    let mut rig = filled(1000, 400);
    rig.options = with_recovery(64 << 10);
    rig.begin().unwrap();
    rig.sim.set_delay(Delay::Sleep(millis(500)));
    let new = body(9, 100);
    let stored: Vec<u64> = (0..1000)
        .take_while(|n| match rig.put(&key_of(1_000_000 + n), &new, &for_secs(3000)) {
            Ok(_) => true,
            Err(StoreError::Busy(why)) => {
                println!("after {n} stores: {why}");
                false
            }
            Err(error) => panic!("{error:?}"),
        })
        .collect();
    assert!((100..1000).contains(&stored.len()), "{} stores", stored.len());
    // All at once: each waits for the device.
    let cache = rig.cache();
    let removals = (0..100).map(|n| async move { cache.remove(&key_of(n)).await });
    let removed = rig.run(join_all(removals));
    assert!(removed.iter().all(Result::is_ok), "{removed:?}");
    assert!(!rig.cache().is_ready());
    rig.run(rig.cache().ready());
    rig.sim.set_delay(Delay::None);
    rig.put(b"later", &new, &for_secs(3000)).unwrap();
    let mut purged = Vec::new();
    for _ in 0..2 {
        assert!((0..100).all(|n| !has(&rig, n)));
        // Some entries share a bit with one of those; most do not.
        let found = (100..1000).filter(|n| has(&rig, *n)).count();
        assert!(found > 600, "{found} of 900");
        assert!(stored.iter().all(|n| rig.get(&key_of(1_000_000 + n)).is_some()));
        rig.cache().device_store().check_accounting();
        // Those are on the device: a purge of one is a purge of what a start would find.
        for n in 100..1000 {
            if !has(&rig, n) {
                rig.remove(&key_of(n)).unwrap();
                purged.push(n);
            }
        }
        rig.sleep(secs(2));
        rig.kill();
        assert!(purged.iter().all(|n| !has(&rig, *n)));
    }
    assert!(!purged.is_empty());
}

/// Two versions of many keys, some of them removed, in regions that a run with much memory left behind.
fn overwritten() -> Rig {
    let disk = Disk { regions: 10, region_size: 16 * REGION, alignment: 512 };
    let mut rig = Rig::with(disk, plain());
    for version in 0..2 {
        for n in 0..OVERWRITTEN {
            rig.put(&key_of(n), &version_of(n, version), &for_secs(3000)).unwrap();
        }
    }
    for n in (0..OVERWRITTEN).step_by(3) {
        rig.remove(&key_of(n)).unwrap();
    }
    // At once, so that they lie close together, in a region that gets no footer.
    let (cache, options) = (rig.cache(), &for_secs(3000));
    let puts = (0..UNSEALED).map(|n| {
        let (key, body) = (key_of(2_000_000 + n), version_of(n, 1));
        async move { cache.put(&key, body, Condition::Always, options).await }
    });
    assert!(rig.run(join_all(puts)).iter().all(Result::is_ok));
    rig.sleep(secs(2));
    rig.stop();
    rig
}

const UNSEALED: u64 = 6000;
const OVERWRITTEN: u64 = 30_000;

fn version_of(n: u64, version: u64) -> Bytes {
    body(n * 2 + version, 20)
}

/// Checks that no older version and nothing removed is found; gives the number of entries.
fn check_overwritten(rig: &Rig) -> u64 {
    let mut found = 0;
    for n in 0..OVERWRITTEN {
        if let Some(bytes) = rig.get(&key_of(n)) {
            assert!(n % 3 > 0, "entry {n} was removed");
            assert_eq!(bytes, version_of(n, 1), "entry {n}");
            found += 1;
        }
    }
    rig.cache().device_store().check_accounting();
    found
}

#[test]
fn regions_too_long_for_little_memory_give_all_that_they_hold_and_hide_what_they_hid() {
    // Room for all entries, but not for a footer or what a region without one would have in it.
    let options = options!(CacheOptions {
        index_bytes_max: 3 << 19,
        recovery_bytes_max: 64 << 10,
        ..plain()
    });
    let mut rig = overwritten();
    rig.options = options;
    rig.open();
    assert!(rig.stats().store.counters.recovery_passes > 1);
    assert_eq!(check_overwritten(&rig), OVERWRITTEN / 3 * 2);
    let unsealed = |rig: &Rig| {
        let found = (0..UNSEALED).filter_map(|n| Some((n, rig.get(&key_of(2_000_000 + n))?)));
        found.inspect(|(n, bytes)| assert_eq!(*bytes, version_of(*n, 1))).count() as u64
    };
    assert_eq!(unsealed(&rig), UNSEALED);
    // The region without a footer is emptied, since it cannot get one.
    rig.kill();
    rig.put(b"first", &body(1, 9), &for_secs(3000)).unwrap();
    rig.sleep(secs(10));
    assert!(rig.stats().store.counters.regions_freed > 0);
    assert_eq!(unsealed(&rig), 0);
    check_overwritten(&rig);
    // New entries have all the others emptied, with whatever they hide.
    for part in 0..3 {
        for n in 0..400 {
            let key = key_of(1_000_000 + 400 * part + n);
            rig.put(&key, &body(n, QUARTER), &for_secs(3000)).unwrap();
        }
        assert!(rig.stats().store.counters.regions_freed > 3);
        rig.kill();
        check_overwritten(&rig);
    }
    rig.restart();
    check_overwritten(&rig);
}

/// A start that takes several passes, until the first one is done. The device is slow.
fn begin_and_make_one_pass(rig: &mut Rig) {
    rig.options = with_recovery(256 << 10);
    rig.begin().unwrap();
    rig.sim.set_delay(Delay::Sleep(millis(5)));
    while rig.stats().store.counters.recovery_passes == 0 {
        rig.sleep(millis(1));
    }
    assert!(!rig.cache().is_ready());
}

#[test]
fn a_region_that_cannot_be_read_in_a_later_pass_prevails_once_it_can() {
    let mut rig = filled(ENTRIES, REGIONS);
    rig.options = plain();
    rig.open();
    let new = body(9, 100);
    for n in (0..200).step_by(2) {
        rig.put(&key_of(n), &new, &for_secs(3000)).unwrap();
        rig.remove(&key_of(n + 1)).unwrap();
    }
    rig.sleep(secs(2));
    let start = rig.region_start(rig.find(&new));
    rig.stop();
    begin_and_make_one_pass(&mut rig);
    let unreadable = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
    rig.sim.inject(unreadable.within(start..start + REGION).always());
    rig.run(rig.cache().ready());
    let store = rig.stats().store;
    assert!(store.counters.recovery_passes > 1);
    assert_eq!(store.regions_unreadable, 1, "what it holds of the later parts is unknown");
    assert!(store.regions_unindexed > 0);
    rig.sim.set_delay(Delay::None);
    rig.sim.clear_faults();
    rig.put(b"later", &new, &flushed()).unwrap();
    rig.sleep(secs(30));
    let store = rig.stats().store;
    assert_eq!((store.regions_unreadable, store.counters.regions_reread), (0, 1));
    for _ in 0..2 {
        for n in (0..200).step_by(2) {
            assert!(rig.get(&key_of(n)).is_none_or(|found| found == new), "entry {n}");
            assert_eq!(rig.get(&key_of(n + 1)), None, "entry {}", n + 1);
        }
        rig.cache().device_store().check_accounting();
        rig.kill();
    }
}

#[test]
fn entries_that_nobody_asked_for_are_not_written_again_because_their_region_is_long() {
    let disk = Disk { regions: 8, region_size: 32 * REGION, alignment: 512 };
    for index_bytes_max in [64 << 20, 3 << 20] {
        let mut rig = Rig::with(disk, plain());
        for n in 0..100_000 {
            rig.put(&key_of(n), &version_of(n, 1), &for_secs(3000)).unwrap();
        }
        rig.sleep(secs(2));
        rig.stop();
        rig.options = options!(CacheOptions { index_bytes_max, ..plain() });
        rig.open();
        for n in 0..1100 {
            rig.put(&key_of(1_000_000 + n), &body(n, QUARTER), &for_secs(3000)).unwrap();
        }
        let counters = rig.stats().store.counters;
        assert!(counters.regions_freed > 0);
        assert_eq!(counters.reinserted, 0, "with {index_bytes_max} bytes for the index");
    }
}

#[test]
fn a_region_that_is_emptied_before_it_is_read_again_prevails() {
    let mut rig = filled(ENTRIES, REGIONS);
    rig.options = plain();
    rig.open();
    let new = body(9, 100);
    for n in 0..60 {
        rig.put(&key_of(n), &new, &for_secs(3000)).unwrap();
    }
    rig.sleep(secs(2));
    let start = rig.region_start(rig.find(&new));
    rig.stop();
    begin_and_make_one_pass(&mut rig);
    let unreadable = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
    rig.sim.inject(unreadable.within(start..start + REGION).always());
    rig.run(rig.cache().ready());
    rig.sim.set_delay(Delay::None);
    rig.sim.clear_faults();
    assert_eq!(rig.stats().store.regions_unreadable, 1);
    for n in 0..100 {
        rig.put(&key_of(1_000_000 + n), &body(n, QUARTER), &for_secs(3000)).unwrap();
        rig.sleep(millis(10));
        if rig.stats().store.regions_unreadable == 0 {
            break;
        }
    }
    assert_eq!(rig.stats().store.counters.regions_reread, 0, "it is too early for that");
    assert_eq!(rig.stats().store.regions_unreadable, 0, "it is freed");
    assert!((3000..ENTRIES).step_by(101).any(|n| has(&rig, n)), "others are not");
    for n in 0..60 {
        assert!(rig.get(&key_of(n)).is_none_or(|found| found == new), "entry {n}");
    }
}

#[test]
fn a_later_pass_that_cannot_read_a_trailer_reads_the_slots() {
    let mut rig = filled(ENTRIES, REGIONS);
    begin_and_make_one_pass(&mut rig);
    let end = SUPERBLOCK + 3 * REGION;
    let unreadable = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
    rig.sim.inject(unreadable.within(end - 4096..end).always());
    rig.run(rig.cache().ready());
    rig.sim.set_delay(Delay::None);
    let store = rig.stats().store;
    assert_eq!((store.entries, store.regions_unreadable), (ENTRIES, 0));
    rig.cache().device_store().check_accounting();
}
