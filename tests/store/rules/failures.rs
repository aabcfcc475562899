//! Devices that fail: no panic, no false success, nothing comes back that was purged.

use rawcached::cache::{Condition, StoreError, StoreOptions};
use rawcached::device::{Delay, Effect, Fault, OperationKind};

use crate::rig::*;

fn failing(kind: OperationKind, code: i32) -> Fault {
    Fault::new(Effect::Fail(code)).on(kind)
}

#[test]
fn a_failed_read_is_a_miss_and_the_entry_stays() {
    let rig = Rig::new();
    rig.put(b"key", &body(1, 5000), &for_secs(1000)).unwrap();
    rig.put(b"large", &body(2, 200_000), &for_secs(1000)).unwrap();
    rig.fill("filler", 5, 1000);
    rig.sleep(secs(2));
    rig.sim.inject(failing(OperationKind::Read, libc::EIO).always());
    assert_eq!(rig.get(b"key"), None);
    assert_eq!(rig.get(b"large"), None);
    assert!(rig.stats().store.counters.read_errors >= 2);
    rig.sim.clear_faults();
    assert_eq!(rig.get(b"key").unwrap(), body(1, 5000));
    assert_eq!(rig.get(b"large").unwrap(), body(2, 200_000));
}

#[test]
fn an_overwrite_or_purge_of_an_unreadable_entry_holds() {
    for purge in [false, true] {
        let mut rig = Rig::new();
        rig.put(b"key", &body(1, 5000), &for_secs(1000)).unwrap();
        rig.fill("filler", 5, 1000);
        rig.sleep(secs(2));
        rig.sim.inject(failing(OperationKind::Read, libc::EIO).always());
        if purge {
            rig.remove(b"key").unwrap();
        } else {
            rig.put(b"key", &body(2, 100), &flushed()).unwrap();
        }
        rig.sim.clear_faults();
        for _ in 0..2 {
            assert_eq!(rig.get(b"key").is_none(), purge);
            assert!(purge || rig.get(b"key").unwrap() == body(2, 100));
            rig.kill();
        }
    }
}

#[test]
fn flushed_stores_fail_when_the_device_does_and_work_again_later() {
    for code in [libc::EIO, libc::ENOSPC] {
        for kind in [OperationKind::Write, OperationKind::Flush] {
            let mut rig = Rig::new();
            rig.put(b"old", &body(1, 100), &flushed()).unwrap();
            rig.sim.inject(failing(kind, code).always());
            let stored = rig.put(b"key", &body(2, 100), &flushed());
            assert!(matches!(stored, Err(StoreError::NotDurable)), "{kind:?} {stored:?}");
            rig.sim.clear_faults();
            rig.put(b"later", &body(3, 100), &flushed()).unwrap();
            rig.power_cut();
            assert_eq!(rig.get(b"later").unwrap(), body(3, 100));
            assert_eq!(rig.get(b"old").unwrap(), body(1, 100));
        }
    }
}

#[test]
fn buffered_stores_that_could_not_be_written_are_right_or_a_miss() {
    let mut rig = Rig::new();
    rig.put(b"old", &body(1, 100), &flushed()).unwrap();
    rig.sim.inject(failing(OperationKind::Write, libc::EIO).always());
    for n in 0..40 {
        let _ = rig.put(format!("key-{n}").as_bytes(), &body(n, QUARTER), &for_secs(1000));
        rig.sleep(millis(50));
    }
    rig.sim.clear_faults();
    for _ in 0..2 {
        for n in 0..40 {
            let found = rig.get(format!("key-{n}").as_bytes());
            assert!(found.is_none() || found.unwrap() == body(n, QUARTER), "key-{n}");
        }
        let old = rig.get(b"old");
        assert!(old.is_none() || old.unwrap() == body(1, 100));
        rig.cache().device_store().check_accounting();
        rig.kill();
    }
}

#[test]
fn a_purge_that_could_not_be_made_durable_is_an_error_and_can_be_repeated() {
    for kind in [OperationKind::Write, OperationKind::Flush] {
        let mut rig = Rig::new();
        rig.put(b"key", &body(1, 100), &flushed()).unwrap();
        rig.sim.inject(failing(kind, libc::EIO).always());
        assert!(rig.remove(b"key").is_err(), "{kind:?}");
        assert_eq!(rig.get(b"key"), None, "gone at once all the same");
        assert!(rig.remove(b"key").is_err(), "still not durable");
        rig.sim.clear_faults();
        rig.remove(b"key").unwrap();
        rig.power_cut();
        assert_eq!(rig.get(b"key"), None, "{kind:?}");
    }
}

#[test]
fn a_device_that_refuses_flushes_is_not_asked_without_pause() {
    let rig = Rig::new();
    rig.put(b"key", &body(1, 100), &flushed()).unwrap();
    rig.sim.inject(failing(OperationKind::Flush, libc::EIO).always());
    rig.put(b"key", &body(2, 100), &for_secs(1000)).unwrap();
    let before = rig.sim.counts().flushes;
    rig.sleep(secs(20));
    let flushes = rig.sim.counts().flushes - before;
    assert!((1..100).contains(&flushes), "{flushes} flushes in 20 s");
}

