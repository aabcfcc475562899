//! Goal: the scrubber finds every kind of damage within one pass, counts it, frees or repairs what
//! is bad and leaves alone what is sound; it keeps to its rate, lets lookups go first, and stops at
//! once. Method: step it by hand, or let it run on the paused clock, on a simulated device whose
//! bytes are flipped behind its back.

mod pace;

use rawcached::cache::{CacheOptions, Condition};
use rawcached::device::{Delay, Effect, Fault, OperationKind};
use rawcached::format::{ENTRY_HEADER_LEN, SUPERBLOCK_LEN, TRAILER_LEN};
use rawcached::store::{CountersSnapshot, Scrubber};

use crate::rig::*;

/// No background scrubbing: the test takes the steps.
fn by_hand() -> CacheOptions {
    options!(CacheOptions { scrub_bytes_per_sec: 0, ..plain() })
}

fn rig() -> Rig {
    Rig::with(SMALL, by_hand())
}

/// One pass over the device; gives the bytes read.
fn pass(rig: &Rig) -> u64 {
    let store = rig.cache().device_store();
    rig.run(async {
        let mut scrubber = Scrubber::starting_at(store.clone(), 0);
        let mut bytes = 0;
        loop {
            let step = scrubber.step().await;
            bytes += step.bytes;
            if step.pass_ended {
                return bytes;
            }
        }
    })
}

fn counters(rig: &Rig) -> CountersSnapshot {
    rig.stats().store.counters
}

