//! Rule 4 for those who take their time. Goal: a reader of a body that is not held in memory gets
//! bytes of that body or an end that is short, whatever became of the region meanwhile. Method: more
//! readers than the shared read memory has room for stop behind their first piece; their entry is
//! purged, its region reclaimed and written again with entries of the same length, so that
//! slots lie where the old one was; after each store one of the readers goes on.

use bytes::Bytes;
use rawcached::cache::{BodyReader, CacheOptions, Hit, RangeOptions};

use crate::support::*;

/// Regions of which each holds four slots of [`LONG`] bytes.
const DISK: Disk = Disk { regions: 10, region_size: 1 << 20, alignment: 4096 };
const LONG: usize = 250_000;
/// Stores until every region was written about three times more.
const STORES: u64 = 110;

/// No more than one small piece for each reader.
fn without_memory(options: CacheOptions) -> CacheOptions {
    CacheOptions { range_buffer_bytes: 1 << 10, ..options }
}

fn with_ram(bytes: u64) -> CacheOptions {
    CacheOptions { ram_bytes: bytes, ..CacheOptions::default() }
}

/// What was given of a body so far, and who gives the rest.
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

/// As [`read_across_reuse`], with a body of several slices, read in ranges.
fn range_across_reuse(parallel: bool) {
    let range = RangeOptions { parallel, threshold: 1, ..RangeOptions::default() };
    let rig = Rig::with(DISK, without_memory(CacheOptions { range, ..plain() }));
    let sought = body(1, 3 * LONG);
    rig.put(b"sought", &sought, &for_secs(100_000)).unwrap();
    for n in 0..8 {
        rig.put(format!("early-{n}").as_bytes(), &body(100 + n, LONG), &for_secs(100_000)).unwrap();
    }
    rig.sleep(secs(3));
    let mut readers: Vec<_> = (0..2 * STORES)
        .map(|n| {
            let hit = rig.run(rig.cache().lookup_head(b"sought", false)).unwrap();
            let start = n * 1000 % (LONG as u64);
            let mut source = rig.run(hit.range(start..hit.len())).unwrap();
            let first = rig.run(source.next_chunk()).unwrap().unwrap();
            (start, Reader { source, given: first.to_vec() })
        })
        .collect();
    assert!(rig.remove(b"sought").unwrap());
    for n in 0..STORES {
        rig.put(format!("filler-{n}").as_bytes(), &filler(n), &for_secs(100_000)).unwrap();
        for (start, mut reader) in readers.split_off(readers.len() - 2) {
            reader.finish(&rig);
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
