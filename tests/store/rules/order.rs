//! Rule 2: order. The index entry decides, and every change of it checks it again first.

use rawcached::cache::{CacheOptions, Condition, StoreError, Stored};
use rawcached::device::{Delay, Effect, Fault, OperationKind};

use crate::rig::*;

/// A device whose oldest region holds a hit entry "hot", with no room left but for reclaim.
fn about_to_reclaim(options: CacheOptions) -> Rig {
    let rig = Rig::with(SMALL, options);
    rig.put(b"hot", &body(1, 1000), &for_secs(1000)).unwrap();
    rig.fill("filler", 4 * 8 - 1, 1000);
    rig.sleep(secs(2));
    assert!(rig.get(b"hot").is_some());
    rig.sim.set_delay(Delay::Sleep(millis(40)));
    rig
}

/// Runs reclaim over the region of "hot" while `change` comes `at` after its beginning.
async fn while_reclaiming<T>(rig: &Rig, at: u64, change: impl Future<Output = T>) -> T {
    let filler = async {
        for n in 0..8 {
            let (key, bytes) = (format!("more-{n}"), body(n, QUARTER));
            let _ =
                rig.cache().put(key.as_bytes(), bytes, Condition::Always, &for_secs(1000)).await;
        }
        tokio::time::sleep(secs(3)).await;
    };
    let change = async {
        tokio::time::sleep(millis(at)).await;
        change.await
    };
    tokio::join!(filler, change).1
}

#[test]
fn reinsertion_does_not_overwrite_a_newer_version() {
    let mut reinserted = 0;
    for at in (0..400).step_by(10) {
        let mut rig = about_to_reclaim(plain());
        let options = for_secs(1000);
        let put = rig.cache().put(b"hot", body(2, 1000), Condition::Always, &options);
        rig.run(while_reclaiming(&rig, at, put)).unwrap();
        reinserted += rig.stats().store.counters.reinserted;
        let now = rig.get(b"hot");
        assert!(now.is_none() || now.unwrap() == body(2, 1000), "after {at} ms");
        rig.cache().device_store().check_accounting();
        rig.sim.set_delay(Delay::None);
        rig.restart();
        let then = rig.get(b"hot");
        assert!(then.is_none() || then.unwrap() == body(2, 1000), "after {at} ms and a restart");
    }
    assert!(reinserted > 0, "the race was never on");
}

#[test]
fn a_touch_during_reinsertion_is_not_lost() {
    let mut kept = 0;
    for at in (0..400).step_by(10) {
        let rig = about_to_reclaim(plain());
        let touch = rig.cache().touch(b"hot", secs(5));
        let touched = rig.run(while_reclaiming(&rig, at, touch)).unwrap();
        let Some(hit) = rig.run(rig.cache().lookup(b"hot")) else { continue };
        kept += 1;
        let Some(lifetime) = touched else {
            panic!("missed by the touch after {at} ms, but there")
        };
        assert_eq!(hit.lifetime(), lifetime, "after {at} ms");
    }
    assert!(kept > 0, "the entry never stayed");
}

#[test]
fn a_delete_during_reinsertion_is_not_undone() {
    for at in (0..400).step_by(10) {
        let mut rig = about_to_reclaim(plain());
        let remove = rig.cache().remove(b"hot");
        rig.run(while_reclaiming(&rig, at, remove)).unwrap();
        assert_eq!(rig.get(b"hot"), None, "after {at} ms");
        rig.sim.set_delay(Delay::None);
        rig.kill();
        assert_eq!(rig.get(b"hot"), None, "after {at} ms and a kill");
    }
}

