//! Rule 4: freeing. A freed region leaves no index entry, no reader with wrong bytes and nothing
//! that comes back.

use bytes::Bytes;
use rawcached::cache::Condition;
use rawcached::device::{Delay, Effect, Fault, OperationKind};

use crate::rig::*;

#[test]
fn a_reader_of_a_freed_region_looks_again() {
    let rig = Rig::new();
    rig.fill("filler", 4 * 8, 1000);
    rig.sleep(secs(2));
    // Slow enough that regions are freed and written again under the readers.
    rig.sim.set_delay(Delay::Sleep(secs(2)));
    rig.run(async {
        let readers = async {
            for n in 0..200 {
                let (key, cache) = (format!("filler-{}", n % 32), rig.cache().clone());
                tokio::spawn(async move {
                    if let Some(bytes) = read(&cache, key.as_bytes()).await {
                        assert_eq!(bytes, body(n % 32, QUARTER));
                    }
                });
                tokio::time::sleep(millis(100)).await;
            }
            tokio::time::sleep(secs(10)).await;
        };
        let writers = async {
            for n in 0..60 {
                let (key, bytes) = (format!("more-{n}"), body(n, QUARTER));
                let options = for_secs(1000);
                let put = rig.cache().put(key.as_bytes(), bytes, Condition::Always, &options);
                let _ = tokio::time::timeout(secs(3), put).await;
            }
        };
        tokio::join!(readers, writers);
    });
    let counters = rig.stats().store.counters;
    assert!(counters.regions_freed > 3, "{counters:?}");
    assert_eq!(counters.damaged, 0, "a moved entry is not damage");
}

#[test]
fn entries_of_a_freed_region_never_come_back() {
    for power in [false, true] {
        let mut rig = Rig::new();
        rig.fill("filler", 4 * 12, 1000);
        rig.sleep(secs(3));
        let gone: Vec<u64> =
            (0..48).filter(|n| rig.get(format!("filler-{n}").as_bytes()).is_none()).collect();
        assert!(!gone.is_empty() && gone.len() < 40);
        if power {
            rig.power_cut()
        } else {
            rig.kill()
        }
        for n in gone {
            assert_eq!(rig.get(format!("filler-{n}").as_bytes()), None, "filler-{n}");
        }
        rig.cache().device_store().check_accounting();
    }
}

/// Fills the device so that `filler-0` to `filler-3` are in the region reclaimed next, and lets
/// reclaim fail at the step that makes it free.
fn failing_to_free() -> Rig {
    let rig = Rig::new();
    rig.fill("filler", 4, 1000);
    rig.sleep(secs(2));
    let start = rig.region_start(rig.find(&body(0, QUARTER)[..64]));
    let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Write);
    rig.sim.inject(fault.within(start..start + 4096).always());
    rig.fill("more", 4 * 8, 1000);
    rig.sleep(millis(500));
    assert_eq!(rig.get(b"filler-0"), None, "evicted");
    rig
}

#[test]
fn a_purge_of_an_entry_whose_region_could_not_be_freed_holds() {
    let mut rig = failing_to_free();
    rig.remove(b"filler-0").unwrap();
    rig.sim.clear_faults();
    rig.kill();
    assert_eq!(rig.get(b"filler-0"), None);
}

#[test]
fn a_purge_while_the_region_is_being_freed_holds() {
    for at in (0..200).step_by(30) {
        let mut rig = Rig::new();
        rig.fill("filler", 4 * 8 - 1, 1000);
        rig.sleep(secs(2));
        rig.sim.set_delay(Delay::Sleep(millis(20)));
        rig.run(async {
            let options = for_secs(1000);
            for n in 0..4 {
                let (key, bytes) = (format!("more-{n}"), body(n, QUARTER));
                let put = rig.cache().put(key.as_bytes(), bytes, Condition::Always, &options);
                let _ = tokio::time::timeout(millis(20), put).await;
            }
            tokio::time::sleep(millis(at)).await;
            let _ = tokio::time::timeout(millis(300), rig.cache().remove(b"filler-0")).await;
        });
        let gone = rig.get(b"filler-0").is_none();
        rig.sim.set_delay(Delay::None);
        rig.kill();
        assert!(!gone || rig.get(b"filler-0").is_none(), "after {at} ms");
    }
}

