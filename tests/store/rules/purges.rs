//! Purges have their tombstone in two regions: one unreadable region does not undo a purge.

use std::ops::Range;

use rawcached::device::{Effect, Fault, OperationKind};
use rawcached::format::{LogKind, REGION_HEADER_LEN, RegionHeader, RegionUse};

use crate::rig::*;

const LONG: u64 = 100_000;

fn region_at(region: u32) -> Range<u64> {
    let start = SUPERBLOCK + u64::from(region) * REGION;
    start..start + REGION
}

fn eio(within: Range<u64>) -> Fault {
    Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read).within(within).always()
}

/// The regions in use, by the log that they are of.
fn regions_of(rig: &Rig, log: LogKind) -> Vec<u32> {
    let is_of = |region: &u32| {
        let start = region_at(*region).start;
        let block = rig.sim.contents(start..start + REGION_HEADER_LEN as u64);
        RegionHeader::decode(&block, UUID, *region)
            .is_ok_and(|header| header.region_use == RegionUse::Log && header.log == log)
    };
    (0..u32::try_from(SMALL.regions).unwrap()).filter(is_of).collect()
}

#[test]
fn no_single_region_that_cannot_be_read_undoes_a_purge() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(801, 3000), &flushed()).unwrap();
    rig.fill("first", 6, LONG);
    rig.sleep(secs(2));
    let marker = body(77, 500);
    rig.put(b"marker", &marker, &flushed()).unwrap();
    assert!(rig.remove(b"key").unwrap());
    rig.fill("second", 4, LONG);
    rig.sleep(secs(2));
    let first = u32::try_from((rig.find(&marker[..64]) - SUPERBLOCK) / REGION).unwrap();
    let second = regions_of(&rig, LogKind::Purges);
    let [second] = second[..] else { panic!("purges in {second:?}") };
    assert_ne!(first, second);
    for unreadable in [Some(first), Some(second), None] {
        rig.stop();
        rig.sim.clear_faults();
        if let Some(region) = unreadable {
            rig.sim.inject(eio(region_at(region)));
        }
        rig.open();
        assert_eq!(rig.stats().store.regions_unreadable, u64::from(unreadable.is_some()));
        assert_eq!(rig.get(b"key"), None, "without region {unreadable:?}");
        assert!(rig.get(b"first-0").is_some(), "there is something to come back");
    }
}

#[test]
fn a_region_of_purges_that_cannot_be_read_leaves_no_entry_in_doubt() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(801, 3000), &flushed()).unwrap();
    rig.fill("first", 6, LONG);
    assert!(rig.remove(b"key").unwrap());
    rig.sleep(secs(2));
    let region = region_at(regions_of(&rig, LogKind::Purges)[0]);
    rig.stop();
    // But for its header, which says what it is.
    rig.sim.inject(eio(region.start + 4096..region.end));
    rig.open();
    assert_eq!(rig.stats().store.regions_unreadable, 1);
    assert!(rig.get(b"first-0").is_some() && rig.get(b"key").is_none());
    let store = rig.stats().store;
    assert_eq!((store.counters.doubtful_hits, store.regions_unindexed), (0, 0));
    rig.sim.clear_faults();
    rig.sleep(secs(10));
    let store = rig.stats().store;
    assert_eq!((store.regions_unreadable, store.counters.regions_reread), (0, 1));
}

/// A region of the log of purges with a footer and a damaged header, the process gone.
fn without_its_header() -> (Rig, Range<u64>) {
    let mut rig = Rig::new();
    rig.put(b"key", &body(801, 3000), &flushed()).unwrap();
    rig.fill("first", 6, LONG);
    assert!(rig.remove(b"key").unwrap());
    rig.kill();
    // With the first change the region that was open gets its footer.
    rig.put(b"other", &body(802, 100), &flushed()).unwrap();
    rig.sleep(secs(2));
    let region = region_at(regions_of(&rig, LogKind::Purges)[0]);
    rig.stop();
    rig.sim.corrupt(region.start + 20, 4);
    assert!(regions_of(&rig, LogKind::Purges).is_empty());
    (rig, region)
}

#[test]
fn a_region_of_purges_is_known_by_its_trailer() {
    let (mut rig, _) = without_its_header();
    rig.open();
    rig.put(b"other", &body(802, 100), &flushed()).unwrap();
    rig.sleep(secs(2));
    assert_eq!(regions_of(&rig, LogKind::Purges).len(), 1, "its header is written again");
}