#[test]
fn concurrent_overwrites_leave_one_entry() {
    let rig = Rig::new();
    rig.put(b"key", &body(0, 1000), &for_secs(1000)).unwrap();
    rig.fill("filler", 5, 1000);
    rig.sleep(secs(2));
    let entries = rig.stats().store.entries;
    rig.sim.set_delay(Delay::Sleep(millis(20)));
    let options = for_secs(1000);
    let put = |n| rig.cache().put(b"key", body(n, 1000), Condition::Always, &options);
    let (a, b, c) = rig.run(async { tokio::join!(put(1), put(2), put(3)) });
    let cas = |stored| if let Ok(Stored::Yes(cas)) = stored { cas } else { panic!("stored") };
    let newest = [(cas(a), 1), (cas(b), 2), (cas(c), 3)].into_iter().max().unwrap().1;
    assert_eq!(rig.get(b"key").unwrap(), body(newest, 1000));
    assert_eq!(rig.stats().store.entries, entries);
    assert!(rig.remove(b"key").unwrap());
    assert_eq!(rig.get(b"key"), None, "no second word was left");
}

#[test]
fn only_one_of_two_concurrent_adds_succeeds() {
    let rig = Rig::new();
    rig.fill("filler", 5, 1000);
    rig.sim.set_delay(Delay::Sleep(millis(20)));
    let options = for_secs(1000);
    let add = |n| rig.cache().put(b"key", body(n, 1000), Condition::Absent, &options);
    let (a, b) = rig.run(async { tokio::join!(add(1), add(2)) });
    let stored = [a.unwrap(), b.unwrap()];
    assert_eq!(stored.iter().filter(|stored| matches!(stored, Stored::Yes(_))).count(), 1);
}

#[test]
fn a_store_in_progress_fails_when_its_key_is_purged() {
    for len in [10, 300_000] {
        let rig = Rig::new();
        rig.put(b"key", &body(1, 100), &for_secs(100)).unwrap();
        let stored = rig.run(async {
            let mut writer = rig.cache().store(b"key", for_secs(100)).unwrap();
            writer.write_chunk(&body(2, len)).await.unwrap();
            assert!(rig.cache().remove(b"key").await.unwrap());
            writer.finalize(Condition::Always).await
        });
        assert!(matches!(stored, Err(StoreError::Purged)), "{stored:?}");
        assert_eq!(rig.get(b"key"), None);
    }
}

#[test]
fn a_store_in_progress_fails_when_everything_is_purged() {
    let rig = Rig::new();
    let stored = rig.run(async {
        let mut writer = rig.cache().store(b"key", for_secs(100)).unwrap();
        writer.write_chunk(&body(2, 100)).await.unwrap();
        rig.cache().purge_all(rawcached::Purge::Hard).await.unwrap();
        writer.finalize(Condition::Always).await
    });
    assert!(matches!(stored, Err(StoreError::Purged)), "{stored:?}");
    assert_eq!(rig.get(b"key"), None);
}

#[test]
fn a_purge_of_another_key_does_not_fail_a_store_in_progress() {
    let rig = Rig::new();
    rig.put(b"other", &body(1, 100), &for_secs(100)).unwrap();
    rig.run(async {
        let mut writer = rig.cache().store(b"key", for_secs(100)).unwrap();
        writer.write_chunk(&body(2, 100)).await.unwrap();
        rig.cache().remove(b"other").await.unwrap();
        writer.finalize(Condition::Always).await
    })
    .unwrap();
    assert_eq!(rig.get(b"key").unwrap(), body(2, 100));
}

#[test]
fn a_stale_copy_in_ram_is_never_found() {
    let rig = Rig::with(SMALL, options!(CacheOptions { ram_bytes: 8 << 20, ..plain() }));
    rig.put(b"key", &body(1, 1000), &for_secs(1000)).unwrap();
    rig.fill("filler", 5, 1000);
    rig.sleep(secs(2));
    assert_eq!(rig.get(b"key").unwrap(), body(1, 1000));
    let reads = rig.sim.counts().reads;
    assert_eq!(rig.get(b"key").unwrap(), body(1, 1000));
    assert_eq!(rig.sim.counts().reads, reads, "the second hit comes from RAM");
    rig.run(rig.cache().touch(b"key", secs(500))).unwrap().unwrap();
    let hit = rig.run(rig.cache().lookup(b"key")).unwrap();
    assert_eq!(hit.lifetime().keep_until, START.plus(secs(500)));
    rig.put(b"key", &body(2, 1000), &for_secs(1000)).unwrap();
    assert_eq!(rig.get(b"key").unwrap(), body(2, 1000));
    assert!(rig.remove(b"key").unwrap());
    assert_eq!(rig.get(b"key"), None);
    rig.put(b"key", &body(3, 1000), &for_secs(1000)).unwrap();
    rig.run(rig.cache().purge_all(rawcached::Purge::Hard)).unwrap();
    assert_eq!(rig.get(b"key"), None);
}

