//! Stores that are full, damaged, slow or fail, each on a simulated device.

use std::time::Duration;

use bytes::Bytes;
use rawcached::cache::{
    Cache, CacheOptions, Condition, Purge, RangeOptions, StoreOptions, UpdateOptions,
};
use rawcached::device::{Delay, Effect, Fault, OperationKind};
use rawcached::format::Layout;
use rawcached::store::{Scrubber, TestKnobs};

use super::{Seen, clock, flushed, open, put, sim, without_ram};

/// A full device: reclaim, re-insertion, tombstones, expiry, touch, recovery.
pub async fn reclaim(seen: &mut Seen) {
    let device = sim(4 << 20).await;
    let clock = clock();
    let (cache, metrics) = open(device.open(), without_ram(), &clock).await;
    // Overwrites that expire before the old versions: their tombstones must be carried on.
    let soon = options!(StoreOptions { ttl: Some(Duration::from_secs(60)), ..flushed() });
    for n in 0..12 {
        put(&cache, &format!("old-{n}"), 30_000).await;
        put(&cache, &format!("neighbour-{n}"), 30_000).await;
    }
    for n in 0..12 {
        let (key, body) = (format!("old-{n}"), Bytes::from(vec![2; 60_000]));
        cache.put(key.as_bytes(), body, Condition::Always, &soon).await.unwrap();
    }
    clock.advance(Duration::from_secs(61));
    for n in 0..200 {
        put(&cache, &format!("key-{n}"), 60_000).await;
        if n % 3 == 0 {
            cache.remove(format!("key-{n}").as_bytes()).await.unwrap();
        }
        if n % 5 == 0 {
            put(&cache, "hot", 1000).await;
        }
        cache.lookup(format!("key-{}", n / 2 * 2).as_bytes()).await;
        cache.lookup(b"hot").await;
    }
    cache.touch(b"key-190", Duration::from_secs(9)).await.unwrap();
    let update =
        options!(UpdateOptions { metadata: Some("new".into()), ..UpdateOptions::default() });
    cache.update(b"hot", Condition::Present, &update).await.unwrap();
    clock.advance(Duration::from_secs(10));
    assert!(cache.lookup(b"key-190").await.is_none());
    let mut writer = cache.store(b"streamed", StoreOptions::default()).unwrap();
    writer.write_chunk(&[1; 10]).await.unwrap();
    // Its slices are in the way of everything that comes after them.
    let mut large = cache.store(b"large", StoreOptions::default()).unwrap();
    for n in 0..150 {
        large.write_chunk(&[1; 10_000]).await.unwrap();
        put(&cache, &format!("beside-{n}"), 60_000).await;
    }
    seen.scrape(&metrics);
    drop((writer, large));
    cache.shutdown().await.unwrap();
    seen.scrape(&metrics);
    device.corrupt(20, 1);
    let (cache, metrics) = open(device.open(), without_ram(), &clock).await;
    seen.scrape(&metrics);
    cache.shutdown().await.unwrap();
    // The device fails just when the snapshot is read, and then when it is to be written.
    let fail = |kind| Fault::new(Effect::Fail(libc::EIO)).on(kind);
    let opening = device.open();
    // Reads of two superblocks and 15 region headers come first.
    device.inject(fail(OperationKind::Read).after(17));
    // Before 1970: nobody knows how long it was down.
    clock.set_wall(-1);
    let (cache, metrics) = open(opening, without_ram(), &clock).await;
    put(&cache, "last", 10).await;
    // Reclaim has come to rest by then: the next writes are those of the snapshot.
    tokio::time::sleep(Duration::from_secs(1)).await;
    device.inject(fail(OperationKind::Write).after(1).always());
    cache.shutdown().await.unwrap();
    device.clear_faults();
    seen.scrape(&metrics);
}

