//! Superblocks and damage. Any doubt is a miss and a counter, never wrong bytes.

use rawcached::cache::OpenError;
use rawcached::device::{Effect, Fault, OperationKind, SimDevice};
use rawcached::format::{RegionHeader, Seed, Sequence, TRAILER_LEN, Trailer};

use crate::rig::*;

fn second_copy(rig: &Rig) -> u64 {
    rig.cache().device_store().layout().superblock_offsets()[1]
}

#[test]
fn a_damaged_superblock_copy_is_repaired_and_reported() {
    for copy in [0, 1] {
        let mut rig = Rig::new();
        rig.put(b"key", &body(1, 100), &flushed()).unwrap();
        let at = [0, second_copy(&rig)][copy];
        let good = rig.sim.contents(at..at + 512);
        rig.stop();
        rig.sim.overwrite(at + 40, &[0xFF; 64]);
        rig.open();
        assert_eq!(rig.get(b"key").unwrap(), body(1, 100));
        assert_eq!(rig.stats().store.counters.superblocks_repaired, 1);
        assert_eq!(rig.sim.contents(at..at + 512), good);
        rig.kill();
        assert_eq!(rig.stats().store.counters.superblocks_repaired, 0);
    }
}

#[test]
fn an_unreadable_superblock_copy_does_not_stop_the_start() {
    for copy in [0, 1] {
        let mut rig = Rig::new();
        rig.put(b"key", &body(1, 100), &flushed()).unwrap();
        let at = [0, second_copy(&rig)][copy];
        rig.stop();
        let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
        rig.sim.inject(fault.within(at..at + 4096));
        rig.open();
        assert_eq!(rig.get(b"key").unwrap(), body(1, 100), "copy {copy}");
    }
}

#[test]
fn two_damaged_superblocks_are_refused_and_nothing_is_written() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 100), &flushed()).unwrap();
    let second = second_copy(&rig);
    rig.stop();
    rig.sim.corrupt(100, 1);
    rig.sim.corrupt(second + 100, 1);
    let before = rig.sim.counts().writes;
    assert!(matches!(rig.begin(), Err(OpenError::Damaged(_))));
    assert_eq!(rig.sim.counts().writes, before);
    // Nothing was lost by the attempt.
    rig.sim.corrupt(second + 100, 1);
    rig.open();
    assert!(rig.get(b"key").is_some());
}

#[test]
fn a_blank_device_is_refused_and_nothing_is_written() {
    let mut rig = Rig::new();
    rig.stop();
    rig.sim = SimDevice::new(4 << 20, 4096);
    assert!(matches!(rig.begin(), Err(OpenError::NotFormatted(_))));
    assert_eq!(rig.sim.counts().writes, 0);
}

#[test]
fn a_truncated_device_is_refused() {
    let mut rig = Rig::new();
    let contents = rig.sim.contents(0..SUPERBLOCK + 9 * REGION);
    rig.stop();
    rig.sim = SimDevice::new(contents.len() as u64, 4096);
    rig.sim.overwrite(0, &contents);
    assert!(matches!(rig.begin(), Err(OpenError::Truncated { .. })));
    assert_eq!(rig.sim.counts().writes, 0);
}

#[test]
fn a_device_with_coarser_blocks_than_it_was_formatted_for_is_refused() {
    let mut rig = Rig::with(Disk { alignment: 512, ..SMALL }, plain());
    let size = rig.cache().device_store().device().geometry().size;
    let contents = rig.sim.contents(0..size);
    rig.stop();
    rig.sim = SimDevice::new(size, 4096);
    rig.sim.overwrite(0, &contents);
    assert!(matches!(rig.begin(), Err(OpenError::Alignment { .. })));
}

#[test]
fn a_device_that_moved_is_recognised() {
    let mut rig = Rig::new();
    rig.fill("key", 9, 1000);
    let size = rig.cache().device_store().device().geometry().size;
    rig.run(rig.cache().shutdown()).unwrap();
    let contents = rig.sim.contents(0..size);
    rig.stop();
    rig.sim = SimDevice::new(size, 4096);
    rig.sim.overwrite(0, &contents);
    rig.open();
    for n in 0..9 {
        assert_eq!(rig.get(format!("key-{n}").as_bytes()).unwrap(), body(n, QUARTER));
    }
}

