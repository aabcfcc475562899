//! Regions that cannot be read at one start, and can be later. Versions whose successors they hide
//! may be served meanwhile, but never again once the regions could be read.

use std::ops::Range;

use rawcached::cache::Condition;
use rawcached::device::{Effect, Fault, OperationKind};

use crate::rig::*;

const LONG: u64 = 100_000;

fn eio(within: Range<u64>) -> Fault {
    Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read).within(within).always()
}

fn region_at(start: u64) -> Range<u64> {
    start..start + REGION
}

fn old() -> bytes::Bytes {
    body(801, 3000)
}

fn new() -> bytes::Bytes {
    body(802, 3000)
}

/// "key" in one region and its newer version in another, between others, all on the device and the
/// process gone; gives where the second region is.
fn overwritten(rig: &mut Rig) -> Range<u64> {
    rig.put(b"key", &old(), &flushed()).unwrap();
    rig.fill("first", 6, LONG);
    rig.sleep(secs(2));
    let old_region = rig.region_start(rig.find(&old()[..64]));
    rig.put(b"key", &new(), &flushed()).unwrap();
    rig.fill("second", 4, LONG);
    rig.sleep(secs(2));
    let region = rig.region_start(rig.find(&new()[..64]));
    assert_ne!(region, old_region);
    rig.stop();
    region_at(region)
}

/// Stores more than the device holds, and asks for "key" all the while.
fn churn(rig: &Rig, name: &str, count: u64) {
    for n in 0..count {
        let key = format!("{name}-{n}");
        rig.put(key.as_bytes(), &body(n, QUARTER), &for_secs(LONG)).unwrap();
        rig.get(b"key");
        if n % 4 == 0 {
            rig.sleep(millis(500));
        }
    }
    rig.sleep(secs(2));
}

fn assert_not_old(rig: &Rig, when: &str) {
    assert!(rig.get(b"key").is_none_or(|found| found != old()), "{when}");
}

#[test]
fn what_one_start_could_not_read_prevails_at_the_next() {
    for rounds in [0, 6, 12, 60] {
        let mut rig = Rig::new();
        let region = overwritten(&mut rig);
        rig.sim.inject(eio(region));
        rig.open();
        assert_eq!(rig.stats().store.regions_unreadable, 1);
        if rig.get(b"key").is_some() {
            assert!(rig.stats().store.counters.doubtful_hits > 0, "counted");
        }
        churn(&rig, "churn", rounds);
        rig.stop();
        rig.sim.clear_faults();
        rig.open();
        assert_not_old(&rig, &format!("after {rounds} stores"));
        rig.cache().device_store().check_accounting();
    }
}

#[test]
fn two_starts_that_cannot_read_a_region_are_like_one() {
    let mut rig = Rig::new();
    let region = overwritten(&mut rig);
    rig.sim.inject(eio(region));
    rig.open();
    churn(&rig, "first-life", 5);
    rig.kill();
    churn(&rig, "second-life", 5);
    rig.stop();
    rig.sim.clear_faults();
    rig.open();
    assert_not_old(&rig, "when all can be read");
}

#[test]
fn a_region_that_can_be_read_again_prevails_at_once() {
    let mut rig = Rig::new();
    let region = overwritten(&mut rig);
    rig.sim.inject(eio(region));
    rig.open();
    rig.put(b"later", &body(9, 100), &flushed()).unwrap();
    rig.sleep(secs(10));
    assert_eq!(rig.get(b"key").unwrap(), old(), "there is no telling yet");
    rig.sim.clear_faults();
    rig.sleep(secs(30));
    assert_eq!(rig.get(b"key"), None);
    let store = rig.stats().store;
    assert_eq!((store.regions_unreadable, store.counters.regions_reread), (0, 1));
    assert!(store.counters.regions_freed > 0, "it is emptied");
    // Its record of the older version was carried on.
    for _ in 0..2 {
        rig.kill();
        assert_not_old(&rig, "after its region was emptied");
    }
    rig.cache().device_store().check_accounting();
}

#[test]
fn a_region_is_asked_again_more_and_more_rarely() {
    let mut rig = Rig::new();
    let region = overwritten(&mut rig);
    rig.sim.inject(eio(region));
    rig.open();
    let faults = rig.sim.counts().faults;
    rig.sleep(secs(590));
    let reads = rig.sim.counts().faults - faults;
    assert!((4..20).contains(&reads), "{reads} reads in ten minutes");
}

