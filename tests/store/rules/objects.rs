//! Rule 10: whole objects. An object of several slices is there whole or not at all.

use rawcached::cache::{CacheOptions, Condition, StoreError};
use rawcached::device::{Delay, Effect, Fault, OperationKind};
use rawcached::store::Scrubber;

use crate::rig::*;

const LARGE: usize = 300_000;

#[test]
fn an_object_without_its_head_is_a_miss() {
    let mut rig = Rig::new();
    let writer = rig.run(async {
        let mut writer = rig.cache().store(b"key", for_secs(1000)).unwrap();
        writer.write_chunk(&body(1, LARGE)).await.unwrap();
        writer
    });
    assert_eq!(rig.get(b"key"), None);
    rig.sleep(secs(2));
    std::mem::forget(writer);
    rig.kill();
    assert_eq!(rig.get(b"key"), None);
}

#[test]
fn an_object_that_lost_a_slice_is_a_miss() {
    let rig = Rig::with(Disk { regions: 16, ..SMALL }, plain());
    rig.put(b"key", &body(1, LARGE), &for_secs(1000)).unwrap();
    rig.fill("filler", 4 * 13, 1000);
    // Only the head is hit and may stay when the slices go.
    let is_whole = |n: &u64| {
        rig.fill(&format!("more-{n}"), 1, 1000);
        rig.sleep(millis(300));
        rig.run(async {
            let Some(head) = rig.cache().lookup_head(b"key").await else { return false };
            head.is_complete().await
        })
    };
    assert!((0..200).find(|n| !is_whole(n)).is_some(), "evicted in the end");
    assert!(rig.run(rig.cache().lookup(b"key")).is_none());
    assert_eq!(rig.get(b"key"), None);
}

#[test]
fn a_damaged_first_slice_is_a_miss_and_a_later_one_ends_the_body_short() {
    for (slice, miss) in [(0, true), (1, false), (4, false)] {
        let rig = Rig::new();
        rig.put(b"key", &body(1, LARGE), &for_secs(1000)).unwrap();
        rig.fill("filler", 5, 1000);
        rig.sleep(secs(2));
        let at = rig.find(&body(1, LARGE)[slice * 65_536 + 100..][..64]);
        rig.sim.corrupt(at, 1);
        assert_eq!(rig.run(rig.cache().lookup(b"key")).is_none(), miss, "slice {slice}");
        assert_eq!(rig.get(b"key"), None);
        assert!(rig.stats().store.counters.damaged > 0);
        assert!(rig.run(rig.cache().lookup(b"key")).is_none(), "it is known now");
    }
}

#[test]
fn finalize_fails_when_a_slice_was_lost_meanwhile() {
    let rig = Rig::new();
    let mut writer = rig.cache().store(b"key", for_secs(1000)).unwrap();
    rig.run(writer.write_chunk(&body(1, LARGE))).unwrap();
    rig.fill("filler", 5, 1000);
    rig.sleep(secs(2));
    rig.sim.corrupt(rig.find(&body(1, LARGE)[65_536 + 100..][..64]), 1);
    rig.run(async {
        let mut scrubber = Scrubber::starting_at(rig.cache().device_store().clone(), 0);
        while !scrubber.step().await.pass_ended {}
    });
    let stored = rig.run(writer.finalize(Condition::Always));
    assert!(matches!(stored, Err(StoreError::Evicted)), "{stored:?}");
    assert_eq!(rig.get(b"key"), None);
}

#[test]
fn a_dropped_writer_leaves_the_old_object_and_no_orphans() {
    for len in [100, LARGE] {
        let rig = Rig::new();
        rig.put(b"key", &body(1, LARGE), &for_secs(1000)).unwrap();
        let before = rig.stats().store.entries;
        rig.run(async {
            let mut writer = rig.cache().store(b"key", for_secs(1000)).unwrap();
            writer.write_chunk(&body(2, len)).await.unwrap();
            drop(writer);
            tokio::time::sleep(secs(1)).await;
        });
        assert_eq!(rig.get(b"key").unwrap(), body(1, LARGE));
        assert_eq!(rig.stats().store.entries, before);
        assert_eq!(rig.stats().write_buffer_bytes, 0);
    }
}

