//! Removals hold from the first moment, whether they can be recorded or not: nothing finds the
//! entry again, and its tombstone is written as soon as possible.

use rawcached::cache::{CacheOptions, Condition};
use rawcached::device::{Delay, Effect, Fault, OperationKind};

use crate::rig::*;

/// More purges than a region has room for.
const SMALL_KEYS: u64 = 6000;
/// Room for all stores of a test: nobody waits for a free region.
const ROOMY: Disk = Disk { regions: 40, region_size: 4 << 20, alignment: 4096 };

fn failing(kind: OperationKind) -> Fault {
    Fault::new(Effect::Fail(libc::EIO)).on(kind)
}

/// With "key" on a device that refuses all writes from now on.
fn refusing(restarted: bool) -> Rig {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 3000), &flushed()).unwrap();
    if restarted {
        rig.kill();
    }
    rig.sim.inject(failing(OperationKind::Write).always());
    rig
}

fn waiting(rig: &Rig) -> u64 {
    rig.stats().store.removals_waiting
}

/// A device on which all writes fail.
fn with_failing_writes() -> Rig {
    let rig = Rig::new();
    rig.put(b"key", &body(1, 3000), &flushed()).unwrap();
    rig.sim.inject(failing(OperationKind::Write).always());
    rig
}

#[test]
fn a_purge_is_not_held_up_by_stores_that_wait_for_a_slow_device() {
    let mut rig = Rig::with(ROOMY, plain());
    rig.put(b"key", &body(1, 3000), &flushed()).unwrap();
    rig.sleep(secs(2));
    rig.sim.set_delay(Delay::Sleep(secs(60)));
    let refused = (0..200u64).find(|n| {
        rig.put(format!("flood-{n}").as_bytes(), &body(*n, 1_000_000), &for_secs(10_000)).is_err()
    });
    assert!(refused.is_some(), "stores wait");
    // It is not durable in time, and its caller gets an error.
    rig.remove(b"key").unwrap_err();
    rig.sim.set_delay(Delay::None);
    assert_eq!(rig.get(b"key"), None, "but it holds");
    assert_eq!(waiting(&rig), 0, "it found room that stores have not");
    rig.sleep(secs(200));
    rig.power_cut();
    assert_eq!(rig.get(b"key"), None);
}

#[test]
fn a_purge_without_any_room_holds_and_is_written_when_there_is_some() {
    let mut rig = Rig::new();
    for n in 0..SMALL_KEYS {
        rig.put(format!("key-{n}").as_bytes(), &body(n, 10), &for_secs(100_000)).unwrap();
    }
    // No region can be freed: none can be read, and the oldest, which may go unread, takes no header.
    let size = SMALL.regions * REGION + 2 * SUPERBLOCK;
    rig.sim.inject(failing(OperationKind::Read).within(SUPERBLOCK..size - SUPERBLOCK).always());
    rig.sim.inject(failing(OperationKind::Write).within(SUPERBLOCK..SUPERBLOCK + 4096).always());
    let full = (0..100u64).find(|n| {
        rig.put(format!("more-{n}").as_bytes(), &body(*n, QUARTER), &for_secs(10_000)).is_err()
    });
    assert!(full.is_some(), "stores find no room");
    // Purges have a share of the last region, and beyond it none is lost.
    let mut refused = 0;
    for n in 2..SMALL_KEYS {
        let removed = rig.run(async {
            let key = format!("key-{n}");
            let remove = rig.cache().remove(key.as_bytes());
            tokio::time::timeout(millis(1), remove).await
        });
        refused += u64::from(!matches!(removed, Ok(Ok(_))));
    }
    assert!(waiting(&rig) > 0, "{refused} had no room");
    assert!(rig.remove(b"key-0").is_err(), "not acknowledged");
    rig.sim.clear_faults();
    assert_eq!(rig.get(b"key-0"), None);
    assert!(rig.get(b"key-1").is_some());
    rig.clock.advance(secs(4000));
    // The device is tried again.
    rig.sleep(secs(20));
    rig.fill("makes-room", 4, 10_000);
    rig.sleep(secs(5));
    assert_eq!(waiting(&rig), 0);
    rig.put(b"works-again", &body(1, 100), &flushed()).unwrap();
    rig.power_cut();
    for n in [0, 2, SMALL_KEYS / 2, SMALL_KEYS - 1] {
        assert_eq!(rig.get(format!("key-{n}").as_bytes()), None);
    }
    assert!(rig.get(b"works-again").is_some());
}