#[test]
fn a_hole_in_a_region_counts_like_the_whole() {
    for rounds in [0, 6, 12, 60] {
        let mut rig = Rig::new();
        let region = overwritten(&mut rig);
        let contents = rig.sim.contents(region.clone());
        let at = contents.windows(64).position(|bytes| *bytes == new()[..64]).unwrap() as u64;
        // The header of its slot is in the block before, or in this one.
        let block = region.start + (at - 100) / 4096 * 4096;
        rig.sim.inject(eio(block..block + 8192));
        // Without the footer only the slots show it.
        rig.sim.inject(eio(region.end - 8192..region.end));
        rig.open();
        assert_eq!(rig.stats().store.regions_unreadable, 1);
        churn(&rig, "churn", rounds);
        rig.stop();
        rig.sim.clear_faults();
        rig.open();
        assert_not_old(&rig, &format!("after {rounds} stores"));
    }
}

#[test]
fn a_hole_found_while_a_region_is_emptied_keeps_the_region() {
    let mut rig = Rig::new();
    rig.put(b"key", &old(), &for_secs(LONG)).unwrap();
    rig.fill("beside", 3, LONG);
    // Emptied before the region of the entry that is replaced: all in it expires.
    rig.fill("short", 2, 20);
    rig.put(b"key", &new(), &for_secs(20)).unwrap();
    rig.fill("shorter", 11, 20);
    rig.sleep(secs(2));
    let at = rig.find(&new()[..64]);
    assert_ne!(rig.region_start(at), rig.region_start(rig.find(&old()[..64])));
    let (block, region) = (at / 4096 * 4096, rig.region_start(at));
    rig.sim.inject(eio(block..block + 8192));
    rig.sim.inject(eio(region + REGION - 4096..region + REGION));
    rig.clock.advance(secs(60));
    for n in 0..24 {
        let _ = rig.put(format!("more-{n}").as_bytes(), &body(n, QUARTER), &for_secs(LONG));
        rig.sleep(secs(1));
    }
    assert_eq!(rig.stats().store.regions_set_aside, 1, "it was to be emptied");
    assert!(rig.get(b"beside-0").is_some(), "the region of the older version is still there");
    rig.sim.clear_faults();
    rig.kill();
    assert_eq!(rig.get(b"key"), None);
}

/// A power cut may keep the header of a freed region and lose the erasure of its trailer: then a later generation
/// begins before that trailer.
#[test]
fn a_trailer_is_not_believed_behind_a_header_that_cannot_be_read() {
    let mut rig = Rig::with(Disk { regions: 8, ..SMALL }, plain());
    rig.fill("first", 20, LONG);
    rig.sleep(secs(2));
    let last_block = |start: u64| start + REGION - 512..start + REGION;
    let starts = (0..8).map(|n| SUPERBLOCK + n * REGION);
    let trailers: Vec<Vec<u8>> = starts.map(|start| rig.sim.contents(last_block(start))).collect();
    churn(&rig, "churn", 20);
    rig.put(b"key", &new(), &flushed()).unwrap();
    let start = rig.region_start(rig.find(&new()[..64]));
    let trailer = &trailers[usize::try_from((start - SUPERBLOCK) / REGION).unwrap()];
    let is_blank = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    assert!(is_blank(&rig.sim.contents(last_block(start))) && !is_blank(trailer));
    rig.kill();
    assert_eq!(rig.get(b"key").unwrap(), new());
    rig.stop();
    rig.sim.overwrite(last_block(start).start, trailer);
    rig.sim.inject(eio(start..start + 512));
    rig.open();
    assert_eq!(rig.get(b"key"), None);
    assert_eq!(rig.stats().store.regions_unreadable, 1, "what is in it is unknown");
    rig.sim.clear_faults();
    rig.sleep(secs(600));
    assert_eq!(rig.stats().store.regions_unreadable, 0);
    rig.cache().device_store().check_accounting();
}

