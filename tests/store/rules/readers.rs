//! Rule 4 for slow readers. Goal: a reader of a body that is not held in memory gets bytes of that
//! body or an early end, whatever became of the region meanwhile. Method: more readers than the
//! shared read memory has room for stop after their first piece; their entry is purged, its region
//! reclaimed and written again with entries of the same length, so that slots lie where the old one
//! was; after each store one of the readers goes on.

use std::future::Future;

use bytes::Bytes;
use rawcached::cache::{BodyReader, CacheOptions, Condition, Hit, RangeOptions, Stored};

use crate::rig::*;

/// Regions of which each holds four slots of [`LONG`] bytes.
const DISK: Disk = Disk { regions: 10, region_size: 1 << 20, alignment: 4096 };
const LONG: usize = 250_000;
/// Stores until every region was written about three times more.
const STORES: u64 = 110;

/// No more than one small piece for each reader.
fn without_memory(options: CacheOptions) -> CacheOptions {
    options!(CacheOptions { range_buffer_bytes: 1 << 10, ..options })
}

fn with_ram(bytes: u64) -> CacheOptions {
    options!(CacheOptions { ram_bytes: bytes, ..CacheOptions::default() })
}

/// The bytes of a body read so far, and the reader of the rest.
struct Reader<T> {
    source: T,
    given: Vec<u8>,
}

impl Reader<Hit> {
    fn begin(rig: &Rig, key: &[u8]) -> Reader<Hit> {
        let mut hit = rig.run(rig.cache().lookup(key)).unwrap();
        assert!(hit.whole().is_none(), "a body that is held shows nothing here");
        let first = rig.run(hit.next_chunk()).unwrap().unwrap();
        Reader { source: hit, given: first.to_vec() }
    }