#[test]
fn a_purge_that_a_failing_device_refused_is_written_when_it_works_again() {
    for kind in [OperationKind::Write, OperationKind::Flush] {
        for failures in [1, 3] {
            let mut rig = Rig::new();
            rig.put(b"key", &body(1, 3000), &flushed()).unwrap();
            rig.sim.inject(failing(kind).always());
            for n in 0..failures {
                rig.remove(b"key").expect_err(&format!("purge {n}"));
                assert_eq!(rig.get(b"key"), None, "{kind:?}");
            }
            rig.sim.clear_faults();
            rig.sleep(secs(40));
            assert_eq!(waiting(&rig), 0, "{kind:?}, {failures} failures");
            rig.power_cut();
            assert_eq!(rig.get(b"key"), None, "{kind:?}, {failures} failures");
        }
    }
}

#[test]
fn a_purge_that_waits_does_not_outlive_a_newer_version() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 3000), &flushed()).unwrap();
    rig.sim.inject(failing(OperationKind::Write));
    rig.remove(b"key").unwrap_err();
    rig.put(b"key", &body(2, 100), &flushed()).unwrap();
    rig.sleep(secs(40));
    assert_eq!(waiting(&rig), 0);
    for _ in 0..2 {
        assert_eq!(rig.get(b"key").unwrap(), body(2, 100));
        rig.power_cut();
    }
}

#[test]
fn a_purge_whose_tombstone_was_lost_does_not_outlive_a_newer_version_either() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 3000), &flushed()).unwrap();
    rig.sleep(secs(2));
    // It is in the log when the newer version comes, and both are lost with the write.
    rig.sim.inject(failing(OperationKind::Write));
    rig.run(async {
        let purge = rig.cache().remove(b"key");
        let put = async {
            tokio::task::yield_now().await;
            let options = for_secs(10_000);
            rig.cache().put(b"key", body(2, 100), Condition::Always, &options).await
        };
        let (purged, stored) = tokio::join!(purge, put);
        purged.unwrap_err();
        stored.unwrap();
    });
    rig.put(b"key", &body(3, 100), &flushed()).unwrap();
    rig.sleep(secs(40));
    rig.power_cut();
    assert_eq!(rig.get(b"key").unwrap(), body(3, 100));
}

#[test]
fn a_purge_leaves_reclaim_the_last_free_region() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 1000), &for_secs(100_000)).unwrap();
    rig.sleep(secs(2));
    // Nothing can be freed.
    let size = SMALL.regions * REGION + 2 * SUPERBLOCK;
    rig.sim.inject(failing(OperationKind::Read).within(SUPERBLOCK..size - SUPERBLOCK).always());
    rig.sim.inject(failing(OperationKind::Write).within(SUPERBLOCK..SUPERBLOCK + 4096).always());
    let mut n = 0;
    while rig.stats().store.regions_free > 1 {
        n += 1;
        rig.put(format!("more-{n}").as_bytes(), &body(n, QUARTER), &for_secs(10_000)).unwrap();
    }
    rig.fill("beside", 2, 10_000);
    assert_eq!(rig.stats().store.regions_free, 1);
    rig.remove(b"key").unwrap_err();
    assert_eq!(rig.get(b"key"), None);
    assert_eq!(rig.stats().store.regions_free, 1, "what is left of the open one is too little");
    rig.sim.clear_faults();
    rig.clock.advance(secs(4000));
    rig.sleep(secs(20));
    rig.fill("makes-room", 4, 10_000);
    rig.sleep(secs(5));
    assert_eq!(waiting(&rig), 0);
    rig.power_cut();
    assert_eq!(rig.get(b"key"), None);
}