/// Everything that the scrubber may find.
fn findings(rig: &Rig) -> [(&'static str, u64); 6] {
    let counters = counters(rig);
    [
        ("superblock", counters.scrub_superblocks),
        ("header", counters.scrub_headers),
        ("footer", counters.scrub_footers),
        ("kills", counters.scrub_tombstones),
        ("entry", counters.scrub_entries),
        ("unreadable", counters.scrub_unreadable),
    ]
}

fn expect_only(rig: &Rig, part: &str, count: u64) {
    for (found, times) in findings(rig) {
        assert_eq!(times, if found == part { count } else { 0 }, "{found} of {:?}", findings(rig));
    }
}

/// Sealed regions with entries, tombstones and dead entries, and an open one; all on the device.
fn filled() -> Rig {
    let rig = rig();
    rig.fill("a", 9, 10_000);
    rig.remove(b"a-1").unwrap();
    rig.fill("a", 1, 10_000);
    rig.fill("b", 8, 10_000);
    rig.put(b"open", &body(77, 5000), &for_secs(10_000)).unwrap();
    // Ends the chunk in memory.
    rig.fill("last", 1, 10_000);
    rig.sleep(secs(3));
    rig
}

fn start_of(rig: &Rig, seed: u64) -> u64 {
    rig.region_start(rig.find(&body(seed, QUARTER)[..64]))
}

#[test]
fn a_sound_device_is_read_whole_and_nothing_is_written() {
    let mut rig = filled();
    for restarted in [false, true] {
        let writes = rig.sim.counts().writes;
        let bytes = pass(&rig);
        expect_only(&rig, "nothing", 0);
        assert!(bytes > 4 * REGION, "{bytes} bytes, restarted: {restarted}");
        assert_eq!((counters(&rig).scrub_bytes, counters(&rig).scrub_passes), (bytes, 1));
        assert_eq!(rig.sim.counts().writes, writes);
        assert_eq!(counters(&rig).scrub_pass_at, u64::from(START.0));
        rig.kill();
    }
}

#[test]
fn a_flipped_bit_anywhere_in_an_entry_is_found_and_the_entry_freed() {
    // Key "a-2": header, key, and a body.
    let header = ENTRY_HEADER_LEN as u64;
    for distance in (0..header + 3).chain([header + 3, header + 30_000, header + 2 + 60_000]) {
        for restarted in [false, true] {
            let mut rig = filled();
            let at = rig.find(&body(2, QUARTER)[..64]) - header - 3 + distance;
            rig.sim.corrupt(at, 0x20);
            if restarted {
                rig.kill();
            }
            let entries = rig.stats().store.entries;
            pass(&rig);
            expect_only(&rig, "entry", 1);
            assert_eq!(counters(&rig).scrub_freed, 1, "byte {distance}");
            assert_eq!(rig.stats().store.entries, entries - 1);
            rig.cache().device_store().check_accounting();
            assert_eq!(rig.get(b"a-2"), None);
            assert_eq!(rig.get(b"a-3").unwrap(), body(3, QUARTER), "its neighbour");
            pass(&rig);
            expect_only(&rig, "entry", 1);
        }
    }
}

#[test]
fn a_damaged_entry_of_a_region_without_a_footer_is_found() {
    let mut rig = filled();
    rig.kill();
    let at = rig.find(&body(77, 5000)[..64]);
    rig.sim.corrupt(at, 1);
    pass(&rig);
    expect_only(&rig, "entry", 1);
    assert_eq!(rig.get(b"open"), None);
}

#[test]
fn a_dead_entry_that_is_damaged_is_nobodys_loss() {
    let rig = filled();
    rig.remove(b"a-2").unwrap();
    rig.sim.corrupt(rig.find(&body(2, QUARTER)[..64]), 1);
    pass(&rig);
    expect_only(&rig, "nothing", 0);
}

/// A region with one damaged structure: found once, emptied, and old versions stay dead.
fn expect_emptied(rig: &mut Rig, part: &str) {
    let freed = counters(rig).regions_freed;
    pass(rig);
    expect_only(rig, part, 1);
    assert_eq!(counters(rig).scrub_condemned, 1, "{part}");
    rig.sleep(secs(1));
    assert_eq!(counters(rig).regions_freed, freed + 1, "{part}");
    rig.cache().device_store().check_accounting();
    pass(rig);
    expect_only(rig, part, 1);
    rig.kill();
    assert_eq!(rig.get(b"a-1"), None, "{part}: purged");
    pass(rig);
    expect_only(rig, "nothing", 0);
}

#[test]
fn a_flipped_bit_in_a_region_header_condemns_the_region() {
    for byte in [0, 8, 12, 16, 24, 28, 32, 36, 511] {
        let mut rig = filled();
        let start = start_of(&rig, 0);
        rig.sim.corrupt(start + byte, 0x40);
        expect_emptied(&mut rig, "header");
    }
}

#[test]
fn a_flipped_bit_in_a_footer_condemns_the_region() {
    let trailer = TRAILER_LEN as u64;
    // Four records of 24 bytes, padding, the trailer.
    for from_end in [1, 20, trailer - 20, trailer - 12, trailer, 4096, 4096 - 30, 4096 - 95] {
        let mut rig = filled();
        let end = start_of(&rig, 2) + REGION;
        rig.sim.corrupt(end - from_end, 0x40);
        expect_emptied(&mut rig, "footer");
    }
}

#[test]
fn a_condemned_region_keeps_what_was_hit() {
    let rig = filled();
    assert!(rig.get(b"b-2").is_some());
    // Stores grant the budget for re-insertion; see reclaim.
    rig.fill("pays", 17, 10_000);
    rig.sim.corrupt(rig.region_start(find_key(&rig, b"b-2")) + 20, 1);
    pass(&rig);
    expect_only(&rig, "header", 1);
    rig.sleep(secs(1));
    assert_eq!(rig.get(b"b-2").unwrap(), body(2, QUARTER));
}

/// Where the key of an entry is on the device, the newest if several.
fn find_key(rig: &Rig, key: &[u8]) -> u64 {
    let size = rig.cache().device_store().device().geometry().size;
    let contents = rig.sim.contents(0..size);
    let at = contents.windows(key.len()).rposition(|window| window == key);
    at.unwrap() as u64
}

/// "victim" is purged; gives where the slot of its tombstone is in the log of entries.
fn purged() -> (Rig, u64) {
    let rig = rig();
    rig.put(b"victim", &body(50, QUARTER), &for_secs(10_000)).unwrap();
    rig.fill("beside-victim", 4, 10_000);
    rig.remove(b"victim").unwrap();
    let location = tombstone_slot(&rig);
    rig.fill("beside-kill", 5, 10_000);
    rig.sleep(secs(3));
    (rig, location)
}

/// The first of two slots of tombstones: no key, magic number and kind in bytes 4 and 5. The second
/// copy is in the log of purges, whose region is taken later.
fn tombstone_slot(rig: &Rig) -> u64 {
    rig.sleep(secs(2));
    let size = rig.cache().device_store().device().geometry().size;
    let contents = rig.sim.contents(0..size);
    let is_tombstones = |at: &usize| contents[at + 4..at + 8] == [0xC5, 4, 0, 0];
    let slots: Vec<usize> = (0..contents.len() - 16).step_by(16).filter(is_tombstones).collect();
    assert_eq!(slots.len(), 2, "{slots:?}");
    assert_ne!(rig.region_start(slots[0] as u64), rig.region_start(slots[1] as u64));
    slots[0] as u64
}

#[test]
fn damaged_tombstones_are_carried_on_from_the_footer() {
    // Its checksum, its length, the key hash, the sequence.
    for byte in [0, 16, 48, 56] {
        let (mut rig, at) = purged();
        rig.sim.corrupt(at + byte, 2);
        pass(&rig);
        expect_only(&rig, "kills", 1);
        rig.sleep(secs(1));
        assert!(counters(&rig).tombstones_carried > 0, "byte {byte}");
        rig.power_cut();
        assert_eq!(rig.get(b"victim"), None, "byte {byte}");
        assert!(rig.get(b"beside-victim-0").is_some(), "the victim's region is still there");
    }
}

#[test]
fn tombstones_under_a_damaged_footer_are_carried_on_from_their_slots() {
    let (mut rig, at) = purged();
    let end = rig.region_start(at) + REGION;
    rig.sim.corrupt(end - 5, 2);
    pass(&rig);
    expect_only(&rig, "footer", 1);
    rig.sleep(secs(1));
    assert!(counters(&rig).tombstones_carried > 0);
    // Both copies of the old place are gone now, and it does not matter.
    rig.power_cut();
    assert_eq!(rig.get(b"victim"), None);
    assert!(rig.get(b"beside-victim-0").is_some(), "the victim's region is still there");
}

#[test]
fn a_freed_entry_leaves_a_tombstone_for_its_older_versions() {
    let mut rig = rig();
    rig.put(b"key", &body(91, QUARTER), &for_secs(10_000)).unwrap();
    rig.fill("beside", 4, 10_000);
    rig.put(b"key", &body(92, QUARTER), &for_secs(10_000)).unwrap();
    rig.fill("after", 4, 10_000);
    rig.sleep(secs(3));
    let at = rig.find(&body(92, QUARTER)[..64]);
    rig.sim.corrupt(at, 1);
    pass(&rig);
    expect_only(&rig, "entry", 1);
    rig.sleep(secs(3));
    // The footer that named the newer version goes too: the first one is all that is left.
    rig.sim.overwrite(rig.region_start(at) + REGION - 4096, &[0; 4096]);
    rig.power_cut();
    assert!(rig.get(b"key").is_none(), "the older version is back");
}

#[test]
fn a_flipped_bit_in_a_superblock_copy_is_repaired() {
    for copy in [0, 1] {
        for byte in (0..80).step_by(3).chain([300, SUPERBLOCK_LEN as u64 - 1]) {
            let rig = filled();
            let at = rig.cache().device_store().layout().superblock_offsets()[copy];
            let sound = rig.sim.contents(at..at + SUPERBLOCK_LEN as u64);
            rig.sim.corrupt(at + byte, 1);
            pass(&rig);
            expect_only(&rig, "superblock", 1);
            assert_eq!(counters(&rig).superblocks_repaired, 1);
            assert_eq!(rig.sim.contents(at..at + SUPERBLOCK_LEN as u64), sound);
        }
    }
}

#[test]
fn two_damaged_superblock_copies_are_repaired_from_memory() {
    let mut rig = filled();
    let offsets = rig.cache().device_store().layout().superblock_offsets();
    for at in offsets {
        rig.sim.overwrite(at, &[0xFF; SUPERBLOCK_LEN]);
    }
    pass(&rig);
    expect_only(&rig, "superblock", 2);
    rig.kill();
    assert_eq!(rig.get(b"b-5").unwrap(), body(5, QUARTER));
}

#[test]
fn a_superblock_of_another_store_is_left_alone() {
    let other = Rig::with(SMALL, by_hand());
    let rig = filled();
    let mut foreign = other.sim.contents(0..SUPERBLOCK_LEN as u64);
    // Another identity, and a sound checksum over it.
    foreign[40] ^= 1;
    foreign[12..16].fill(0);
    let checksum = crc32fast::hash(&foreign);
    foreign[12..16].copy_from_slice(&checksum.to_le_bytes());
    rig.sim.overwrite(0, &foreign);
    pass(&rig);
    expect_only(&rig, "superblock", 0);
    assert_eq!(rig.sim.contents(0..SUPERBLOCK_LEN as u64), foreign);
}

#[test]
fn a_purge_during_the_pass_is_no_damage_of_the_superblock() {
    let rig = filled();
    rig.sim.set_delay(Delay::Sleep(millis(20)));
    for _ in 0..20 {
        rig.run(async {
            tokio::join!(
                async {
                    let store = rig.cache().device_store();
                    Scrubber::starting_at(store.clone(), 0).step().await;
                },
                async { rig.cache().purge_all(rawcached::Purge::Hard).await.unwrap() }
            );
        });
    }
    expect_only(&rig, "superblock", 0);
}

#[test]
fn what_cannot_be_read_is_counted_and_left() {
    let rig = filled();
    let bad = rig.find(&body(2, QUARTER)[..64]);
    let other = start_of(&rig, 6);
    let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read).always();
    rig.sim.inject(fault.clone().within(bad..bad + 1));
    rig.sim.corrupt(rig.find(&body(5, QUARTER)[..64]), 1);
    let entries = rig.stats().store.entries;
    pass(&rig);
    let counted = counters(&rig);
    assert!(counted.scrub_unreadable > 0 && counted.scrub_passes == 1, "{counted:?}");
    assert_eq!((counted.scrub_entries, counted.scrub_condemned), (1, 0), "the rest was walked");
    assert_eq!(rig.stats().store.entries, entries - 1);
    // A header and footer that cannot be read do not stop it either.
    rig.sim.inject(fault.clone().within(other..other + REGION));
    pass(&rig);
    assert_eq!(counters(&rig).scrub_passes, 2);
    assert_eq!(counters(&rig).scrub_condemned, 0);
    rig.sim.clear_faults();
    assert_eq!(rig.get(b"a-2").unwrap(), body(2, QUARTER), "it can be read again");
}