/// Stores "key", flips a bit `distance` bytes from the start of its body, and looks.
fn flipped(distance: i64, restart: bool) {
    let mut rig = Rig::new();
    let options = options!(rawcached::cache::StoreOptions {
        metadata: bytes::Bytes::from_static(b"metadata"),
        ..for_secs(1000)
    });
    rig.put(b"key", &body(1, 5000), &options).unwrap();
    rig.fill("filler", 5, 1000);
    rig.sleep(secs(2));
    let at = rig.find(&body(1, 5000)[..64]).checked_add_signed(distance).unwrap();
    rig.sim.corrupt(at, 0x10);
    if restart {
        rig.kill();
    }
    assert_eq!(rig.get(b"key"), None, "bit flipped at {distance}");
    assert_eq!(rig.stats().store.counters.damaged, u64::from(!restart || distance > -59));
    assert_eq!(rig.get(b"filler-0").unwrap(), body(0, QUARTER), "the neighbour is whole");
    assert_eq!(rig.get(b"key"), None);
    rig.put(b"key", &body(2, 100), &for_secs(1000)).unwrap();
    assert_eq!(rig.get(b"key").unwrap(), body(2, 100));
    rig.cache().device_store().check_accounting();
}

#[test]
fn a_flipped_bit_anywhere_in_an_entry_is_a_miss() {
    // Header (48), key (3) and metadata (8) come before the body.
    for distance in [-59, -55, -50, -40, -30, -20, -12, -11, -9, -8, -1, 0, 1, 2500, 4999] {
        flipped(distance, false);
    }
}

#[test]
fn a_flipped_bit_in_an_entry_is_a_miss_after_a_restart_too() {
    for distance in [-58, -11, -1, 0, 4999] {
        flipped(distance, true);
    }
}

#[test]
fn a_damaged_footer_costs_nothing_but_time() {
    let mut rig = Rig::new();
    rig.fill("key", 9, 1000);
    rig.remove(b"key-1").unwrap();
    rig.sleep(secs(2));
    let start = rig.region_start(rig.find(&body(0, QUARTER)[..64]));
    rig.sim.corrupt(start + REGION - TRAILER_LEN as u64 + 20, 4);
    rig.kill();
    for n in [0, 2, 3, 4, 8] {
        assert_eq!(rig.get(format!("key-{n}").as_bytes()).unwrap(), body(n, QUARTER));
    }
    assert_eq!(rig.get(b"key-1"), None);
}

/// Damages the header of the region that has `key-0`; gives where the region starts.
fn lose_header(rig: &Rig) -> u64 {
    let start = rig.region_start(rig.find(&body(0, QUARTER)[..64]));
    rig.sim.corrupt(start + 20, 4);
    start
}

#[test]
fn a_damaged_region_header_costs_nothing_in_a_sealed_region() {
    let mut rig = Rig::new();
    rig.fill("key", 9, 1000);
    rig.sleep(secs(2));
    lose_header(&rig);
    rig.kill();
    assert_eq!(rig.get(b"key-0").unwrap(), body(0, QUARTER));
    assert_eq!(rig.get(b"key-8").unwrap(), body(8, QUARTER));
}

#[test]
fn without_its_header_a_region_with_damaged_records_is_not_taken_for_a_blank_one() {
    let mut rig = Rig::new();
    rig.fill("key", 9, 1000);
    rig.sleep(secs(2));
    let start = lose_header(&rig);
    // The footer's first record, in the last block.
    rig.sim.corrupt(start + REGION - u64::from(SMALL.alignment), 4);
    rig.kill();
    for n in [0, 1, 2, 8] {
        assert_eq!(rig.get(format!("key-{n}").as_bytes()).unwrap(), body(n, QUARTER));
    }
}

/// The generations of header and footer of a region.
fn lives_of(sim: &SimDevice, region: u32) -> (Option<Sequence>, Option<Sequence>) {
    let start = SUPERBLOCK + u64::from(region) * REGION;
    let (block, tail) = (sim.contents(start..start + 512), sim.contents(start..start + REGION));
    let header = RegionHeader::decode(&block, UUID, region).ok();
    let seed_of = |generation| Seed::new(UUID, region, generation);
    let trailer = Trailer::decode(&tail, seed_of).ok();
    (header.map(|header| header.generation), trailer.map(|trailer| trailer.generation))
}

#[test]
fn no_crash_leaves_a_footer_without_its_header() {
    let mut rig = Rig::new();
    let regions = u32::try_from(SMALL.regions).unwrap();
    let mut sealed = 0;
    for seed in 0..40 {
        // Several regions in a second, over regions of earlier generations, cut off anywhere.
        for n in 0..8 + seed % 9 {
            rig.put(format!("{seed}-{n}").as_bytes(), &body(n, QUARTER), &for_secs(1000)).unwrap();
            rig.sleep(millis((seed + n) % 2));
        }
        rig.power_cut_with(seed);
        for region in 0..regions {
            let (header, footer) = lives_of(&rig.sim, region);
            sealed += usize::from(footer.is_some());
            assert!(footer <= header, "region {region}, cut {seed}: {footer:x?}, {header:x?}");
        }
        rig.open();
    }
    assert!(sealed > 40, "{sealed} footers");
}

