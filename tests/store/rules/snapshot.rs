//! Rule 5: the index snapshot. A start from one shows what footers show; anything doubtful in one
//! means footers.

mod stops;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use rawcached::cache::Lifetime;
use rawcached::device::{Effect, Fault, OperationKind};
use rawcached::format::{
    REGION_HEADER_LEN, RegionHeader, RegionUse, SNAPSHOT_DIRECTORY_LEN, Seed, SnapshotDirectory,
    Uuid,
};
use rawcached::inspect::{CheckEvent, Inspection};

use crate::fill::{body_of, key_of};
use crate::rig::*;

const DISK: Disk = Disk { regions: 24, ..SMALL };
const KEYS: u64 = 60;

/// What lookups give, by key.
type Seen = BTreeMap<Vec<u8>, (Vec<u8>, Lifetime)>;

/// A store with a past: overwrites, purges, touches, expiry, hits, and an object in slices. All of
/// it is durable.
fn with_a_past() -> Rig {
    let mut rig = Rig::with(DISK, plain());
    for n in 0..500u64 {
        let key = key(n % KEYS);
        match n % 7 {
            0 => drop(rig.remove(&key).unwrap()),
            1 => drop(rig.run(rig.cache().touch(&key, secs(n))).unwrap()),
            2 => drop(rig.get(&key)),
            _ => drop(rig.put(&key, &body(n, 9000), &for_secs(n * 3)).unwrap()),
        }
        if n == 300 {
            rig.kill();
        }
    }
    rig.put(&key(KEYS), &body(1, 300_000), &for_secs(1000)).unwrap();
    rig.clock.advance(secs(20));
    rig.sleep(secs(2));
    rig
}

fn key(n: u64) -> Vec<u8> {
    format!("key-{n}").into_bytes()
}

fn everything(rig: &Rig) -> Seen {
    let keys = (0..=KEYS).map(key);
    keys.filter_map(|key| {
        let lifetime = rig.run(rig.cache().lookup(&key))?.lifetime();
        Some((key.clone(), (rig.get(&key)?, lifetime)))
    })
    .collect()
}

/// Snapshots written, skipped, loaded and refused in this life.
fn counts(rig: &Rig) -> [u64; 4] {
    let counters = rig.stats().store.counters;
    [
        counters.snapshots_written,
        counters.snapshots_skipped,
        counters.snapshots_loaded,
        counters.snapshots_refused,
    ]
}

const LOADED: [u64; 4] = [0, 0, 1, 0];
const REFUSED: [u64; 4] = [0, 0, 0, 1];
const NONE: [u64; 4] = [0; 4];

fn stop_cleanly(rig: &mut Rig) -> [u64; 4] {
    rig.run(rig.cache().shutdown()).unwrap();
    let counts = counts(rig);
    rig.stop();
    counts
}

/// The regions that hold parts of a snapshot: where they begin and what they hold.
fn parts(rig: &Rig, regions: u64, uuid: Uuid) -> Vec<(u64, SnapshotDirectory)> {
    let mut parts = Vec::new();
    for region in 0..u32::try_from(regions).unwrap() {
        let start = SUPERBLOCK + u64::from(region) * REGION;
        let header = rig.sim.contents(start..start + REGION_HEADER_LEN as u64);
        let Ok(header) = RegionHeader::decode(&header, uuid, region) else { continue };
        if header.region_use == RegionUse::Snapshot {
            let at = start + 4096;
            let bytes = rig.sim.contents(at..at + SNAPSHOT_DIRECTORY_LEN as u64);
            let seed = Seed::new(uuid, region, header.generation);
            parts.push((start, SnapshotDirectory::decode(&bytes, seed).unwrap()));
        }
    }
    parts
}

const RIG_UUID: Uuid = Uuid([7; 16]);

/// A store of `entries` small entries whose index takes more than one region.
fn large(entries: u64, regions: u64) -> Rig {
    let mut rig = filled(entries, regions);
    rig.open();
    rig.put(b"new", &Bytes::from_static(b"new"), &flushed()).unwrap();
    rig
}

fn check_large(rig: &Rig, entries: u64) {
    for n in (0..entries).step_by(97) {
        assert_eq!(rig.get(&key_of(n)).unwrap(), body_of(n, 8), "entry {n}");
    }
    assert_eq!(rig.get(b"new").unwrap(), b"new");
    assert_eq!(rig.stats().store.entries, entries + 1);
    rig.cache().device_store().check_accounting();
}