/// Purges by tag, which go with their region to a newer one, and too many of them.
pub async fn purges(seen: &mut Seen) {
    let device = sim(4 << 20).await;
    let clock = clock();
    let knobs = TestKnobs { purge_records_max: 4, ..TestKnobs::default() };
    let (cache, metrics) = open(device.open(), without_ram().with_knobs(knobs), &clock).await;
    let tagged = options!(StoreOptions { tags: vec!["tag".into()], ..StoreOptions::default() });
    cache.put(b"tagged", b"body", Condition::Always, &tagged).await.unwrap();
    for n in 0..24 {
        put(&cache, &format!("old-{n}"), 30_000).await;
    }
    // The region of the purges ends before the older ones do.
    let soon = options!(StoreOptions { ttl: Some(Duration::from_secs(60)), ..flushed() });
    for n in 0..24 {
        let (key, body) = (format!("soon-{n}"), vec![2; 30_000]);
        cache.put(key.as_bytes(), body, Condition::Always, &soon).await.unwrap();
        if n == 12 {
            cache.purge_tag("tag", Purge::Hard).await.unwrap();
            cache.purge_prefix("other", Purge::Soft).await.unwrap();
        }
    }
    assert!(cache.lookup(b"tagged").await.is_none());
    seen.scrape(&metrics);
    clock.advance(Duration::from_secs(61));
    for n in 0..40 {
        put(&cache, &format!("key-{n}"), 60_000).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for n in 0..10 {
        cache.purge_tag(format!("tag-{n}"), Purge::Hard).await.unwrap();
    }
    seen.scrape(&metrics);
    cache.shutdown().await.unwrap();
}

/// Stores keys until one shares its fingerprint with more than a lookup looks at.
async fn crowd(cache: &Cache) {
    let crowded = || cache.stats().store.counters.crowded;
    for n in 0..2000 {
        if crowded() > 0 {
            return;
        }
        put(cache, &format!("crowd-{n}"), 10).await;
    }
    panic!("no fingerprint is crowded");
}

/// Bytes that went bad, collisions, and a device that fails.
pub async fn trouble(seen: &mut Seen) {
    let device = sim(4 << 20).await;
    let options = without_ram().with_knobs(TestKnobs { hash_mask: 0x3f, ..TestKnobs::default() });
    let (cache, metrics) = open(device.open(), options, &clock()).await;
    for n in 0..100 {
        put(&cache, &format!("key-{n}"), 5000).await;
    }
    cache.shutdown().await.unwrap();
    let (cache, metrics_after) = open(device.open(), options, &clock()).await;
    drop(metrics);
    for n in 0..100 {
        cache.lookup(format!("key-{n}").as_bytes()).await;
    }
    crowd(&cache).await;
    device.inject(Fault::new(Effect::Short(512)).on(OperationKind::Read));
    cache.lookup(b"key-1").await;
    device.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read).always());
    cache.lookup(b"key-2").await;
    device.clear_faults();
    for at in (70_000..(3 << 20)).step_by(1000) {
        device.corrupt(at, 1);
    }
    for n in 0..100 {
        cache.lookup(format!("key-{n}").as_bytes()).await;
    }
    device.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Flush));
    let put = |key: &'static [u8]| cache.put(key, Bytes::new(), Condition::Always, &NOW);
    put(b"a").await.unwrap_err();
    device.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Write));
    let _ = put(b"b").await;
    let _ = cache.put(b"b", Bytes::new(), Condition::Always, &flushed()).await;
    seen.scrape(&metrics_after);
}

/// A region that cannot be read at the start, and later can.
pub async fn unreadable(seen: &mut Seen) {
    let device = sim(4 << 20).await;
    let (cache, metrics) = open(device.open(), without_ram(), &clock()).await;
    for n in 0..30 {
        put(&cache, &format!("key-{n}"), 60_000).await;
    }
    drop((cache, metrics));
    device.kill();
    let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
    // The fifth region; others are emptied meanwhile.
    let region = (128 << 10) + 4 * (256 << 10);
    device.inject(fault.within(region..region + (256 << 10)).always());
    let (cache, metrics) = open(device.open(), without_ram(), &clock()).await;
    for n in 0..24 {
        for hot in 0..30 {
            cache.lookup(format!("key-{hot}").as_bytes()).await;
        }
        put(&cache, &format!("more-{n}"), 60_000).await;
    }
    seen.scrape(&metrics);
    device.clear_faults();
    tokio::time::sleep(Duration::from_secs(600)).await;
    seen.scrape(&metrics);
}

static NOW: std::sync::LazyLock<StoreOptions> = std::sync::LazyLock::new(flushed);

/// No region becomes free because nothing can be written.
pub async fn stalls(seen: &mut Seen) {
    let device = sim(4 << 20).await;
    let (cache, metrics) = open(device.open(), without_ram(), &clock()).await;
    put(&cache, "first", 10).await;
    // A request in flight, and bytes that wait for it.
    device.set_delay(Delay::Sleep(Duration::from_secs(10)));
    let slow = cache.clone();
    let pending = tokio::spawn(async move { put(&slow, "slow", 9000).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    seen.scrape(&metrics);
    pending.await.unwrap();
    device.set_delay(Delay::None);
    // Nothing can be read, so nothing can be freed.
    device.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read).always());
    for n in 0..70 {
        let body = Bytes::from(vec![1; 60_000]);
        let key = format!("full-{n}");
        let _ = cache.put(key.as_bytes(), body, Condition::Always, &StoreOptions::default()).await;
    }
    seen.scrape(&metrics);
    device.clear_faults();
    device.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Write).always());
    let options = StoreOptions::default();
    for n in 0..200 {
        let body = Bytes::from(vec![1; 60_000]);
        let key = format!("key-{n}");
        if cache.put(key.as_bytes(), body, Condition::Always, &options).await.is_err() {
            break;
        }
    }
    cache.remove(b"first").await.unwrap_err();
    seen.scrape(&metrics);
}

