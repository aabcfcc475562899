//! Devices that limp: lookups do not wait for them for ever, stores do not make it worse, and all is as
//! before when they recover.

use bytes::Bytes;
use rawcached::cache::{CacheOptions, Condition, StoreError};
use rawcached::device::{Delay, Effect, Fault, OperationKind};

use crate::rig::*;

/// A cache whose device gives lookups a second.
fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.sim.set_read_deadline(secs(1));
    rig.kill();
    rig.put(b"key", &body(1, 5000), &for_secs(100_000)).unwrap();
    rig.fill("filler", 5, 100_000);
    rig.sleep(secs(2));
    rig
}

/// Looks up a key ten times a second; true if it was there each time.
fn look(rig: &Rig, seconds: u64) -> bool {
    (0..seconds * 10).all(|_| {
        rig.sleep(millis(100));
        rig.get(b"key").is_some()
    })
}

#[test]
fn a_read_that_lasts_too_long_is_a_miss_and_the_entry_stays() {
    let rig = rig();
    assert_eq!(rig.get(b"key").unwrap(), body(1, 5000));
    rig.sim.set_delay(Delay::Sleep(secs(500)));
    let began = rig.run(async { tokio::time::Instant::now() });
    assert_eq!(rig.get(b"key"), None);
    let waited = rig.run(async move { began.elapsed() });
    assert!(waited < millis(1100), "{waited:?}");
    let overdue = || rig.cache().device_store().device().stats().overdue_now;
    assert_eq!(overdue(), 1);
    rig.sim.set_delay(Delay::None);
    assert_eq!(rig.get(b"key").unwrap(), body(1, 5000));
    assert_eq!(overdue(), 1, "the kernel may still write to its memory");
    rig.sleep(secs(500));
    assert_eq!(overdue(), 0);
}

#[test]
fn a_touch_does_not_wait_for_ever_for_a_device_that_does_not_answer() {
    for in_ram in [false, true] {
        let options =
            options!(CacheOptions { ram_bytes: if in_ram { 1 << 20 } else { 0 }, ..plain() });
        let mut rig = Rig::with(SMALL, options);
        rig.sim.set_read_deadline(secs(1));
        rig.kill();
        rig.put(b"key", &body(1, 5000), &for_secs(100)).unwrap();
        rig.fill("filler", 5, 100_000);
        rig.sleep(secs(2));
        (0..3).for_each(|_| assert!(rig.get(b"key").is_some()));
        rig.sim.set_delay(Delay::Sleep(secs(100_000)));
        let touch = rig.cache().touch(b"key", secs(5000));
        let ended = rig.run(async { tokio::time::timeout(secs(6), touch).await });
        // Not as absent: it could not be looked up.
        assert!(matches!(ended, Ok(Err(StoreError::Busy(_)))), "{ended:?}");
        assert_eq!(rig.get(b"key").is_some(), in_ram);
    }
}

#[test]
fn a_removal_holds_whose_caller_goes_away_before_it_is_known_what_it_is_of() {
    let mut rig = rig();
    rig.sim.set_delay(Delay::Sleep(secs(50)));
    let removal = rig.cache().remove(b"key");
    assert!(rig.run(async { tokio::time::timeout(millis(500), removal).await }).is_err());
    // Time enough to look for it in vain.
    rig.sleep(secs(10));
    rig.sim.set_delay(Delay::None);
    rig.sleep(secs(100));
    assert_eq!(rig.get(b"key"), None);
    assert!(rig.get(b"filler-0").is_some());
    // Nothing is in doubt after it.
    rig.restart();
    assert_eq!(rig.stats().store.counters.snapshots_loaded, 1);
    assert_eq!(rig.get(b"key"), None);
    rig.power_cut();
    assert_eq!(rig.get(b"key"), None);
}

#[test]
fn a_lookup_that_begins_after_a_removal_that_was_given_up_does_not_find_it_undone() {
    let mut rig = Rig::new();
    rig.sim.set_read_deadline(secs(20));
    rig.kill();
    rig.put(b"key", &body(1, 5000), &for_secs(100_000)).unwrap();
    rig.fill("filler", 5, 100_000);
    rig.sleep(secs(2));
    rig.sim.set_delay(Delay::Sleep(secs(50)));
    let entries = rig.stats().store.entries;
    let removal = rig.cache().remove(b"key");
    assert!(rig.run(async { tokio::time::timeout(millis(500), removal).await }).is_err());
    // The read begins before what was removed is taken out of the index, and ends after that.
    rig.sim.set_delay(Delay::Sleep(secs(10)));
    let cache = rig.cache().clone();
    let found = rig.run(async {
        let lookup = tokio::spawn(async move { cache.lookup(b"key").await.is_some() });
        tokio::time::sleep(millis(1)).await;
        rig.sim.set_delay(Delay::None);
        tokio::time::sleep(secs(9)).await;
        assert!(!lookup.is_finished());
        assert_eq!(rig.stats().store.entries, entries - 1, "it is taken out meanwhile");
        lookup.await.unwrap()
    });
    assert!(!found);
}