#[test]
fn a_reader_does_not_bring_an_old_copy_into_ram() {
    for at in 0..30 {
        let rig = Rig::with(SMALL, options!(CacheOptions { ram_bytes: 8 << 20, ..plain() }));
        rig.put(b"key", &body(1, 1000), &for_secs(1000)).unwrap();
        rig.fill("filler", 5, 1000);
        rig.sleep(secs(2));
        rig.sim.set_delay(Delay::Sleep(millis(20)));
        let touch = async {
            tokio::time::sleep(millis(at)).await;
            rig.cache().touch(b"key", secs(500)).await.unwrap().unwrap()
        };
        let lifetime = rig.run(async { tokio::join!(rig.cache().lookup(b"key"), touch) }).1;
        for _ in 0..2 {
            let hit = rig.run(rig.cache().lookup(b"key")).unwrap();
            assert_eq!(hit.lifetime(), lifetime, "after {at} ms");
        }
    }
}

#[test]
fn a_purge_of_all_during_reinsertion_holds() {
    for at in (0..400).step_by(10) {
        let mut rig = about_to_reclaim(plain());
        rig.run(while_reclaiming(&rig, at, rig.cache().purge_all(rawcached::Purge::Hard))).unwrap();
        assert_eq!(rig.get(b"hot"), None, "after {at} ms");
        rig.sim.set_delay(Delay::None);
        rig.kill();
        assert_eq!(rig.get(b"hot"), None, "after {at} ms and a restart");
    }
}

#[test]
fn a_touch_that_failed_on_its_way_does_not_hide_the_entry_from_a_purge() {
    let mut rig = Rig::with(SMALL, options!(CacheOptions { ram_bytes: 1 << 20, ..plain() }));
    rig.put(b"key", &body(1, 1000), &for_secs(100)).unwrap();
    rig.fill("filler", 5, 100_000);
    rig.sleep(secs(2));
    assert!(rig.get(b"key").is_some(), "the RAM tier has a copy");
    // The device has the later end, and says that it has not: the header of the region, then the entry's.
    let fault = Fault::new(Effect::FailAfter(4096, libc::EIO)).on(OperationKind::Write);
    rig.sim.inject(fault.after(1));
    rig.run(rig.cache().touch(b"key", secs(100_000))).unwrap_err();
    rig.clock.advance(secs(200));
    let found = rig.get(b"key");
    let removed = rig.remove(b"key").unwrap();
    assert_eq!(found.is_some(), removed);
    rig.kill();
    assert_eq!(rig.get(b"key"), None, "purged");
}

#[test]
fn a_stop_waits_for_a_touch_under_way() {
    // The caller of the second does not wait so long, and the stop waits for what it began.
    for (seconds, in_time) in [(3, true), (100, false)] {
        let rig = Rig::with(SMALL, options!(CacheOptions { ram_bytes: 1 << 20, ..plain() }));
        rig.put(b"key", &body(1, 1000), &for_secs(1000)).unwrap();
        rig.fill("filler", 5, 1000);
        rig.sleep(secs(2));
        assert!(rig.get(b"key").is_some());
        let cache = rig.cache().clone();
        rig.run(async {
            let before = rig.sim.counts().reads;
            rig.sim.set_delay(Delay::Sleep(secs(seconds)));
            let touch = tokio::spawn(async move { cache.touch(b"key", secs(2000)).await });
            while rig.sim.counts().reads == before {
                tokio::task::yield_now().await;
            }
            rig.sim.set_delay(Delay::None);
            rig.cache().shutdown().await.unwrap();
            let writes = rig.sim.counts().writes;
            tokio::time::sleep(secs(300)).await;
            assert_eq!(rig.sim.counts().writes, writes, "nothing is written after the stop");
            assert_eq!(touch.await.unwrap().is_ok(), in_time);
        });
    }
}
