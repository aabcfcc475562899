//! Rule 5: the epoch. A start writes nothing, and nothing repeats after a crash.

use std::collections::BTreeSet;

use rawcached::cache::{CacheOptions, OpenError};
use rawcached::device::{Delay, Effect, Fault, OperationKind};
use rawcached::format::{Sequence, Superblock};
use rawcached::store::{TestKnobs, read_superblocks};

use crate::rig::*;

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
fn a_device_that_refuses_writes_uses_up_no_epochs() {
    let mut rig = Rig::new();
    for n in 0..50 {
        rig.put(format!("old-{n}").as_bytes(), &body(n, 100), &flushed()).unwrap();
    }
    rig.kill();
    let first = epoch(&rig);
    rig.sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Write).always());
    for n in 0..50 {
        rig.put(b"key", &body(n, 100), &for_secs(1000)).unwrap_err();
        // Removals are tried each time, even on a device that is known to fail.
        rig.remove(format!("old-{n}").as_bytes()).ok();
        if n % 10 == 0 {
            rig.sleep(secs(20));
        }
    }
    rig.sim.clear_faults();
    rig.put(b"key", &body(1, 100), &flushed()).unwrap();
    assert_eq!(epoch(&rig), first + 1);
    rig.power_cut();
    assert_eq!(rig.get(b"key").unwrap(), body(1, 100));
}

/// Epochs that end after 64 changes.
fn short_epochs() -> CacheOptions {
    plain().with_knobs(TestKnobs { sequences_per_epoch: 64, ..TestKnobs::default() })
}

#[test]
fn epochs_that_end_while_running_are_not_noticed() {
    let mut rig = Rig::with(SMALL, options!(CacheOptions { ram_bytes: 1 << 20, ..short_epochs() }));
    let (mut seen, mut expected) = (BTreeSet::new(), Vec::new());
    let first = epoch(&rig);
    for round in 0..400 {
        // Few enough to stay, overwritten and removed again and again, so that regions are reclaimed.
        let key = format!("key-{}", round % 7);
        let len = if round % 50 == 49 { 400_000 } else { 20_000 };
        let cas = rig.put(key.as_bytes(), &body(round, len), &for_secs(100_000)).unwrap();
        assert!(seen.last().is_none_or(|last| cas > *last), "they only rise");
        seen.insert(cas);
        expected.retain(|(other, _)| *other != key);
        expected.push((key.clone(), body(round, len)));
        if round % 5 == 4 {
            let (gone, _) = expected.remove(0);
            assert!(rig.remove(gone.as_bytes()).unwrap());
        }
        rig.sleep(millis(200));
        match round % 90 {
            33 => rig.restart(),
            66 => {
                rig.sleep(secs(3));
                rig.power_cut();
            }
            _ => {}
        }
        for (key, body) in &expected {
            assert_eq!(rig.get(key.as_bytes()).as_deref(), Some(&body[..]), "round {round}");
        }
        rig.cache().device_store().check_accounting();
    }
    assert!(epoch(&rig) > first + 8 + 6, "{} epochs", epoch(&rig) - first);
    for n in 0..7 {
        let key = format!("key-{n}");
        if expected.iter().all(|(other, _)| *other != key) {
            assert_eq!(rig.get(key.as_bytes()), None);
        }
    }
}

#[test]
fn changes_wait_for_a_device_that_does_not_take_the_next_epoch() {
    let mut rig = Rig::with(SMALL, short_epochs());
    let size = SMALL.regions * SMALL.region_size + 2 * SUPERBLOCK;
    let old = |n: u64| format!("old-{n}").into_bytes();
    for n in 0..200 {
        rig.put(&old(n), &body(n, 100), &flushed()).unwrap();
    }
    rig.restart();
    rig.put(b"first", &body(1, 100), &flushed()).unwrap();
    // Nearly half of the epoch, at which the next is due.
    for n in 0..28 {
        rig.put(b"before", &body(n, 100), &for_secs(10_000)).unwrap();
    }
    let begun = epoch(&rig);
    for range in [0..SUPERBLOCK, size - SUPERBLOCK..size] {
        let refuses = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Write).within(range);
        rig.sim.inject(refuses.always());
    }
    let mut refused = 0;
    for n in 0..400 {
        let key = format!("key-{}", n % 5);
        refused += u32::from(rig.put(key.as_bytes(), &body(n, 100), &for_secs(10_000)).is_err());
        let _ = rig.remove(format!("key-{}", (n + 1) % 5).as_bytes());
        // Each would take a sequence; more than the epoch has.
        if n < 200 {
            let _ = rig.remove(&old(n));
            assert_eq!(rig.get(&old(n)), None);
        }
    }
    let _ = rig.run(rig.cache().purge_all(rawcached::Purge::Hard));
    assert!(refused > 300, "{refused}");
    assert_eq!(epoch(&rig), begun);
    rig.sim.clear_faults();
    rig.sleep(secs(40));
    rig.put(b"key", &body(9, 100), &flushed()).unwrap();
    assert_eq!(epoch(&rig), begun + 1);
    rig.power_cut();
    assert_eq!(rig.get(b"key").unwrap(), body(9, 100));
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