    /// Reads on to the end, or to where it is cut short; true if it is whole.
    fn finish(&mut self, rig: &Rig) -> bool {
        loop {
            match rig.run(self.source.next_chunk()) {
                Ok(Some(piece)) => self.given.extend_from_slice(&piece),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
}

impl Reader<BodyReader> {
    fn finish(&mut self, rig: &Rig) -> bool {
        loop {
            match rig.run(self.source.next_chunk()) {
                Ok(Some(piece)) => self.given.extend_from_slice(&piece),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
}

fn filler(n: u64) -> Bytes {
    body(1000 + n, LONG)
}

/// Stops readers of an entry half way and has one of them go on after each of many stores; how many
/// ended short.
fn read_across_reuse(options: CacheOptions) -> usize {
    let rig = Rig::with(DISK, without_memory(options));
    let sought = body(1, LONG);
    rig.put(b"sought", &sought, &for_secs(100_000)).unwrap();
    // So that its region is sealed, and the memory of the log has moved on.
    for n in 0..8 {
        rig.put(format!("early-{n}").as_bytes(), &body(100 + n, LONG), &for_secs(100_000)).unwrap();
    }
    rig.sleep(secs(3));
    let mut readers: Vec<_> = (0..2 * STORES).map(|_| Reader::begin(&rig, b"sought")).collect();
    assert!(rig.remove(b"sought").unwrap());
    let mut short = 0;
    for n in 0..STORES {
        rig.put(format!("filler-{n}").as_bytes(), &filler(n), &for_secs(100_000)).unwrap();
        // The second one finds what the first one left in the RAM tier.
        for mut reader in readers.split_off(readers.len() - 2) {
            let is_whole = reader.finish(&rig);
            assert!(
                reader.given[..] == sought[..reader.given.len()],
                "after {n} stores: bytes of another entry"
            );
            assert!(!is_whole || reader.given.len() == LONG);
            short += usize::from(!is_whole);
        }
        if n % 4 == 3 {
            rig.sleep(millis(300));
        }
    }
    assert!(rig.stats().store.counters.regions_freed > 20, "regions were used again");
    short
}

#[test]
fn what_is_read_again_from_the_memory_of_the_log_is_of_the_same_life() {
    assert!(read_across_reuse(plain()) > 0);
}

#[test]
fn what_is_read_again_from_the_device_is_of_the_same_life() {
    // Nothing that was written is in memory any more when readers go on.
    let rig = Rig::with(DISK, without_memory(plain()));
    let sought = body(1, LONG);
    rig.put(b"sought", &sought, &for_secs(100_000)).unwrap();
    for n in 0..8 {
        rig.put(format!("early-{n}").as_bytes(), &body(100 + n, LONG), &for_secs(100_000)).unwrap();
    }
    rig.sleep(secs(3));
    let mut readers: Vec<_> = (0..STORES).map(|_| Reader::begin(&rig, b"sought")).collect();
    assert!(rig.remove(b"sought").unwrap());
    for n in 0..STORES {
        rig.put(format!("filler-{n}").as_bytes(), &filler(n), &for_secs(100_000)).unwrap();
        if n % 4 == 3 {
            rig.sleep(secs(2));
            for mut reader in readers.split_off(readers.len() - 4) {
                reader.finish(&rig);
                assert!(reader.given[..] == sought[..reader.given.len()], "after {n} stores");
            }
        }
    }
}

#[test]
fn what_readers_leave_in_the_ram_tier_is_the_entry_of_its_place() {
    assert!(read_across_reuse(with_ram(8 << 20)) > 0);
}

#[test]
fn a_ram_tier_that_is_too_small_changes_nothing_of_that() {
    assert!(read_across_reuse(with_ram(1 << 20)) > 0);
}

/// As [`read_across_reuse`], with a body of several slices, read in ranges. The slices that readers
/// hit are not evicted, so readers wait until slices with more hits have displaced them.
fn range_across_reuse(parallel: bool) {
    let range = options!(RangeOptions { parallel, threshold: 1, ..RangeOptions::default() });
    let rig = Rig::with(DISK, without_memory(options!(CacheOptions { range, ..plain() })));
    let sought = body(1, 3 * LONG);
    rig.put(b"sought", &sought, &for_secs(100_000)).unwrap();
    for n in 0..8 {
        rig.put(format!("early-{n}").as_bytes(), &body(100 + n, LONG), &for_secs(100_000)).unwrap();
    }
    rig.sleep(secs(3));
    let begin = |n: u64| {
        let hit = rig.run(rig.cache().lookup_head(b"sought")).unwrap();
        let start = n * 1000 % (LONG as u64);
        let mut source = rig.run(hit.range(start..hit.len())).unwrap();
        let first = rig.run(source.next_chunk()).unwrap().unwrap();
        (start, Reader { source, given: first.to_vec() })
    };
    let mut readers: Vec<_> = (0..2 * STORES).map(begin).collect();
    assert!(rig.remove(b"sought").unwrap());
    let mut short = 0;
    for n in 0..3 * STORES {
        rig.put(format!("filler-{n}").as_bytes(), &filler(n), &for_secs(100_000)).unwrap();
        rig.get(format!("filler-{n}").as_bytes());
        let waiting = if n < 2 * STORES { readers.len() } else { readers.len() - 2 };
        for (start, mut reader) in readers.split_off(waiting) {
            short += usize::from(!reader.finish(&rig));
            let start = usize::try_from(start).unwrap();
            let expected = &sought[start..start + reader.given.len()];
            assert!(reader.given == expected, "after {n} stores: bytes of another entry");
        }
        if n % 4 == 3 {
            rig.sleep(millis(300));
        }
    }
    let stats = rig.stats().store;
    assert!(stats.counters.regions_freed > 20, "regions were used again");
    assert!(short > 0, "slices were evicted");
    assert!(!parallel || stats.ranges.retries > 0, "what was planned had moved");
}

#[test]
fn ranges_that_are_read_slice_after_slice_are_of_one_object() {
    range_across_reuse(false);
}

#[test]
fn ranges_that_are_read_in_parallel_are_of_one_object() {
    range_across_reuse(true);
}

// What it costs.

/// Bytes read from the device while `key` is looked up and read to its end.
fn bytes_read(rig: &Rig, key: &[u8], expected: &Bytes) -> u64 {
    let before = rig.sim.counts().bytes_read;
    assert!(rig.get(key).is_some_and(|bytes| bytes[..] == expected[..]));
    rig.sim.counts().bytes_read - before
}

#[test]
fn a_piece_of_a_body_that_is_not_held_costs_about_its_own_size() {
    let rig = Rig::with(Disk { region_size: 4 << 20, ..DISK }, without_memory(plain()));
    let bodies = [body(1, 1 << 20), body(2, 700_001), body(3, 70_000), body(4, 3_300_000)];
    for (n, body) in (0u8..).zip(&bodies) {
        rig.put(&[n], body, &for_secs(1000)).unwrap();
    }
    rig.sleep(secs(3));
    for (n, body) in (0u8..).zip(&bodies) {
        let len = body.len() as u64;
        // The lookup of a body of one slot verifies all of it before it answers.
        let once = if len > 1 << 20 { 0 } else { len / 8 * 9 + 8192 };
        let pieces = len.div_ceil(64 << 10) + 4;
        let read = bytes_read(&rig, &[n], body);
        assert!(read <= once + len + pieces * 2 * 4096, "{read} bytes read for {len}");
    }
}

#[test]
fn a_part_of_a_body_that_is_not_held_needs_no_more_than_its_chunks() {
    let rig = Rig::with(Disk { region_size: 4 << 20, ..DISK }, without_memory(plain()));
    let long = body(1, 1 << 20);
    rig.put(b"long", &long, &for_secs(1000)).unwrap();
    rig.sleep(secs(3));
    let hit = rig.run(rig.cache().lookup(b"long")).unwrap();
    for start in [0u64, 1, 65_535, 65_536, 130_000, 1_000_000, (1 << 20) - 1] {
        let before = rig.sim.counts().bytes_read;
        let end = (start + 1000).min(1 << 20);
        let mut reader = rig.run(hit.range(start..end)).unwrap();
        let mut given = Vec::new();
        while let Some(piece) = rig.run(reader.next_chunk()).unwrap() {
            given.extend_from_slice(&piece);
        }
        let (first, last) = (usize::try_from(start).unwrap(), usize::try_from(end).unwrap());
        assert!(given == long[first..last], "from {start}");
        assert!(rig.sim.counts().bytes_read - before <= 2 * (65_536 + 2 * 4096), "from {start}");
    }
}

#[test]
fn a_damaged_chunk_ends_a_body_that_is_not_held() {
    let rig = Rig::with(DISK, without_memory(plain()));
    let long = body(1, LONG);
    rig.put(b"long", &long, &for_secs(1000)).unwrap();
    rig.sleep(secs(3));
    let mut reader = Reader::begin(&rig, b"long");
    // In the third of four chunks.
    let at = rig.find(&long[150_000..150_064]);
    rig.sim.overwrite(at, &[!long[150_000]]);
    assert!(!reader.finish(&rig));
    assert!(reader.given[..] == long[..131_072], "what comes before is given, and nothing else");
    assert_eq!(rig.stats().store.counters.damaged, 1);
    assert!(rig.get(b"long").is_none(), "it is gone for all");
}

/// How often `work` lets others run until it is done.
fn turns(rig: &Rig, work: impl Future<Output = ()>) -> u64 {
    rig.run(async {
        let mut turns = 0;
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|context| {
            let polled = work.as_mut().poll(context);
            turns += u64::from(polled.is_pending());
            polled
        })
        .await;
        turns
    })
}

#[test]
fn only_those_who_ask_for_it_look_for_all_slices_and_they_give_way() {
    // Slices of 64 KiB.
    let disk = Disk { regions: 400, ..SMALL };
    let rig = Rig::with(disk, with_ram(8 << 20));
    let (huge, small) = (body(1, 48 << 20), body(2, 1000));
    let cache = rig.cache();
    let put = async |body: &Bytes, condition| {
        cache.put(b"key", body.clone(), condition, &for_secs(1000)).await.unwrap()
    };
    let store_huge = || {
        rig.put(b"key", &huge, &for_secs(1000)).unwrap();
        rig.sleep(secs(3));
        // Its head is in the RAM tier from here on.
        rig.run(cache.lookup_head(b"key")).unwrap()
    };
    let hit = store_huge();
    let looks = turns(&rig, async { assert!(hit.is_complete().await) });
    assert!(looks >= 2, "768 slices in one go");
    let refused = turns(&rig, async {
        assert!(matches!(put(&small, Condition::Absent).await, Stored::Exists));
    });
    assert!(refused >= looks, "a condition is about what a lookup would give");
    let stored = turns(&rig, async {
        put(&small, Condition::Always).await;
    });
    let hit = store_huge();
    let removed = turns(&rig, async { assert!(cache.remove(b"key").await.unwrap()) });
    rig.put(b"key", &small, &for_secs(1000)).unwrap();
    rig.sleep(secs(3));
    rig.run(cache.lookup(b"key")).unwrap();
    let removed_small = turns(&rig, async { assert!(cache.remove(b"key").await.unwrap()) });
    assert!(stored < looks, "{stored} of {looks}");
    assert!(removed < removed_small + looks, "{removed}, {removed_small}");
    drop(hit);
}

// What goes on.

#[test]
fn a_body_that_was_begun_goes_on_after_its_end_whatever_its_size() {
    // Held in memory, released, slice after slice, in parallel.
    let sequential = options!(RangeOptions { parallel: false, ..RangeOptions::default() });
    let parallel = options!(RangeOptions { threshold: 1, ..RangeOptions::default() });
    let held = plain();
    let ways = [
        (LONG, held),
        (LONG, without_memory(plain())),
        (3 * LONG, options!(CacheOptions { range: sequential, ..plain() })),
        (3 * LONG, options!(CacheOptions { range: parallel, ..plain() })),
    ];
    for (n, (len, options)) in ways.into_iter().enumerate() {
        for purged in [false, true] {
            let rig = Rig::with(DISK, options);
            let long = body(1, len);
            rig.put(b"long", &long, &for_secs(10)).unwrap();
            rig.fill("later", 20, 100_000);
            rig.sleep(secs(3));
            let mut hit = rig.run(rig.cache().lookup(b"long")).unwrap();
            let first = rig.run(hit.next_chunk()).unwrap().unwrap();
            let mut reader = Reader { source: hit, given: first.to_vec() };
            match purged {
                true => rig.run(rig.cache().purge_all(rawcached::Purge::Hard)).unwrap(),
                false => rig.clock.advance(secs(11)),
            }
            assert!(rig.run(rig.cache().lookup(b"long")).is_none(), "nobody begins it any more");
            assert!(reader.finish(&rig) && reader.given == long, "way {n}, purged: {purged}");
        }
    }
}