#[test]
fn regions_whose_headers_cannot_be_read_cost_old_entries_and_no_truth() {
    let mut rig = Rig::with(Disk { regions: 8, ..SMALL }, plain());
    let region = overwritten(&mut rig);
    rig.sim.inject(eio(region));
    rig.open();
    // Every overwrite leaves a tombstone that is needed as long as nobody knows how old the region is.
    rig.run(async {
        for n in 0..100_000u32 {
            let (key, options) = ((n % 1000).to_le_bytes(), for_secs(LONG));
            let put = rig.cache().put(&key, bytes::Bytes::new(), Condition::Always, &options);
            put.await.unwrap();
        }
    });
    churn(&rig, "churn", 60);
    assert_eq!(rig.stats().store.counters.starts_forgotten, 1);
    assert_eq!(rig.stats().store.regions_unreadable, 0, "it is in use again");
    rig.put(b"later", &new(), &flushed()).unwrap();
    rig.stop();
    rig.sim.clear_faults();
    rig.open();
    assert_eq!(rig.get(b"key"), None);
    assert_eq!(rig.get(b"later").unwrap(), new());
}

#[test]
fn all_regions_that_cannot_be_read_are_used_again_when_earlier_starts_are_dropped() {
    let mut rig = Rig::new();
    let region = overwritten(&mut rig);
    rig.sim.inject(eio(region.start..region.end + REGION));
    rig.open();
    assert_eq!(rig.stats().store.regions_unreadable, 2);
    rig.run(async {
        for n in 0..100_000u32 {
            let (key, options) = ((n % 1000).to_le_bytes(), for_secs(LONG));
            let put = rig.cache().put(&key, bytes::Bytes::new(), Condition::Always, &options);
            put.await.unwrap();
        }
    });
    churn(&rig, "churn", 60);
    let store = rig.stats().store;
    assert_eq!((store.counters.starts_forgotten, store.regions_unreadable), (1, 0));
    assert_eq!(store.regions_unindexed, 0, "nothing is in doubt");
}

#[test]
fn a_region_that_can_neither_be_read_nor_freed_keeps_no_tombstones_for_ever() {
    let mut rig = Rig::new();
    rig.put(b"key", &old(), &for_secs(LONG)).unwrap();
    rig.fill("beside", 4, LONG);
    rig.sleep(secs(2));
    let region = region_at(rig.region_start(rig.find(&old()[..64])));
    rig.put(b"key", &new(), &for_secs(LONG)).unwrap();
    rig.sim.inject(eio(region.clone()));
    let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Write);
    rig.sim.inject(fault.within(region).always());
    let turn = |rig: &Rig, name: &str| {
        let before = rig.stats().store.counters;
        for n in 0..60u64 {
            for key in 0..20u64 {
                let _ = rig.put(&key.to_be_bytes(), &body(n, 100), &for_secs(LONG));
            }
            let _ = rig.put(format!("{name}-{n}").as_bytes(), &body(n, QUARTER), &for_secs(LONG));
            if n % 4 == 0 {
                rig.sleep(secs(2));
                rig.clock.advance(secs(100));
            }
        }
        let after = rig.stats().store.counters;
        let freed = after.regions_freed - before.regions_freed;
        (after.tombstones_carried - before.tombstones_carried) / freed.max(1)
    };
    turn(&rig, "first");
    rig.remove(b"key").unwrap();
    for round in 0..6 {
        let each = turn(&rig, &format!("more-{round}"));
        assert!(each < 200, "{each} tombstones carried for each region freed, round {round}");
    }
    assert_eq!(rig.stats().store.regions_set_aside, 1);
    rig.sim.clear_faults();
    rig.kill();
    for key in ["key", "beside-0"] {
        assert_eq!(rig.get(key.as_bytes()), None, "{key} is back");
    }
    turn(&rig, "last");
    assert_eq!(rig.stats().store.regions_set_aside, 0, "it is used again");
}

#[test]
fn a_start_from_a_snapshot_knows_what_it_cannot_read() {
    let mut rig = Rig::new();
    rig.put(b"key", &old(), &flushed()).unwrap();
    rig.fill("first", 6, LONG);
    rig.put(b"key", &new(), &flushed()).unwrap();
    rig.fill("second", 4, LONG);
    rig.sleep(secs(2));
    let region = rig.region_start(rig.find(&new()[..64]));
    rig.run(rig.cache().shutdown()).unwrap();
    rig.stop();
    rig.sim.inject(eio(region + 4096..region + REGION));
    rig.open();
    assert_eq!(rig.stats().store.counters.snapshots_loaded, 1);
    assert_eq!(rig.get(b"key"), None);
    churn(&rig, "churn", 60);
    rig.stop();
    rig.sim.clear_faults();
    rig.open();
    assert_not_old(&rig, "after a start from a snapshot");
}