#[test]
fn a_device_that_keeps_failing_is_refused_stores_and_keeps_what_it_holds() {
    let mut rig = Rig::new();
    rig.fill("kept", 20, 5000);
    rig.sleep(secs(2));
    rig.sim.inject(failing(OperationKind::Write, libc::ENOSPC).always());
    for n in 0..3 {
        let _ = rig.put(b"trigger", &body(n, 100), &for_secs(1000));
        rig.sleep(std::time::Duration::from_millis(200));
    }
    let before = rig.sim.counts().writes;
    let free = rig.stats().store.regions_free;
    for n in 0..1000 {
        let stored = rig.put(b"trigger", &body(n, 100), &for_secs(1000));
        assert!(matches!(stored, Err(StoreError::Refused)), "{stored:?}");
    }
    rig.sleep(secs(60));
    let tries = rig.sim.counts().writes - before;
    assert!((10..200).contains(&tries), "{tries} writes in a minute");
    assert_eq!(rig.stats().store.regions_free, free, "no region is given up meanwhile");
    assert_eq!(rig.get(b"trigger"), None);
    assert!(rig.remove(b"kept-1").is_err());
    assert_eq!(rig.get(b"kept-2").unwrap(), body(2, QUARTER));
    rig.sim.clear_faults();
    rig.sleep(secs(2));
    rig.put(b"trigger", &body(7, 100), &flushed()).unwrap();
    rig.kill();
    assert_eq!(rig.get(b"trigger").unwrap(), body(7, 100));
}

#[test]
fn the_first_change_fails_when_the_epoch_cannot_be_raised() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 100), &flushed()).unwrap();
    rig.kill();
    rig.sim.inject(failing(OperationKind::Write, libc::EIO).always());
    assert!(rig.put(b"key", &body(2, 100), &for_secs(1000)).is_err());
    assert!(rig.remove(b"key").is_err());
    rig.sim.clear_faults();
    rig.put(b"key", &body(3, 100), &for_secs(1000)).unwrap();
    assert_eq!(rig.get(b"key").unwrap(), body(3, 100));
}

#[test]
fn a_touch_on_a_failing_device_is_an_error() {
    let rig = Rig::new();
    rig.put(b"key", &body(1, 100), &flushed()).unwrap();
    rig.fill("filler", 5, 1000);
    rig.sleep(secs(2));
    rig.sim.inject(failing(OperationKind::Write, libc::EIO).always());
    assert!(rig.run(rig.cache().touch(b"key", secs(50))).is_err());
    rig.sim.clear_faults();
    assert_eq!(rig.get(b"key").unwrap(), body(1, 100));
    rig.run(rig.cache().touch(b"key", secs(50))).unwrap().unwrap();
}

#[test]
fn short_transfers_and_interruptions_are_continued() {
    let mut rig = Rig::new();
    for kind in [OperationKind::Write, OperationKind::Read] {
        for n in 0..40 {
            let effect = if n % 2 == 0 { Effect::Short(4096) } else { Effect::Fail(libc::EINTR) };
            rig.sim.inject(Fault::new(effect).on(kind).after(n * 2));
        }
    }
    for n in 0..9 {
        let options = options!(StoreOptions { ttl: Some(secs(1000)), ..flushed() });
        rig.put(format!("key-{n}").as_bytes(), &body(n, QUARTER), &options).unwrap();
    }
    rig.kill();
    for n in 0..9 {
        assert_eq!(rig.get(format!("key-{n}").as_bytes()).unwrap(), body(n, QUARTER));
    }
    assert!(rig.sim.counts().faults > 20);
}

#[test]
fn a_header_that_can_be_read_later_in_the_start_counts() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(99, 1000), &flushed()).unwrap();
    let start = rig.region_start(rig.find(&body(99, 1000)[..64]));
    rig.stop();
    for _ in 0..3 {
        rig.sim.inject(failing(OperationKind::Read, libc::EIO).within(start..start + 512));
    }
    rig.open();
    assert_eq!(rig.sim.counts().faults, 3);
    assert_eq!(rig.get(b"key").unwrap(), body(99, 1000));
    rig.fill("more", 4 * 5, 1000);
    assert_eq!(rig.get(b"key").unwrap(), body(99, 1000));
}

#[test]
fn a_region_whose_header_cannot_be_read_at_the_start_is_not_given_away() {
    let mut rig = Rig::new();
    rig.fill("filler", 5, 1000);
    rig.put(b"key", &body(99, 1000), &flushed()).unwrap();
    let start = rig.region_start(rig.find(&body(99, 1000)[..64]));
    rig.stop();
    rig.sim.inject(failing(OperationKind::Read, libc::EIO).within(start..start + 512).always());
    rig.open();
    assert_eq!(rig.get(b"key"), None);
    rig.fill("more", 4 * 5, 1000);
    rig.sim.clear_faults();
    rig.restart();
    assert_eq!(rig.get(b"key").unwrap(), body(99, 1000));
}