/// More removals than are remembered.
const MANY_KEYS: u64 = (64 << 10) + 100;

#[test]
fn a_purge_beyond_what_is_remembered_is_not_acknowledged() {
    let mut rig = Rig::with(ROOMY, plain());
    let options = for_secs(1_000_000);
    for n in 0..MANY_KEYS {
        rig.put(format!("key-{n}").as_bytes(), &body(1, 10), &options).unwrap();
    }
    rig.put(b"last", &body(2, 10), &options).unwrap();
    rig.put(b"beside", &body(3, 10), &flushed()).unwrap();
    rig.sim.inject(failing(OperationKind::Write).always());
    let keys: Vec<String> = (0..MANY_KEYS).map(|n| format!("key-{n}")).collect();
    rig.remove(b"key-0").unwrap_err();
    rig.remove(b"key-1").unwrap_err();
    rig.run(async {
        for some in keys.chunks(8000) {
            let removals = some.iter().map(|key| rig.cache().remove(key.as_bytes()));
            futures_util::future::join_all(removals).await;
        }
    });
    assert_eq!(waiting(&rig), 64 << 10, "no more are remembered");
    rig.remove(b"last").unwrap_err();
    assert_eq!(rig.get(b"last"), None, "gone all the same");
    rig.sim.clear_faults();
    rig.sleep(secs(40));
    assert_eq!(waiting(&rig), 0);
    // A second removal is no silent no-op, though the index has no entry for it.
    rig.remove(b"last").unwrap();
    rig.power_cut();
    assert_eq!(rig.get(b"last"), None);
    assert!(rig.get(b"beside").is_some());
    for n in (0..64 << 10).step_by(1000) {
        assert_eq!(rig.get(format!("key-{n}").as_bytes()), None, "key {n}");
    }
}

#[test]
fn purges_of_a_device_that_refuses_writes_take_no_regions() {
    let mut rig = Rig::with(Disk { regions: 40, ..SMALL }, plain());
    for n in 0..100 {
        rig.put(format!("key-{n}").as_bytes(), &body(n, 100), &flushed()).unwrap();
    }
    rig.sim.inject(failing(OperationKind::Write).always());
    for n in 0..3 {
        rig.remove(format!("key-{n}").as_bytes()).unwrap_err();
    }
    let free = rig.stats().store.regions_free;
    for n in 3..100 {
        rig.remove(format!("key-{n}").as_bytes()).unwrap_err();
    }
    assert_eq!(rig.stats().store.regions_free, free);
    rig.sim.clear_faults();
    rig.sleep(secs(40));
    assert_eq!(waiting(&rig), 0);
    rig.power_cut();
    for n in 0..100 {
        assert_eq!(rig.get(format!("key-{n}").as_bytes()), None, "key {n}");
    }
}

/// A short life, for entries that are kept in the RAM tier only.
fn short() -> rawcached::cache::StoreOptions {
    for_secs(10)
}

fn with_ram_only() -> CacheOptions {
    options!(CacheOptions { ram_bytes: 1 << 20, min_to_disk: secs(60), ..plain() })
}

#[test]
fn a_purge_that_a_newer_version_overtook_holds_when_that_is_lost() {
    for newer in [for_secs(10_000), short()] {
        let mut rig = Rig::with(SMALL, with_ram_only());
        rig.put(b"key", &body(1, 3000), &flushed()).unwrap();
        // In the RAM tier: the purge has nothing to wait for before the newer version comes.
        assert!(rig.get(b"key").is_some());
        rig.sim.inject(failing(OperationKind::Flush));
        rig.run(async {
            let purge = rig.cache().remove(b"key");
            let put = rig.cache().put(b"key", body(2, 100), Condition::Always, &newer);
            let (purged, stored) = tokio::join!(purge, put);
            purged.unwrap_err();
            stored.unwrap();
        });
        rig.sleep(secs(40));
        assert_eq!(waiting(&rig), 0);
        rig.power_cut();
        let found = rig.get(b"key");
        assert!(found.is_none() || found == Some(body(2, 100).to_vec()), "the purged one is back");
    }
}