#[test]
fn replaced_and_purged_objects_leave_no_slices() {
    let rig = Rig::new();
    rig.put(b"key", &body(1, LARGE), &for_secs(1000)).unwrap();
    rig.put(b"key", &body(2, LARGE / 2), &for_secs(1000)).unwrap();
    assert_eq!(rig.get(b"key").unwrap(), body(2, LARGE / 2));
    rig.sleep(secs(1));
    assert_eq!(rig.stats().store.entries, 1 + 3);
    rig.remove(b"key").unwrap();
    rig.sleep(secs(1));
    assert_eq!(rig.stats().store.entries, 0);
    assert_eq!(rig.stats().store.live_bytes, 0);
}

#[test]
fn a_condition_that_fails_leaves_the_old_object() {
    let rig = Rig::new();
    rig.put(b"key", &body(1, LARGE), &for_secs(1000)).unwrap();
    let before = rig.stats().store.entries;
    rig.run(async {
        let mut writer = rig.cache().store(b"key", for_secs(1000)).unwrap();
        writer.write_chunk(&body(2, LARGE)).await.unwrap();
        writer.finalize(Condition::Absent).await.unwrap();
        tokio::time::sleep(secs(1)).await;
    });
    assert_eq!(rig.get(b"key").unwrap(), body(1, LARGE));
    assert_eq!(rig.stats().store.entries, before);
}

#[test]
fn a_touched_object_keeps_its_slices_as_long_as_its_head() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, LARGE), &for_secs(50)).unwrap();
    rig.sleep(secs(2));
    rig.run(rig.cache().touch(b"key", secs(500))).unwrap().unwrap();
    rig.sleep(secs(2));
    rig.clock.advance(secs(100));
    assert_eq!(rig.get(b"key").unwrap(), body(1, LARGE));
    rig.kill();
    assert_eq!(rig.get(b"key").unwrap(), body(1, LARGE));
}

#[test]
fn a_writer_that_failed_cannot_be_finalized() {
    let rig = Rig::with(SMALL, options!(CacheOptions { write_buffer_bytes: 64 << 10, ..plain() }));
    for goes_on in [true, false] {
        let stored = rig.run(async {
            let mut writer = rig.cache().store(b"key", for_secs(1000)).unwrap();
            writer.write_chunk(&body(1, 40_000)).await.unwrap();
            let mut other = rig.cache().store(b"other", for_secs(1000)).unwrap();
            other.write_chunk(&body(1, 40_000)).await.unwrap();
            if goes_on {
                assert!(writer.write_chunk(&body(1, 1000)).await.is_err(), "its memory is gone");
            }
            drop(other);
            writer.finalize(Condition::Always).await
        });
        assert!(stored.is_err(), "{stored:?}");
        assert_eq!(rig.get(b"key"), None, "a body with a gap is not an object");
    }
}

#[test]
fn a_stream_whose_slices_cannot_be_written_is_not_acknowledged_as_flushed() {
    let rig = Rig::new();
    rig.put(b"first", &body(1, 10), &flushed()).unwrap();
    let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Write);
    rig.sim.inject(fault.always());
    assert!(rig.put(b"key", &body(1, LARGE), &flushed()).is_err());
    assert_eq!(rig.get(b"key"), None);
}