#[test]
fn a_body_under_way_ends_short_when_the_device_hangs() {
    let options = options!(CacheOptions { ram_bytes: 0, range_buffer_bytes: 1 << 10, ..plain() });
    let mut rig = Rig::with(Disk { region_size: 4 << 20, ..SMALL }, options);
    rig.sim.set_read_deadline(secs(1));
    rig.kill();
    rig.put(b"long", &body(1, 1_000_000), &for_secs(100_000)).unwrap();
    rig.sleep(secs(2));
    rig.kill();
    let mut hit = rig.run(rig.cache().lookup(b"long")).unwrap();
    assert!(rig.run(hit.next_chunk()).unwrap().is_some());
    rig.sim.set_delay(Delay::Sleep(secs(500)));
    let began = rig.run(async { tokio::time::Instant::now() });
    // What the lookup had read already is given.
    while matches!(rig.run(hit.next_chunk()), Ok(Some(_))) {}
    assert!(rig.run(hit.next_chunk()).is_err(), "it is not whole");
    let waited = rig.run(async move { began.elapsed() });
    assert!(waited < secs(5), "{waited:?}");
    assert!(rig.cache().device_store().device().stats().overdue_now > 0);
}

#[test]
fn on_a_device_that_became_slow_stores_are_refused_and_purges_hold() {
    let mut rig = rig();
    rig.sim.set_delay(Delay::Sleep(millis(2)));
    assert!(look(&rig, 40));
    rig.put(b"purged", &body(2, 100), &for_secs(100_000)).unwrap();
    let troubles = |rig: &Rig| rig.cache().device_store().troubles().len();
    assert_eq!(troubles(&rig), 0);

    rig.sim.set_delay(Delay::Sleep(millis(50)));
    assert!(look(&rig, 10), "slow answers are answers");
    rig.put(b"other", &body(3, 100), &for_secs(100_000)).unwrap();
    assert!(look(&rig, 30));
    assert_eq!(troubles(&rig), 1);
    let refused = rig.put(b"key", &body(4, 100), &for_secs(100_000));
    assert!(matches!(refused, Err(StoreError::Refused)), "{refused:?}");
    assert_eq!(rig.get(b"key"), None, "nor what it was to replace");
    assert!(rig.remove(b"purged").unwrap());
    assert!(rig.get(b"other").is_some());

    rig.sim.set_delay(Delay::Sleep(millis(2)));
    for _ in 0..200 {
        rig.sleep(millis(100));
        assert!(rig.get(b"other").is_some());
    }
    assert_eq!(troubles(&rig), 0);
    rig.put(b"key", &body(5, 100), &flushed()).unwrap();
    rig.kill();
    assert_eq!(rig.get(b"key").unwrap(), body(5, 100));
    assert_eq!(rig.get(b"purged"), None);
}

#[test]
fn a_removal_holds_within_a_second_on_a_device_that_does_not_answer() {
    for by_touch in [false, true] {
        let rig = rig();
        rig.sim.set_delay(Delay::Sleep(secs(100_000)));
        let ended = rig.run(async {
            let cache = rig.cache();
            let removal = async {
                match by_touch {
                    true => cache.touch(b"key", secs(0)).await.is_ok(),
                    false => cache.remove(b"key").await.is_ok(),
                }
            };
            tokio::time::timeout(millis(1100), removal).await
        });
        assert!(by_touch || ended.is_err(), "it waits for its tombstone");
        rig.sim.set_delay(Delay::None);
        assert!(rig.get(b"key").is_none(), "but nobody finds the entry");
        let began = rig.run(async { tokio::time::Instant::now() });
        rig.sim.set_delay(Delay::Sleep(secs(100_000)));
        rig.remove(b"filler-0").unwrap_err();
        let waited = rig.run(async move { began.elapsed() });
        assert!(waited < secs(35), "{waited:?}");
        rig.sim.set_delay(Delay::None);
        assert!(rig.get(b"filler-0").is_none());
        assert!(rig.get(b"filler-1").is_some());
    }
}