#[test]
fn a_snapshot_shows_what_footers_show() {
    let mut rig = with_a_past();
    let before = everything(&rig);
    assert!(before.len() > 20);
    assert_eq!(stop_cleanly(&mut rig), [1, 0, 0, 0]);
    rig.open();
    assert_eq!(counts(&rig), LOADED);
    assert!(everything(&rig) == before);
    rig.cache().device_store().check_accounting();
    let entries = rig.stats().store.entries;
    stop_cleanly(&mut rig);
    let parts = parts(&rig, DISK.regions, RIG_UUID);
    assert_eq!(parts.len(), 1);
    rig.sim.corrupt(parts[0].0 + 4096 + 20, 1);
    rig.open();
    assert_eq!(rig.stats().store.counters.snapshots_loaded, 0);
    assert!(everything(&rig) == before);
    rig.cache().device_store().check_accounting();
    assert!(rig.stats().store.entries >= entries, "footers know the expired ones too");
}

#[test]
fn a_start_from_a_snapshot_writes_nothing_and_the_snapshot_lasts() {
    let mut rig = with_a_past();
    let before = everything(&rig);
    stop_cleanly(&mut rig);
    let writes = rig.sim.counts().writes;
    for _ in 0..3 {
        rig.open();
        assert_eq!(counts(&rig), LOADED);
        assert!(everything(&rig) == before);
        rig.sleep(secs(5));
        assert_eq!(stop_cleanly(&mut rig), LOADED, "nothing to write, nothing skipped");
        rig.open();
        rig.stop();
    }
    assert_eq!(rig.sim.counts().writes, writes);
}

#[test]
fn the_first_change_ends_the_snapshot() {
    let changes: [fn(&Rig); 4] = [
        |rig| assert!(rig.put(b"new", &body(3, 100), &flushed()).is_ok()),
        |rig| assert!(rig.remove(&key(59)).unwrap()),
        |rig| assert!(rig.run(rig.cache().touch(&key(59), secs(9999))).unwrap().is_some()),
        |rig| rig.run(rig.cache().purge_all(rawcached::Purge::Hard)).unwrap(),
    ];
    for change in changes {
        let mut rig = with_a_past();
        assert!(rig.get(&key(59)).is_some());
        stop_cleanly(&mut rig);
        rig.open();
        assert_eq!(counts(&rig), LOADED);
        change(&rig);
        rig.sleep(secs(2));
        let after = everything(&rig);
        for restart in [Rig::kill, Rig::power_cut] {
            restart(&mut rig);
            assert_eq!(counts(&rig), NONE, "no snapshot of this epoch");
            assert!(everything(&rig) == after);
        }
    }
}

#[test]
fn changes_after_a_start_from_a_snapshot_survive_a_crash() {
    let mut rig = with_a_past();
    for round in 0..6u64 {
        assert_eq!(stop_cleanly(&mut rig)[..2], [1, 0]);
        rig.open();
        assert_eq!(counts(&rig), LOADED, "round {round}");
        for n in 0..40 {
            let key = key((n * 7 + round) % KEYS);
            match n % 4 {
                0 => drop(rig.remove(&key).unwrap()),
                1 => drop(rig.run(rig.cache().touch(&key, secs(5000))).unwrap()),
                _ => drop(rig.put(&key, &body(n, 9000), &for_secs(2000)).unwrap()),
            }
        }
        rig.sleep(secs(2));
        let after = everything(&rig);
        if round % 2 == 0 {
            rig.kill()
        } else {
            rig.power_cut()
        }
        assert!(everything(&rig) == after, "round {round}");
        rig.cache().device_store().check_accounting();
        rig.put(b"raises-the-epoch", &body(round, 100), &for_secs(10)).unwrap();
    }
}

#[test]
fn a_purge_before_the_stop_holds_after_a_crash_that_follows_a_snapshot_start() {
    let mut rig = Rig::with(DISK, plain());
    rig.put(b"victim", &body(1, QUARTER), &for_secs(100_000)).unwrap();
    rig.fill("filler", 7, 100_000);
    assert!(rig.remove(b"victim").unwrap());
    stop_cleanly(&mut rig);
    rig.open();
    assert_eq!(counts(&rig), LOADED);
    assert_eq!(rig.get(b"victim"), None);
    rig.fill("more", 3, 1000);
    for restart in [Rig::kill, Rig::power_cut] {
        restart(&mut rig);
        assert_eq!(rig.get(b"victim"), None);
    }
}