#[test]
fn writers_that_use_up_the_memory_do_not_wait_for_each_other_in_a_circle() {
    let disk = Disk { regions: 20, region_size: 2 << 20, alignment: 4096 };
    let slice = disk.region_size / 4;
    let rig = Rig::with(disk, options!(CacheOptions { write_buffer_bytes: 4 * slice, ..plain() }));
    rig.run(async {
        let whole = usize::try_from(slice + 1000).unwrap();
        let part = whole * 3 / 4;
        let mut writers = Vec::new();
        let begun = tokio::time::Instant::now();
        for number in 0..8u8 {
            let mut writer = rig.cache().store(&[number], for_secs(1000)).unwrap();
            writers.push(async move {
                // All of them have a part of a slice before one has all of it.
                for piece in body(number.into(), whole).chunks(part / 16) {
                    writer.write_chunk(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                writer.finalize(Condition::Always).await.unwrap();
            });
        }
        futures_util::future::join_all(writers).await;
        assert!(begun.elapsed() < secs(1), "they waited for memory in vain");
    });
    for number in 0..8u8 {
        let whole = usize::try_from(slice + 1000).unwrap();
        assert_eq!(rig.get(&[number]).unwrap(), body(number.into(), whole));
    }
}

#[test]
fn stores_in_progress_hold_up_no_flush_and_no_region() {
    let rig = Rig::with(SMALL, plain());
    rig.run(async {
        let mut slow = Vec::new();
        for number in 0..100u8 {
            let mut writer = rig.cache().store(&[number], for_secs(100_000)).unwrap();
            writer.write_chunk(&body(number.into(), 1000)).await.unwrap();
            slow.push(writer);
        }
        let mut sliced = rig.cache().store(b"sliced", for_secs(100_000)).unwrap();
        sliced.write_chunk(&body(1, LARGE)).await.unwrap();
        let begun = tokio::time::Instant::now();
        for round in 0..60u64 {
            let (key, bytes, options) = (round.to_be_bytes(), body(round, QUARTER), flushed());
            rig.cache().put(&key, bytes, Condition::Always, &options).await.unwrap();
            for (number, writer) in (0..100u8).zip(&mut slow) {
                writer.write_chunk(&[number; 10]).await.unwrap();
            }
        }
        assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
        sliced.finalize(Condition::Always).await.unwrap();
        for writer in slow {
            writer.finalize(Condition::Always).await.unwrap();
        }
    });
    let counters = rig.stats().store.counters;
    assert!(counters.regions_freed >= 5 && counters.refused == 0, "{counters:?}");
    for number in 0..100u8 {
        let expected = [&body(number.into(), 1000)[..], &[number; 600]].concat();
        assert_eq!(rig.get(&[number]).unwrap(), expected);
    }
}

#[test]
fn stores_that_take_long_do_not_hold_up_others() {
    let disk = Disk { regions: 20, region_size: 2 << 20, alignment: 4096 };
    let slice = disk.region_size / 4;
    let rig = Rig::with(disk, options!(CacheOptions { write_buffer_bytes: 4 * slice, ..plain() }));
    let part = usize::try_from(slice).unwrap() - 100_000;
    let body = |number: u8| body(number.into(), part + 1000);
    rig.run(async {
        let mut slow = Vec::new();
        for number in 0..4u8 {
            let mut writer = rig.cache().store(&[number], for_secs(1000)).unwrap();
            writer.write_chunk(&body(number)[..part]).await.unwrap();
            slow.push(writer);
            tokio::time::sleep(millis(10)).await;
        }
        let stats = rig.cache().stats();
        assert!(stats.write_buffer_bytes > 3 * slice, "the reserve is in use too: {stats:?}");
        tokio::time::sleep(secs(9)).await;
        let begun = tokio::time::Instant::now();
        for number in 100..103u8 {
            let mut writer = rig.cache().store(&[number], for_secs(1000)).unwrap();
            writer.write_chunk(&body(number)).await.unwrap();
            writer.finalize(Condition::Always).await.unwrap();
        }
        let waited = begun.elapsed();
        assert!(waited < secs(1), "they wait for nobody: {waited:?}");
        for (number, mut writer) in (0..4u8).zip(slow) {
            let written = writer.write_chunk(&body(number)[part..]).await;
            if number == 0 {
                assert!(
                    matches!(written, Err(StoreError::Busy(_))),
                    "the longest at it: {written:?}"
                );
            } else {
                written.unwrap();
                writer.finalize(Condition::Always).await.unwrap();
            }
        }
        assert_eq!(rig.cache().stats().write_buffer_bytes, 0);
    });
    assert_eq!(rig.get(&[0]), None);
    (1..4).for_each(|number| assert_eq!(rig.get(&[number]).unwrap(), body(number)));
    (100..103).for_each(|number| assert_eq!(rig.get(&[number]).unwrap(), body(number)));
}

#[test]
fn the_store_that_has_the_reserve_does_not_keep_it_from_all_others() {
    let disk = Disk { regions: 20, region_size: 2 << 20, alignment: 4096 };
    let slice = usize::try_from(disk.region_size / 4).unwrap();
    let rig =
        Rig::with(disk, options!(CacheOptions { write_buffer_bytes: 2 * slice as u64, ..plain() }));
    rig.run(async {
        let mut writers = Vec::new();
        for number in 0..3u8 {
            let mut writer = rig.cache().store(&[number], for_secs(1000)).unwrap();
            let begin = if number < 2 { slice / 2 } else { 1 };
            writer.write_chunk(&body(number.into(), slice)[..begin]).await.unwrap();
            writers.push(writer);
        }
        let mut stalled = writers.pop().unwrap();
        let begun = tokio::time::Instant::now();
        let rest = (0..2u8).zip(writers).map(async |(number, mut writer)| {
            writer.write_chunk(&body(number.into(), slice)[slice / 2..]).await.unwrap();
            writer.finalize(Condition::Always).await.unwrap();
        });
        futures_util::future::join_all(rest).await;
        let waited = begun.elapsed();
        assert!(waited < secs(1), "{waited:?}");
        assert!(matches!(stalled.write_chunk(b"x").await, Err(StoreError::Busy(_))));
    });
    (0..2u8).for_each(|n| assert_eq!(rig.get(&[n]).unwrap(), body(n.into(), slice)));
    assert_eq!(rig.get(&[2]), None);
}

#[test]
fn many_lookups_at_a_time_read_a_bounded_number_of_bytes() {
    let disk = Disk { regions: 20, region_size: 8 << 20, alignment: 4096 };
    let rig = Rig::with(disk, plain());
    let len = 1_000_000;
    for number in 0..80u8 {
        rig.put(&[number], &body(number.into(), len), &for_secs(1000)).unwrap();
    }
    rig.sleep(secs(2));
    rig.sim.set_delay(Delay::Sleep(millis(50)));
    let most = rig.run(async {
        let lookups = (0..80u8).map(|number| { let rig = &rig; async move { read(rig.cache(), &[number]).await } });
        let all = futures_util::future::join_all(lookups);
        let mut all = std::pin::pin!(all);
        let mut most = 0;
        loop {
            let stats = rig.cache().device_store().device().stats();
            most = most.max(stats.reads_in_flight);
            tokio::select! {
                found = &mut all => {
                    assert!(found.iter().all(|found| found.as_ref().is_some_and(|body| body.len() == len)));
                    return most;
                }
                () = tokio::time::sleep(millis(1)) => {}
            }
        }
    });
    assert!((20..=32).contains(&most), "{most} reads of a megabyte at a time");
}

/// A device of 100 MiB, almost full, with a dead object of 640 slices in it, of which none is in memory.
/// Each look at one is a read, of a tenth of a second.
fn with_slices_to_drop() -> Rig {
    let rig = Rig::with(Disk { regions: 400, ..SMALL }, plain());
    rig.put(b"large", &body(1, 40 << 20), &for_secs(100_000)).unwrap();
    rig.fill("later", 4 * 200, 100_000);
    rig.sleep(secs(3));
    rig.sim.set_delay(Delay::Sleep(millis(200)));
    assert!(rig.remove(b"large").unwrap());
    rig.sleep(secs(1));
    rig
}

#[test]
fn a_stop_does_not_wait_for_the_slices_of_a_dead_object() {
    let rig = with_slices_to_drop();
    let begun = rig.run(async { tokio::time::Instant::now() });
    rig.run(rig.cache().shutdown()).unwrap();
    let lasted = rig.run(async { begun.elapsed() });
    assert!(lasted < secs(20), "{lasted:?}");
    assert_eq!(rig.stats().store.counters.snapshots_written, 1);
}

#[test]
fn reclaim_does_not_wait_for_the_slices_of_a_dead_object() {
    let rig = with_slices_to_drop();
    rig.fill("more", 4 * 40, 100_000);
    let counters = rig.stats().store.counters;
    assert!(counters.regions_freed > 0 && counters.refused == 0, "{counters:?}");
}