#[test]
fn a_region_with_blocks_that_cannot_be_read_gets_no_footer() {
    let mut rig = Rig::new();
    rig.put(b"one", &body(1, 20_000), &flushed()).unwrap();
    rig.put(b"two", &body(2, 20_000), &flushed()).unwrap();
    let at = rig.find(&body(1, 20_000)[..64]);
    rig.stop();
    let block = at / 4096 * 4096..at / 4096 * 4096 + 4096;
    rig.sim
        .inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read).within(block).always());
    rig.open();
    assert_eq!(rig.get(b"one"), None);
    assert_eq!(rig.get(b"two").unwrap(), body(2, 20_000));
    rig.put(b"three", &body(3, 100), &flushed()).unwrap();
    rig.sim.clear_faults();
    rig.kill();
    for (key, seed) in [(b"one", 1), (b"two", 2)] {
        assert_eq!(rig.get(key).unwrap(), body(seed, 20_000));
    }
}

#[test]
fn a_lost_region_header_is_written_again() {
    let mut rig = Rig::new();
    rig.fill("key", 9, 1000);
    rig.sleep(secs(2));
    let start = lose_header(&rig);
    rig.kill();
    assert_eq!(rig.get(b"key-0").unwrap(), body(0, QUARTER));
    rig.put(b"more", &body(1, 100), &flushed()).unwrap();
    rig.sim.corrupt(start + REGION - TRAILER_LEN as u64 + 20, 4);
    rig.kill();
    assert_eq!(rig.get(b"key-0").unwrap(), body(0, QUARTER));
}

#[test]
fn a_touch_in_a_region_without_a_header_outlives_the_next_start() {
    let mut rig = Rig::new();
    rig.fill("key", 9, 100);
    rig.sleep(secs(2));
    lose_header(&rig);
    rig.kill();
    rig.run(rig.cache().touch(b"key-0", secs(1000))).unwrap().unwrap();
    rig.kill_and_set(WALL + 500);
    assert_eq!(rig.get(b"key-0").unwrap(), body(0, QUARTER));
    assert_eq!(rig.get(b"key-1"), None);
}

#[test]
fn another_devices_or_another_places_bytes_do_not_pass() {
    let mut rig = Rig::new();
    rig.put(b"one", &body(1, 5000), &for_secs(1000)).unwrap();
    rig.put(b"two", &body(2, 5000), &for_secs(1000)).unwrap();
    rig.fill("filler", 5, 1000);
    rig.sleep(secs(2));
    let start = rig.region_start(rig.find(&body(1, 5000)[..64]));
    let first = rig.sim.contents(start..start + REGION / 2);
    // A misdirected write: the first blocks of one region land in another.
    rig.sim.overwrite(start + REGION, &first);
    assert_eq!(rig.get(b"one").unwrap(), body(1, 5000));
    for n in 0..5 {
        let found = rig.get(format!("filler-{n}").as_bytes());
        assert!(found.is_none() || found.unwrap() == body(n, QUARTER));
    }
    rig.kill();
    assert_eq!(rig.get(b"two").unwrap(), body(2, 5000));
}

#[test]
fn damage_that_is_met_before_the_first_change_is_met_once() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 5000), &for_secs(1000)).unwrap();
    rig.put(b"key", &body(2, 5000), &for_secs(1000)).unwrap();
    rig.fill("filler", 5, 1000);
    rig.sleep(secs(2));
    rig.kill();
    let at = rig.find(&body(2, 5000)[..64]);
    rig.sim.corrupt(at, 0x10);
    assert_eq!(rig.get(b"key"), None);
    let before = rig.sim.counts();
    for _ in 0..100 {
        assert_eq!(rig.get(b"key"), None);
    }
    let counts = rig.sim.counts();
    assert_eq!((counts.reads, counts.writes), (before.reads, before.writes));
    let store = rig.stats().store;
    assert_eq!((store.counters.damaged, store.removals_waiting), (1, 1));
    // Its tombstone comes with the first change.
    rig.put(b"other", &body(3, 100), &flushed()).unwrap();
    assert_eq!(rig.stats().store.removals_waiting, 0);
    rig.sim.corrupt(at, 0x10);
    rig.kill();
    assert_eq!(rig.get(b"key"), None, "sound again, but said to be gone");
    rig.cache().device_store().check_accounting();
}