#[test]
fn every_damaged_part_means_footers() {
    let mut rig = with_a_past();
    let before = everything(&rig);
    stop_cleanly(&mut rig);
    let parts = parts(&rig, DISK.regions, RIG_UUID);
    let mut places = Vec::new();
    for (start, directory) in &parts {
        places.extend([start + 20, start + 28, start + 4096 + 1, start + 4096 + 30]);
        places.push(start + 4096 + SNAPSHOT_DIRECTORY_LEN as u64 - 1);
        for piece in &directory.pieces {
            places.push(start + piece.offset);
            places.push(start + piece.offset + u64::from(piece.len) - 1);
        }
    }
    assert!(places.len() > 500, "all shards and the region table");
    for (n, at) in places.iter().enumerate() {
        rig.sim.corrupt(*at, 1 << (n % 8));
        rig.open();
        let [_, _, loaded, _] = counts(&rig);
        assert_eq!(loaded, 0, "flipped at {at}");
        if n % 16 < 5 {
            assert!(everything(&rig) == before, "flipped at {at}");
            rig.cache().device_store().check_accounting();
        }
        rig.stop();
        rig.sim.corrupt(*at, 1 << (n % 8));
    }
    rig.open();
    assert_eq!(counts(&rig), LOADED, "all flipped back");
}

#[test]
fn a_part_that_cannot_be_read_means_footers() {
    let mut rig = with_a_past();
    let before = everything(&rig);
    stop_cleanly(&mut rig);
    let (start, directory) = parts(&rig, DISK.regions, RIG_UUID).remove(0);
    for offset in [4096, directory.pieces[9].offset] {
        let at = start + offset;
        let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
        rig.sim.inject(fault.within(at..at + 1).always());
        rig.open();
        assert_eq!(counts(&rig), REFUSED);
        assert!(everything(&rig) == before);
        rig.sim.clear_faults();
        rig.stop();
    }
}

#[test]
fn a_region_that_is_not_what_it_was_means_footers() {
    let mut rig = with_a_past();
    stop_cleanly(&mut rig);
    let header = rig.sim.contents(SUPERBLOCK..SUPERBLOCK + REGION_HEADER_LEN as u64);
    let mut header = RegionHeader::decode(&header, RIG_UUID, 0).unwrap();
    assert_eq!(header.region_use, RegionUse::Log);
    header.touched = !header.touched;
    rig.sim.overwrite(SUPERBLOCK, &header.encode(RIG_UUID, 0));
    rig.open();
    assert_eq!(counts(&rig), REFUSED);
    assert!(everything(&rig).len() > 10);
}

#[test]
fn an_older_copy_of_the_device_starts_from_its_own_snapshot() {
    let mut rig = with_a_past();
    let before = everything(&rig);
    let size = rig.cache().device_store().device().geometry().size;
    stop_cleanly(&mut rig);
    let copy = rig.sim.contents(0..size);
    rig.open();
    rig.fill("later", 20, 1000);
    assert_eq!(stop_cleanly(&mut rig), [1, 0, 1, 0]);
    rig.sim.overwrite(0, &copy);
    rig.open();
    assert_eq!(counts(&rig), LOADED);
    assert!(everything(&rig) == before);
}

#[test]
fn an_index_larger_than_a_region_takes_several() {
    let entries = 60_000;
    let mut rig = large(entries, 60);
    check_large(&rig, entries);
    assert_eq!(stop_cleanly(&mut rig), [1, 0, 0, 0]);
    let uuid = parts_uuid(&rig);
    assert!(parts(&rig, 60, uuid).len() >= 3);
    rig.open();
    assert_eq!(counts(&rig), LOADED);
    check_large(&rig, entries);
    rig.put(b"more", &body(1, 100), &flushed()).unwrap();
    rig.remove(&key_of(7)).unwrap();
    rig.kill();
    assert_eq!(rig.get(&key_of(7)), None);
    assert_eq!(rig.get(&key_of(8)).unwrap(), body_of(8, 8));
}

fn parts_uuid(rig: &Rig) -> Uuid {
    let superblock = rawcached::format::Superblock::decode(&rig.sim.contents(0..512)).unwrap();
    superblock.uuid
}

