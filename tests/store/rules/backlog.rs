//! A device that is slower than its clients: stores wait for it, and not for ever.

use rawcached::cache::{CacheStats, Condition, StoreError};
use rawcached::device::Delay;
use tokio::task::JoinSet;

use crate::rig::*;

/// Bytes that may wait to be written before stores wait (`docs/metrics.md`).
const BACKLOG_MAX: u64 = 64 << 20;
const BODY: usize = 256 << 10;
/// Twice the bytes that may wait.
const STORES: u64 = 2 * BACKLOG_MAX / BODY as u64;
/// Room for all, and more: nobody waits for a free region.
const DISK: Disk = Disk { regions: 64, region_size: 4 << 20, alignment: 4096 };
/// How long a store waits for room.
const WAIT_MAX: u64 = 5;

/// A cache that has begun its epoch.
fn rig() -> Rig {
    let rig = Rig::with(DISK, plain());
    rig.put(b"first", &body(0, 100), &flushed()).unwrap();
    rig
}

fn key(n: u64) -> Vec<u8> {
    format!("key-{n}").into_bytes()
}

/// Begins all stores at once and lets `meanwhile` run beside them; gives how each ended, and what
/// the cache was like every 50 ms.
fn stores(rig: &Rig, meanwhile: impl FnOnce()) -> (Vec<Result<(), StoreError>>, Vec<CacheStats>) {
    rig.run(async {
        let mut stores = JoinSet::new();
        for n in 0..STORES {
            let cache = rig.cache().clone();
            stores.spawn(async move {
                let options = for_secs(3000);
                let stored = cache.put(&key(n), body(n, BODY), Condition::Always, &options).await;
                (n, stored.map(|_| ()))
            });
        }
        tokio::time::sleep(millis(1)).await;
        meanwhile();
        let (mut ended, mut seen) = (Vec::new(), vec![rig.stats()]);
        while !stores.is_empty() {
            match tokio::time::timeout(millis(50), stores.join_next()).await {
                Ok(store) => ended.extend(store.map(Result::unwrap)),
                Err(_) => seen.push(rig.stats()),
            }
        }
        ended.sort_by_key(|(n, _)| *n);
        (ended.into_iter().map(|(_, stored)| stored).collect(), seen)
    })
}

/// Checks that memory was bounded, and used up to the bound.
fn check_bound(seen: &[CacheStats]) {
    let backlog = seen.iter().map(|stats| stats.store.backlog_bytes).max().unwrap();
    // One slot, which has a header, and the rest of a block behind it and behind a chunk.
    let most = BACKLOG_MAX + BODY as u64 + 3 * u64::from(DISK.alignment);
    assert!((BACKLOG_MAX..=most).contains(&backlog), "{backlog} bytes waited");
}

#[test]
fn stores_wait_for_a_slow_device_and_go_on_when_it_is_fast_again() {
    let mut rig = rig();
    rig.sim.set_delay(Delay::Sleep(secs(WAIT_MAX - 1)));
    let (ended, seen) = stores(&rig, || rig.sim.set_delay(Delay::None));
    check_bound(&seen);
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    let counters = rig.stats().store.counters;
    let waited = counters.stalls;
    assert!((STORES / 3..STORES * 2 / 3).contains(&waited), "{waited} of {STORES} waited");
    assert_eq!(counters.refused, 0);
    rig.sleep(secs(2));
    assert_eq!(rig.stats().store.backlog_bytes, 0);
    rig.kill();
    for n in 0..STORES {
        assert_eq!(rig.get(&key(n)).unwrap(), body(n, BODY), "key-{n}");
    }
}

#[test]
fn stores_that_waited_too_long_are_refused_and_counted() {
    let mut rig = rig();
    rig.sim.set_delay(Delay::Sleep(secs(500)));
    let (ended, seen) = stores(&rig, || {});
    check_bound(&seen);
    let waited = seen.len() as u64 * 50 / 1000;
    assert!((WAIT_MAX - 1..=WAIT_MAX + 1).contains(&waited), "refused after {waited} s");
    let busy = |stored: &&Result<(), StoreError>| matches!(stored, Err(StoreError::Busy(_)));
    let refused = ended.iter().filter(busy).count() as u64;
    let stored = ended.iter().filter(|stored| stored.is_ok()).count() as u64;
    assert!((STORES / 3..STORES * 2 / 3).contains(&refused), "{refused} of {STORES} refused");
    assert_eq!(refused + stored, STORES, "{ended:?}");
    let counters = rig.stats().store.counters;
    assert_eq!((counters.refused, counters.stalls), (refused, refused));
    // Accepted entries are found, in memory and later on the device; others are misses.
    rig.sim.set_delay(Delay::None);
    for _ in 0..2 {
        for (n, stored) in (0..).zip(&ended) {
            assert_eq!(rig.get(&key(n)).is_some(), stored.is_ok(), "key-{n}");
        }
        rig.sleep(secs(550));
        assert_eq!(rig.stats().store.backlog_bytes, 0);
        rig.kill();
    }
    rig.put(b"later", &body(1, BODY), &flushed()).unwrap();
}