#[test]
fn a_purge_before_the_first_change_of_a_start_holds_on_a_device_that_refuses_it() {
    for all in [false, true] {
        let mut rig = Rig::new();
        rig.put(b"key", &body(1, 3000), &flushed()).unwrap();
        rig.kill();
        assert!(rig.get(b"key").is_some());
        rig.sim.inject(failing(OperationKind::Write).always());
        if all {
            rig.run(rig.cache().purge_all(rawcached::Purge::Hard)).unwrap_err();
        } else {
            rig.remove(b"key").unwrap_err();
        }
        assert_eq!(rig.get(b"key"), None);
        rig.sim.clear_faults();
        // Nobody asks again.
        rig.sleep(secs(40));
        rig.power_cut();
        assert_eq!(rig.get(b"key"), None, "all: {all}");
        rig.put(b"key", &body(2, 100), &flushed()).unwrap();
        assert_eq!(rig.get(b"key").unwrap(), body(2, 100));
        rig.power_cut();
        assert_eq!(rig.get(b"key").unwrap(), body(2, 100));
    }
}

#[test]
fn what_is_stored_after_a_purge_of_all_that_failed_stays() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 3000), &flushed()).unwrap();
    rig.kill();
    rig.sim.inject(failing(OperationKind::Write).always());
    for _ in 0..3 {
        rig.run(rig.cache().purge_all(rawcached::Purge::Hard)).unwrap_err();
    }
    rig.sim.clear_faults();
    rig.sleep(secs(40));
    rig.put(b"new", &body(2, 100), &flushed()).unwrap();
    for _ in 0..2 {
        assert_eq!(rig.get(b"key"), None);
        assert_eq!(rig.get(b"new").unwrap(), body(2, 100));
        rig.power_cut();
    }
}

#[test]
fn a_store_that_is_refused_takes_the_old_version_with_it_at_once() {
    for restarted in [false, true] {
        let mut rig = refusing(restarted);
        for _ in 0..3 {
            let _ = rig.put(b"trigger", &body(2, 100), &flushed());
        }
        rig.put(b"key", &body(2, 100), &for_secs(1000)).unwrap_err();
        assert_eq!(rig.get(b"key"), None);
        rig.sim.clear_faults();
        rig.sleep(secs(40));
        rig.put(b"trigger", &body(2, 100), &flushed()).unwrap();
        rig.sleep(secs(2));
        rig.power_cut();
        assert_eq!(rig.get(b"key"), None);
    }
}

#[test]
fn one_store_that_is_refused_as_busy_leaves_no_doubt_behind() {
    let mut rig = Rig::with(ROOMY, plain());
    rig.put(b"key", &body(1, 3000), &flushed()).unwrap();
    rig.sim.set_delay(Delay::Sleep(secs(60)));
    let refused =
        (0..200u64).any(|n| rig.put(b"big", &body(n, 1_000_000), &for_secs(10_000)).is_err());
    assert!(refused);
    rig.sim.set_delay(Delay::None);
    rig.sleep(secs(120));
    let before = rig.sim.counts().writes;
    for n in 0..100 {
        rig.remove(format!("never-there-{n}").as_bytes()).unwrap();
    }
    assert_eq!(rig.sim.counts().writes, before);
    rig.restart();
    assert_eq!(rig.stats().store.counters.snapshots_loaded, 1);
    assert_eq!(rig.get(b"big"), None);
}

#[test]
fn a_touch_to_an_end_in_the_past_holds_on_a_device_that_refuses_it() {
    for restarted in [false, true] {
        let mut rig = refusing(restarted);
        let _ = rig.run(rig.cache().touch(b"key", secs(0)));
        assert_eq!(rig.get(b"key"), None);
        rig.sim.clear_faults();
        rig.sleep(secs(40));
        rig.power_cut();
        assert_eq!(rig.get(b"key"), None);
    }
}