#[test]
fn one_wrong_read_is_no_damage() {
    for nth in 0..40 {
        let rig = filled();
        let fault = Fault::new(Effect::Corrupt(1000, 1)).on(OperationKind::Read).after(nth);
        rig.sim.inject(fault);
        let entries = rig.stats().store.entries;
        pass(&rig);
        expect_only(&rig, "nothing", 0);
        assert_eq!(rig.stats().store.entries, entries);
    }
}

/// Random changes, lookups and reclaim in every interleaving that the seed gives.
fn under_load(seed: u64) {
    let rig = rig();
    rig.sim.set_delay(Delay::Sleep(millis(2)));
    let store = rig.cache().device_store();
    let done = std::cell::Cell::new(false);
    let scrub = async {
        let mut scrubber = Scrubber::starting_at(store.clone(), 0);
        while !done.get() {
            scrubber.step().await;
            tokio::task::yield_now().await;
        }
    };
    let load = async {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut expected = std::collections::BTreeMap::new();
        for n in 0..400 {
            // A change whose acknowledgement does not wait leaves the device to the scrubber.
            tokio::time::sleep(millis(random.u64(..6))).await;
            let key = format!("key-{}", random.u8(..30));
            match random.u8(..8) {
                0 => drop(rig.cache().remove(key.as_bytes()).await.unwrap()),
                1 => drop(rig.cache().touch(key.as_bytes(), secs(7000)).await.unwrap()),
                2 | 3 => {
                    if let Some(found) = read(rig.cache(), key.as_bytes()).await {
                        assert_eq!(Some(&found), expected.get(&key), "{key}");
                    }
                }
                _ => {
                    let body = body(n, random.usize(..70_000));
                    let (cache, options) = (rig.cache(), for_secs(5000));
                    let put = cache.put(key.as_bytes(), body.clone(), Condition::Always, &options);
                    put.await.unwrap();
                    expected.insert(key, body.to_vec());
                }
            }
        }
        done.set(true);
    };
    rig.run(async { tokio::join!(scrub, load) });
    let counted = counters(&rig);
    assert!(counted.regions_freed > 5 && counted.scrub_passes > 5, "{counted:?}");
    expect_only(&rig, "nothing", 0);
    assert_eq!(counted.damaged, 0);
    store.check_accounting();
}

#[test]
fn nothing_sound_is_touched_under_load_and_reclaim() {
    for seed in 0..12 {
        under_load(seed);
    }
}