#[test]
fn a_region_of_purges_that_can_be_read_again_is_known_by_its_trailer() {
    let (mut rig, region) = without_its_header();
    rig.sim.inject(eio(region));
    rig.open();
    rig.put(b"other", &body(802, 100), &flushed()).unwrap();
    rig.sim.clear_faults();
    rig.sleep(secs(10));
    let counters = rig.stats().store.counters;
    assert_eq!((counters.regions_reread, counters.regions_freed), (1, 1));
    assert!(counters.tombstones_carried > 0);
    assert_eq!(regions_of(&rig, LogKind::Purges).len(), 1, "carried on in their own log");
}

#[test]
fn copies_that_were_carried_on_are_in_two_regions_still() {
    let mut rig = Rig::new();
    let long = for_secs(LONG);
    // In a region that stays.
    for n in 0..200 {
        rig.put(format!("old-{n}").as_bytes(), &body(n, 100), &long).unwrap();
    }
    rig.fill("beside", 3, LONG);
    let mut purged = 0;
    for round in 0..40u64 {
        rig.turn(round, |n| {
            if n < 5 {
                let key = format!("old-{purged}");
                assert!(rig.remove(key.as_bytes()).unwrap(), "{key}");
                purged += 1;
            }
        });
    }
    let counters = rig.stats().store.counters;
    assert!(counters.regions_freed > 30 && counters.tombstones_carried > 100, "{counters:?}");
    assert!(rig.get(b"beside-0").is_some(), "the region of what was purged is there");
    rig.stop();
    let in_use = [regions_of(&rig, LogKind::Data), regions_of(&rig, LogKind::Purges)];
    assert!(in_use[1].len() <= 3, "{in_use:?}");
    for region in in_use.concat() {
        rig.sim.clear_faults();
        rig.sim.inject(eio(region_at(region)));
        rig.open();
        for n in 0..purged {
            let key = format!("old-{n}");
            assert_eq!(rig.get(key.as_bytes()), None, "{key} without region {region}");
        }
        rig.stop();
    }
}

#[test]
fn without_a_purge_no_region_is_taken() {
    let mut rig = Rig::new();
    rig.fill("key", 9, LONG);
    rig.put(b"key-1", &body(9, 100), &flushed()).unwrap();
    rig.remove(b"never-there").unwrap();
    assert!(regions_of(&rig, LogKind::Purges).is_empty());
    rig.kill();
    rig.remove(b"key-1").unwrap();
    assert_eq!(regions_of(&rig, LogKind::Purges).len(), 1);
}

#[test]
fn the_second_copy_costs_no_flush() {
    let rig = Rig::new();
    for n in 0..20 {
        rig.put(format!("{n}").as_bytes(), &body(n, 100), &flushed()).unwrap();
    }
    rig.remove(b"0").unwrap();
    let before = rig.sim.counts();
    for n in 1..20 {
        rig.remove(format!("{n}").as_bytes()).unwrap();
    }
    let after = rig.sim.counts();
    assert_eq!(after.flushes - before.flushes, 19);
    assert_eq!(after.writes - before.writes, 2 * 19);
}

#[test]
fn a_purge_whose_second_copy_fails_is_not_acknowledged() {
    let mut rig = Rig::new();
    for key in [b"a", b"b", b"c"] {
        rig.put(key, &body(1, 100), &flushed()).unwrap();
    }
    rig.remove(b"a").unwrap();
    let region = regions_of(&rig, LogKind::Purges)[0];
    let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Write);
    rig.sim.inject(fault.within(region_at(region)));
    assert!(rig.remove(b"b").is_err());
    assert_eq!(rig.get(b"b"), None, "gone at once all the same");
    rig.remove(b"b").unwrap();
    rig.remove(b"c").unwrap();
    assert_eq!(regions_of(&rig, LogKind::Purges).len(), 2, "the first one is used no more");
    let first = regions_of(&rig, LogKind::Data);
    rig.stop();
    for region in first {
        rig.sim.clear_faults();
        rig.sim.inject(eio(region_at(region)));
        rig.open();
        for key in [b"a", b"b", b"c"] {
            assert_eq!(rig.get(key), None);
        }
        rig.stop();
    }
}

#[test]
fn purges_go_on_where_hardly_a_region_is_left() {
    let rig = Rig::with(Disk { regions: 8, ..SMALL }, plain());
    for n in 0..1000u64 {
        let key = format!("{n}");
        rig.put(key.as_bytes(), &body(n, 20_000), &for_secs(LONG)).unwrap();
        if n % 2 == 0 {
            assert!(rig.remove(key.as_bytes()).unwrap(), "{key}");
        }
    }
    assert_eq!(rig.stats().store.counters.refused, 0);
    rig.cache().device_store().check_accounting();
}