#[test]
fn a_check_finds_nothing_wrong_with_a_filled_device_or_its_snapshot() {
    let entries = 5000;
    let mut rig = large(entries, 20);
    rig.sleep(secs(2));
    for is_clean in [false, true] {
        if is_clean {
            assert_eq!(stop_cleanly(&mut rig), [1, 0, 0, 0]);
        } else {
            rig.stop();
        }
        let summary = runtime().block_on(async {
            let inspection = Inspection::open(rig.sim.open()).await.unwrap();
            let nothing_wrong = |event: CheckEvent<'_>| {
                if let CheckEvent::Damage(finding) = event {
                    panic!("{finding}");
                }
                ControlFlow::Continue(())
            };
            inspection.check(nothing_wrong).await
        });
        assert_eq!((summary.damaged, summary.entries), (0, entries + 1));
        rig = large(entries, 20);
    }
}

#[test]
fn a_change_waits_until_the_snapshot_is_read() {
    let mut rig = with_a_past();
    let before = everything(&rig);
    stop_cleanly(&mut rig);
    rig.begin().unwrap();
    rig.sim.set_delay(rawcached::device::Delay::Sleep(millis(100)));
    assert_eq!(rig.get(&key(59)), None, "a lookup does not wait");
    assert!(!rig.cache().is_ready());
    rig.put(b"new", &body(3, 100), &flushed()).unwrap();
    rig.sim.set_delay(rawcached::device::Delay::None);
    assert_eq!(counts(&rig), LOADED);
    for _ in 0..2 {
        assert!(everything(&rig) == before);
        assert_eq!(rig.get(b"new").unwrap(), body(3, 100));
        rig.power_cut();
    }
}

#[test]
fn a_purge_holds_that_nobody_waited_for_while_the_snapshot_was_read() {
    for patience in [secs(1), secs(1000)] {
        let mut rig = with_a_past();
        let purged = key(59);
        assert!(rig.get(&purged).is_some());
        stop_cleanly(&mut rig);
        rig.begin().unwrap();
        rig.sim.set_delay(rawcached::device::Delay::Sleep(secs(25)));
        let purge = rig.cache().remove(&purged);
        let purge = rig.run(async { tokio::time::timeout(patience, purge).await });
        assert!(purge.is_err() || purge.unwrap().is_err(), "it is not durable");
        rig.sim.set_delay(rawcached::device::Delay::None);
        rig.sleep(secs(200));
        assert_eq!(counts(&rig), LOADED);
        assert_eq!(rig.get(&purged), None, "the words of the snapshot have come");
        assert!(rig.get(&key(58)).is_some());
        // It is written although nothing else is.
        rig.sleep(secs(5));
        if patience == secs(1) {
            rig.power_cut();
            assert_eq!(rig.get(&purged), None);
            continue;
        }
        // It is no longer in the index: nothing is in doubt.
        assert_eq!(stop_cleanly(&mut rig)[..2], [1, 0]);
        rig.open();
        assert_eq!(rig.get(&purged), None);
    }
}

#[test]
fn after_damage_that_may_hide_older_versions_there_is_no_snapshot() {
    let mut rig = with_a_past();
    rig.put(b"damaged", &body(77, 9000), &flushed()).unwrap();
    rig.sleep(secs(2));
    rig.kill();
    rig.put(b"raises-the-epoch", &body(1, 10), &flushed()).unwrap();
    let at = rig.find(&body(77, 9000)[..64]);
    rig.sim.corrupt(at, 1);
    assert_eq!(rig.get(b"damaged"), None);
    assert_eq!(stop_cleanly(&mut rig), [0, 1, 0, 0]);
    rig.open();
    assert_eq!(rig.get(b"damaged"), None);
}

#[test]
fn entries_in_ram_only_end_with_the_stop() {
    let options = options!(rawcached::cache::CacheOptions { ram_bytes: 1 << 20, ..plain() });
    let mut rig = Rig::with(DISK, options);
    rig.put(b"short", &body(1, 100), &for_secs(3)).unwrap();
    rig.put(b"long", &body(2, 100), &for_secs(300)).unwrap();
    assert!(rig.get(b"short").is_some());
    assert_eq!(stop_cleanly(&mut rig), [1, 0, 0, 0]);
    rig.open();
    assert_eq!(counts(&rig), LOADED);
    assert_eq!(rig.get(b"short"), None);
    assert_eq!(rig.get(b"long").unwrap(), body(2, 100));
    assert_eq!(rig.stats().store.entries, 1);
}
