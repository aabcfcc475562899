//! Rule 5: the epoch. A start writes nothing, and nothing repeats after a crash.

use std::collections::BTreeSet;

use rawcached::cache::OpenError;
use rawcached::device::{Delay, Effect, Fault, OperationKind};
use rawcached::format::{Sequence, Superblock};
use rawcached::store::read_superblocks;

use crate::support::*;

fn epoch(rig: &Rig) -> u32 {
    rig.run(read_superblocks(rig.cache().device_store().device())).unwrap().best.epoch
}

#[test]
fn opening_and_reading_write_nothing() {
    let mut rig = Rig::new();
    rig.fill("key", 9, 1000);
    rig.sleep(secs(2));
    rig.kill();
    let before = rig.sim.counts().writes;
    assert!(rig.get(b"key-0").is_some());
    assert_eq!(rig.get(b"absent"), None);
    assert!(!rig.remove(b"absent").unwrap());
    rig.sleep(secs(5));
    rig.restart();
    rig.power_cut();
    assert_eq!(rig.sim.counts().writes, before);
}

#[test]
fn the_first_change_after_an_open_raises_the_epoch_before_it_is_acknowledged() {
    let mut rig = Rig::new();
    let first = epoch(&rig);
    for n in first + 1..first + 4 {
        assert_eq!(epoch(&rig), n - 1);
        rig.put(b"key", &body(1, 10), &for_secs(100)).unwrap();
        assert_eq!(epoch(&rig), n);
        rig.put(b"key", &body(1, 10), &for_secs(100)).unwrap();
        assert_eq!(epoch(&rig), n);
        rig.power_cut();
    }
}

#[test]
fn cas_values_never_repeat_after_a_crash() {
    let mut rig = Rig::new();
    let mut seen = BTreeSet::new();
    for round in 0..12 {
        for n in 0..5 {
            let cas = rig.put(b"key", &body(n, 100), &for_secs(1000)).unwrap();
            assert!(seen.last().is_none_or(|last| cas > *last), "they only rise");
            assert!(seen.insert(cas));
        }
        match round % 3 {
            0 => rig.power_cut(),
            1 => rig.kill(),
            _ => rig.restart(),
        }
    }
}

#[test]
fn a_store_after_a_crash_wins_over_what_the_crash_left() {
    let mut rig = Rig::new();
    for n in 0..6 {
        rig.put(b"key", &body(n, 1000), &for_secs(1000)).unwrap();
        rig.sleep(secs(2));
        rig.kill();
        assert_eq!(rig.get(b"key").unwrap(), body(n, 1000));
    }
}

#[test]
fn a_store_without_epochs_left_is_refused() {
    let mut rig = Rig::new();
    let copies = rig.cache().device_store().layout().superblock_offsets();
    rig.stop();
    let superblock = Superblock::decode(&rig.sim.contents(0..512)).unwrap();
    for (epoch, is_left) in [(Sequence::EPOCH_MAX - 1, true), (Sequence::EPOCH_MAX, false)] {
        for at in copies {
            rig.sim.overwrite(at, &Superblock { epoch, ..superblock }.encode());
        }
        let begun = rig.begin();
        assert_eq!(matches!(begun, Err(OpenError::WornOut)), !is_left);
        if is_left {
            rig.run(rig.cache().ready());
            rig.put(b"key", &body(1, 10), &for_secs(100)).unwrap();
            rig.stop();
        }
    }
}

#[test]
fn a_superblock_copy_that_was_not_kept_is_noticed_before_the_other_is_touched() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 100), &flushed()).unwrap();
    let size = SMALL.regions * SMALL.region_size + 2 * SUPERBLOCK;
    rig.restart();
    let first = rig.sim.contents(0..512);
    let lost = Fault::new(Effect::Lost).on(OperationKind::Write).within(size - SUPERBLOCK..size);
    rig.sim.inject(lost.always());
    rig.put(b"key", &body(2, 100), &flushed()).unwrap_err();
    assert!(rig.sim.contents(0..512) == first, "the other copy is as it was");
}

#[test]
fn a_superblock_copy_is_left_whatever_cuts_off_the_repair_of_the_other() {
    for damaged in [0, 1] {
        for operations in 1..12 {
            let mut rig = Rig::new();
            rig.put(b"key", &body(1, 100), &flushed()).unwrap();
            rig.stop();
            let size = SMALL.regions * SMALL.region_size + 2 * SUPERBLOCK;
            rig.sim.corrupt([0, size - SUPERBLOCK][damaged] + 20, 1);
            rig.sim.spoil_sectors(true);
            rig.sim.set_delay(Delay::Yields(1));
            rig.open_cut_off_after(operations);
            rig.sim.power_cut(operations);
            rig.open();
            assert!(rig.get(b"key").is_some(), "copy {damaged}, cut after {operations}");
        }
    }
}