#[test]
fn a_header_that_a_failed_flush_covered_is_written_again() {
    let mut rig = Rig::new();
    rig.fill("filler", 4, 1000);
    rig.sleep(secs(3));
    rig.run(async {
        let options = options!(StoreOptions { ttl: Some(secs(1000)), ..StoreOptions::default() });
        let put = |key: &'static [u8], seed| {
            rig.cache().put(key, body(seed, 30_000), Condition::Always, &options)
        };
        rig.sim.inject(failing(OperationKind::Flush, libc::EIO));
        rig.sim.set_delay(Delay::Sleep(millis(300)));
        // Opens the next region.
        put(b"lost", 1).await.unwrap();
        let before = rig.sim.counts().flushes;
        while rig.sim.counts().flushes == before {
            tokio::time::sleep(millis(1)).await;
        }
        // The flush in progress, which fails, covers the header, and none of this.
        put(b"key", 2).await.unwrap();
        rig.sim.set_delay(Delay::None);
        tokio::time::sleep(secs(5)).await;
    });
    assert_eq!(rig.stats().store.counters.write_errors, 1);
    rig.power_cut();
    assert_eq!(rig.get(b"key").unwrap(), body(2, 30_000));
}

#[test]
fn a_device_that_reclaim_found_failing_is_tried_again_by_itself() {
    let rig = Rig::new();
    rig.fill("first", 4 * 8, 100_000);
    rig.sleep(secs(2));
    // No region that is in use now can be freed.
    let in_use = (0..SMALL.regions).map(|region| SUPERBLOCK + region * REGION).filter(|at| {
        let header = rig.sim.contents(*at..*at + 8);
        header == b"RCREGION"
    });
    for at in in_use.collect::<Vec<_>>() {
        let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Write);
        rig.sim.inject(fault.within(at..at + 4096).always());
    }
    rig.fill("second", 3, 100_000);
    rig.sleep(secs(30));
    assert!(!rig.cache().takes_writes(), "reclaim failed again and again");
    rig.sim.clear_faults();
    rig.sleep(secs(30));
    assert!(rig.cache().takes_writes());
    rig.put(b"key", &body(1, 100), &flushed()).unwrap();
}

/// Conditions of which the last two hold of an entry with this CAS value.
fn conditions(cas: u64) -> [Condition; 3] {
    [Condition::Absent, Condition::Present, Condition::Unchanged(cas)]
}

#[test]
fn a_store_with_a_condition_that_was_not_published_leaves_the_entry_as_it_was() {
    let rig = Rig::new();
    let cas = rig.put(b"key", &body(1, 3000), &flushed()).unwrap();
    let is_there = || assert_eq!(rig.get(b"key").unwrap(), body(1, 3000));
    for condition in conditions(cas) {
        let too_large = rig.run(async {
            let mut writer = rig.cache().store(b"key", for_secs(1000)).unwrap();
            let piece = body(2, 1 << 20);
            while writer.write_chunk(&piece).await.is_ok() {}
            writer.finalize(condition).await
        });
        assert!(matches!(too_large, Err(StoreError::Incomplete)), "{too_large:?}");
        is_there();
    }
    rig.sim.inject(failing(OperationKind::Write, libc::EIO).always());
    for n in 0..3 {
        let _ = rig.put(b"trigger", &body(n, 100), &flushed());
    }
    for len in [100, 300_000] {
        for condition in conditions(cas) {
            let options = flushed();
            let refused = rig.run(rig.cache().put(b"key", body(2, len), condition, &options));
            assert!(matches!(refused, Err(StoreError::Refused)), "{refused:?}");
            is_there();
            let written = rig.run(async {
                let mut writer = rig.cache().store(b"key", flushed()).unwrap();
                let _ = writer.write_chunk(&body(2, len)).await;
                writer.finalize(condition).await
            });
            assert!(written.is_err(), "{written:?}");
            is_there();
        }
    }
}

#[test]
fn a_store_with_a_condition_that_was_published_and_is_not_durable_is_gone() {
    for len in [100, 300_000] {
        for condition in [Condition::Absent, Condition::Present] {
            let rig = Rig::new();
            if condition == Condition::Present {
                rig.put(b"key", &body(1, 3000), &flushed()).unwrap();
            }
            rig.put(b"other", &body(1, 3000), &flushed()).unwrap();
            rig.sim.inject(failing(OperationKind::Flush, libc::EIO).always());
            let stored = rig.run(rig.cache().put(b"key", body(2, len), condition, &flushed()));
            assert!(matches!(stored, Err(StoreError::NotDurable)), "{stored:?}");
            assert_eq!(rig.get(b"key"), None, "{condition:?}, {len} bytes");
        }
    }
}

#[test]
fn a_stop_that_failed_says_so_to_all_who_ask() {
    let rig = Rig::new();
    rig.put(b"key", &body(1, 3000), &for_secs(1000)).unwrap();
    rig.sim.inject(failing(OperationKind::Write, libc::EIO).always());
    let (one, other) =
        rig.run(async { tokio::join!(rig.cache().shutdown(), rig.cache().shutdown()) });
    let later = rig.run(rig.cache().shutdown());
    assert!(one.is_err() && other.is_err() && later.is_err(), "{one:?}, {other:?}, {later:?}");
}