#[test]
fn a_purge_whose_caller_goes_away_holds() {
    for restarted in [false, true] {
        // The key is verified in the RAM tier.
        let mut rig = Rig::with(SMALL, options!(CacheOptions { ram_bytes: 1 << 20, ..plain() }));
        rig.put(b"key", &body(1, 3000), &flushed()).unwrap();
        if restarted {
            rig.kill();
        }
        assert!(rig.get(b"key").is_some());
        rig.sim.set_delay(Delay::Sleep(secs(100)));
        let removed =
            rig.run(async { tokio::time::timeout(millis(50), rig.cache().remove(b"key")).await });
        assert!(removed.is_err(), "still under way");
        assert_eq!(rig.get(b"key"), None);
        rig.sim.set_delay(Delay::None);
        rig.sleep(secs(500));
        rig.put(b"trigger", &body(2, 100), &flushed()).unwrap();
        rig.power_cut();
        assert_eq!(rig.get(b"key"), None, "restarted: {restarted}");
    }
}

#[test]
fn a_stop_writes_the_purges_that_wait_or_says_that_it_could_not() {
    let cases = [false, true].map(|all| [false, true].map(|restarted| (all, restarted))).concat();
    for (all, restarted) in cases {
        for works_again in [true, false] {
            let mut rig = Rig::new();
            rig.put(b"key", &body(1, 3000), &flushed()).unwrap();
            if restarted {
                rig.kill();
            }
            rig.sim.inject(failing(OperationKind::Write).always());
            match all {
                true => rig.run(rig.cache().purge_all(rawcached::Purge::Hard)).unwrap_err(),
                false => rig.remove(b"key").map(|_| ()).unwrap_err(),
            };
            if works_again {
                rig.sim.clear_faults();
            }
            let case = format!("all: {all}, restarted: {restarted}");
            let stopped = rig.run(rig.cache().shutdown());
            assert_eq!(stopped.is_ok(), works_again, "{case}: {stopped:?}");
            let again = rig.run(rig.cache().shutdown());
            assert_eq!(again.is_ok(), works_again, "{case}: the second time too");
            if works_again {
                rig.power_cut();
                assert!(rig.get(b"key").is_none(), "{case}");
            }
        }
    }
}

#[test]
fn a_snapshot_is_not_written_without_the_tombstones_of_all_removals() {
    let mut rig = with_failing_writes();
    rig.remove(b"key").unwrap_err();
    let _ = rig.run(rig.cache().shutdown());
    assert_eq!(rig.stats().store.counters.snapshots_written, 0);
    rig.sim.clear_faults();
    rig.kill();
    assert_eq!(rig.stats().store.counters.snapshots_loaded, 0);
}

#[test]
fn purges_leave_room_for_reclaim() {
    let rig = Rig::new();
    rig.fill("filler", 4 * 9, 100_000);
    rig.sleep(secs(2));
    let purges: Vec<_> = (0..20_000).map(|n| format!("key-{n}")).collect();
    rig.run(async {
        // Each finds an entry, and none waits.
        let options = for_secs(100_000);
        for key in &purges {
            let _ = rig.cache().put(key.as_bytes(), body(1, 10), Condition::Always, &options).await;
            let _ = tokio::time::timeout(millis(0), rig.cache().remove(key.as_bytes())).await;
        }
    });
    rig.sleep(secs(10));
    assert_eq!(waiting(&rig), 0);
    rig.fill("later", 40, 100_000);
    for key in purges.iter().step_by(100) {
        assert_eq!(rig.get(key.as_bytes()), None);
    }
}

#[test]
fn a_key_that_is_not_there_is_purged_once_what_failed_is_written() {
    let rig = Rig::new();
    rig.sim.inject(failing(OperationKind::Write));
    assert!(rig.run(rig.cache().purge_all(rawcached::Purge::Hard)).is_err());
    rig.sleep(secs(5));
    assert!(!rig.remove(b"never there").unwrap());
}