#[test]
fn a_touch_that_is_acknowledged_reached_all_slices() {
    // One of the touch's reads takes longer than its deadline.
    for slow in 1..24 {
        let rig = Rig::new();
        rig.put(b"large", &body(9, 500_000), &for_secs(100)).unwrap();
        rig.fill("filler", 9, 100_000);
        rig.sleep(secs(2));
        let cache = rig.cache().clone();
        let touched = rig.run(async {
            let before = rig.sim.counts().reads;
            rig.sim.set_delay(Delay::Sleep(millis(100)));
            let touch = tokio::spawn(async move { cache.touch(b"large", secs(5000)).await });
            while !touch.is_finished() {
                let is_next = rig.sim.counts().reads - before == slow;
                rig.sim.set_delay(Delay::Sleep(if is_next { secs(100) } else { millis(100) }));
                tokio::time::sleep(millis(1)).await;
            }
            touch.await.unwrap()
        });
        rig.sim.set_delay(Delay::None);
        rig.sleep(secs(500));
        rig.clock.advance(secs(200));
        let is_whole = rig.get(b"large").is_some();
        assert!(is_whole || !matches!(touched, Ok(Some(_))), "read {slow}: {touched:?}");
    }
}

#[test]
fn a_touch_of_many_slices_waits_no_longer_than_for_one() {
    let options = options!(CacheOptions { ram_bytes: 20_000, ..plain() });
    let rig = Rig::with(Disk { regions: 40, ..SMALL }, options);
    rig.put(b"large", &body(9, 2_500_000), &for_secs(100)).unwrap();
    rig.fill("filler", 9, 100_000);
    rig.sleep(secs(2));
    // The head comes into the RAM tier.
    for _ in 0..5 {
        assert!(rig.run(rig.cache().lookup_head(b"large")).is_some());
    }
    rig.sim.set_delay(Delay::Sleep(secs(100_000)));
    let touches = async {
        let touch = || tokio::time::timeout(secs(11), rig.cache().touch(b"large", secs(5000)));
        tokio::join!(touch(), touch())
    };
    let (one, other) = rig.run(touches);
    assert!(matches!(one, Ok(Ok(None) | Err(StoreError::Busy(_)))), "{one:?}");
    assert!(matches!(other, Ok(Ok(None) | Err(StoreError::Busy(_)))), "{other:?}");
}

#[test]
fn a_failed_flush_at_a_start_after_a_purge_of_all_leaves_no_doubt() {
    let mut rig = Rig::new();
    rig.fill("filler", 20, 100_000);
    rig.sleep(secs(2));
    rig.run(rig.cache().purge_all(rawcached::Purge::Hard)).unwrap();
    rig.sleep(secs(2));
    rig.stop();
    rig.sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Flush));
    rig.open();
    rig.sleep(secs(10));
    rig.put(b"key", &body(3, 1000), &flushed()).unwrap();
    rig.sleep(secs(10));
    let writes = rig.sim.counts().writes;
    for n in 0..10_u32 {
        assert!(!rig.remove(&n.to_be_bytes()).unwrap());
    }
    assert_eq!(rig.sim.counts().writes, writes, "a purge of an absent key is no write");
}

#[test]
fn a_device_that_answers_nothing_is_degraded_until_it_does() {
    let rig = rig();
    // By the clock of the runtime.
    let troubles = || rig.run(async { rig.cache().device_store().troubles().len() });
    rig.sim.set_delay(Delay::Sleep(secs(100_000)));
    assert_eq!(rig.get(b"key"), None);
    rig.put(b"new", &body(1, 10), &for_secs(1000)).unwrap();
    rig.sleep(secs(28));
    assert_eq!(troubles(), 0);
    rig.sleep(secs(3));
    assert_eq!(troubles(), 1);
    let began = rig.run(async { tokio::time::Instant::now() });
    rig.put(b"other", &body(1, 10), &for_secs(1000)).unwrap_err();
    assert_eq!(rig.run(async move { began.elapsed() }), secs(0));
    rig.sim.set_delay(Delay::None);
    assert!(rig.get(b"key").is_some());
    rig.sleep(secs(100));
    assert_eq!(troubles(), 0, "what is asked for is answered again");
    rig.put(b"other", &body(1, 10), &for_secs(1000)).unwrap();
}

#[test]
fn a_change_with_a_condition_does_not_take_what_it_cannot_read_for_absent() {
    let rig = rig();
    rig.sim.set_delay(Delay::Sleep(secs(100_000)));
    for condition in [Condition::Absent, Condition::Present, Condition::Unchanged(1)] {
        let (body, options) = (Bytes::from_static(b"x"), for_secs(1000));
        let put = rig.cache().put(b"key", body, condition, &options);
        let ended = rig.run(async { tokio::time::timeout(secs(6), put).await });
        assert!(matches!(ended, Ok(Err(StoreError::Busy(_)))), "{condition:?}: {ended:?}");
    }
    rig.sim.set_delay(Delay::None);
    assert_eq!(rig.get(b"key").unwrap(), body(1, 5000));
}