/// A device that becomes slow, and then hardly answers.
pub async fn limps(seen: &mut Seen) {
    let sim = sim(4 << 20).await;
    sim.set_read_deadline(Duration::from_secs(1));
    let (cache, metrics) = open(sim.open(), without_ram(), &clock()).await;
    let device = cache.device_store().device();
    let read = || device.read_in_time(0, device.geometry().read_buffer(4096));
    for delay in [2, 100] {
        sim.set_delay(Delay::Sleep(Duration::from_millis(delay)));
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            for _ in 0..8 {
                read().await.unwrap();
            }
        }
    }
    sim.set_delay(Delay::Sleep(Duration::from_secs(100_000)));
    futures_util::future::join_all((0..128).map(|_| read())).await;
    read().await.unwrap_err();
    seen.scrape(&metrics);
}

/// Large bodies read in parallel: whole, dropped half way, after a read that failed, too slowly.
pub async fn ranges(seen: &mut Seen) {
    let device = sim(32 << 20).await;
    let options = options!(CacheOptions {
        range: options!(RangeOptions { threshold: 1, ..RangeOptions::default() }),
        ..without_ram()
    });
    let (cache, metrics) = open(device.open(), options, &clock()).await;
    put(&cache, "large", 6 << 20).await;
    put(&cache, "filler", 2 << 20).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let hit = cache.lookup_head(b"large").await.unwrap();
    device.set_delay(Delay::Sleep(Duration::from_millis(5)));
    let mut whole = hit.range(0..u64::MAX).await.unwrap();
    device.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read));
    while whole.next_chunk().await.unwrap().is_some() {
        seen.scrape(&metrics);
    }
    // Its client goes away.
    drop(hit.range(0..u64::MAX).await.unwrap());
    let mut slow = hit.range(0..u64::MAX).await.unwrap();
    device.set_delay(Delay::Sleep(Duration::from_secs(1000)));
    while slow.next_chunk().await.is_ok() {}
    drop(slow);
    seen.scrape(&metrics);
}

/// Damage of each kind on the device, found by one pass of the scrubber.
pub async fn scrub(seen: &mut Seen) {
    let device = sim(4 << 20).await;
    let (cache, metrics) = open(device.open(), without_ram(), &clock()).await;
    for n in 0..16 {
        put(&cache, &format!("key-{n}"), 60_000).await;
    }
    cache.remove(b"key-9").await.unwrap();
    for n in 0..4 {
        put(&cache, &format!("more-{n}"), 60_000).await;
    }
    let layout = Layout::plan(4 << 20, 512, None).unwrap();
    let start = |region: u32| layout.region_offset(region);
    device.corrupt(layout.superblock_offsets()[1] + 20, 1);
    // An entry's body, a header, a footer; where the tombstone is, the scrubber shows.
    device.corrupt(start(0) + 30_000, 1);
    device.corrupt(start(1) + 20, 1);
    device.corrupt(start(2) + layout.region_size - 5, 1);
    let contents = device.contents(0..4 << 20);
    let kill =
        (0..contents.len() - 8).step_by(16).find(|at| contents[at + 4..at + 8] == [0xC5, 4, 0, 0]);
    device.corrupt(kill.unwrap() as u64, 1);
    device.set_delay(Delay::Sleep(Duration::from_millis(3)));
    let pass = async {
        let mut scrubber = Scrubber::starting_at(cache.device_store().clone(), 0);
        while !scrubber.step().await.pass_ended {}
    };
    // Not the damaged one: it is for the scrubber to find.
    let lookups = async {
        for n in 10..16 {
            cache.lookup(format!("key-{n}").as_bytes()).await;
        }
    };
    tokio::join!(pass, lookups);
    device.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read).always());
    Scrubber::starting_at(cache.device_store().clone(), 0).step().await;
    seen.scrape(&metrics);
}

/// An index that is full, and recovery with little memory.
pub async fn memory(seen: &mut Seen) {
    let device = sim(8 << 20).await;
    let clock = clock();
    // For 10 922 entries, then for 1024.
    let (enough, little) = (1 << 20, 890_197);
    let with = |index_bytes_max| {
        options!(CacheOptions { index_bytes_max, recovery_bytes_max: 256 << 10, ..without_ram() })
    };
    let (cache, metrics) = open(device.open(), with(enough), &clock).await;
    for n in 0..10_000 {
        put(&cache, &format!("key-{n}"), 8).await;
    }
    seen.scrape(&metrics);
    cache.shutdown().await.unwrap();
    let (cache, metrics) = open(device.open(), with(little), &clock).await;
    cache.ready().await;
    let stats = cache.stats().store;
    assert!(stats.counters.regions_left_out > 0, "{stats:?}");
    seen.scrape(&metrics);
}