#[test]
fn a_region_that_cannot_be_freed_does_not_stop_stores() {
    let rig = failing_to_free();
    for n in 0..100 {
        let key = format!("yet-more-{n}");
        rig.put(key.as_bytes(), &body(n, QUARTER), &for_secs(1000)).unwrap();
    }
    assert!(rig.get(b"yet-more-99").is_some());
}

#[test]
fn a_region_that_cannot_be_read_does_not_stop_stores() {
    let rig = Rig::new();
    rig.fill("filler", 4, 1000);
    rig.sleep(secs(2));
    let start = rig.region_start(rig.find(&body(0, QUARTER)[..64]));
    let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
    rig.sim.inject(fault.within(start..start + REGION).always());
    for n in 0..100 {
        let key = format!("more-{n}");
        rig.put(key.as_bytes(), &body(n, QUARTER), &for_secs(1000)).unwrap();
    }
    assert!(rig.get(b"more-99").is_some());
}

#[test]
fn emptying_a_region_gives_way_to_others() {
    // Regions of about ten thousand entries.
    let disk = Disk { regions: 10, region_size: 1 << 20, alignment: 4096 };
    let rig = Rig::with(disk, plain());
    let cache = rig.cache().clone();
    let store = async move {
        for n in 0u32..150_000 {
            let key = n.to_le_bytes();
            cache.put(&key, Bytes::new(), Condition::Always, &for_secs(9)).await.unwrap();
        }
    };
    rig.run(async {
        let store = tokio::spawn(store);
        let (mut entries, mut evicted) = (0, 0);
        while !store.is_finished() || evicted == 0 {
            let now = rig.stats().store.entries;
            let fewer = u64::saturating_sub(entries, now);
            assert!(fewer <= 1024, "{fewer} entries went at once");
            (entries, evicted) = (now, evicted + fewer);
            tokio::task::yield_now().await;
        }
        store.await.unwrap();
        assert!(evicted > 1024);
    });
}

#[test]
fn a_region_is_not_free_when_a_flush_failed_between_the_writes_that_free_it() {
    let mut failed = 0;
    for seed in 0..60 {
        let at = seed * 7 % 1000;
        let mut rig = Rig::new();
        rig.put(b"victim", &body(1, QUARTER), &for_secs(100_000)).unwrap();
        rig.fill("beside-victim", 3, 20);
        rig.fill("beside-kill", 2, 20);
        // By a version of its own: the tombstone of a purge is in another log too.
        rig.put(b"victim", &body(2, QUARTER), &for_secs(20)).unwrap();
        rig.fill("beside-kill-too", 1, 20);
        // Seven regions that stay, and one more is free.
        rig.fill("filler", 4 * 5 + 1, 100_000);
        rig.sleep(secs(2));
        rig.clock.advance(secs(60));
        for n in 0..3 {
            assert_eq!(rig.get(format!("beside-victim-{n}").as_bytes()), None, "nothing is left");
        }
        // The victim's region is emptied first, then that of its tombstone.
        rig.sim.reseed(seed);
        rig.sim.set_delay(Delay::Sleep(millis(400)));
        rig.run(async {
            let options = for_secs(100_000);
            for n in 0..4 {
                let (key, bytes) = (format!("more-{n}"), body(n, QUARTER));
                let put = rig.cache().put(key.as_bytes(), bytes, Condition::Always, &options);
                let _ = tokio::time::timeout(millis(50), put).await;
            }
            tokio::time::sleep(millis(at)).await;
            rig.sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Flush));
            let options = flushed();
            let put = rig.cache().put(b"flushes", body(1, 10), Condition::Always, &options);
            let _ = tokio::time::timeout(secs(3), put).await;
        });
        rig.sim.set_delay(Delay::None);
        rig.sleep(secs(3));
        failed += rig.stats().store.regions_set_aside;
        for n in 0.. {
            if rig.stats().store.counters.regions_freed >= 2 {
                break;
            }
            assert!(n < 20, "the region of the tombstone is freed");
            let _ = rig.put(format!("last-{n}").as_bytes(), &body(n, QUARTER), &for_secs(100_000));
            rig.sleep(millis(1500));
        }
        rig.power_cut();
        assert_eq!(rig.get(b"victim"), None, "after {at} ms, seed {seed}");
    }
    assert!(failed > 3, "{failed} flushes failed at the right time");
}
