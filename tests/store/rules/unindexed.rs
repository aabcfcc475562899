//! Entries without an index entry. While a region may hold such ones whose deaths are not recorded,
//! every change leaves a tombstone and a stop writes no snapshot; that ends when the regions
//! concerned have been freed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rawcached::clock::Clock;
use rawcached::device::{Effect, Fault, OperationKind, SimDevice};
use rawcached::format::TRAILER_LEN;
use rawcached::store::{
    Condition, Entry, FormatOptions, Lifetime, Options, Place, Resident, Store, Value,
};

use crate::rig::*;

const PURGES: u64 = 20;

/// Writes to the device that purges of keys which were never there take.
fn writes_of_purges(rig: &Rig) -> u64 {
    // A region that could not be read is tried again after 2 s.
    rig.sleep(millis(1500));
    let before = rig.sim.counts().writes;
    for n in 0..PURGES {
        assert!(!rig.remove(format!("never-there-{n}").as_bytes()).unwrap());
    }
    rig.sim.counts().writes - before
}

/// Stores until each region was emptied at least twice.
fn turn_the_log_over(rig: &Rig) {
    let freed = || rig.stats().store.counters.regions_freed;
    let until = freed() + 3 * SMALL.regions;
    for n in 0.. {
        if freed() >= until {
            return;
        }
        assert!(n < 1000, "regions are freed");
        let _ = rig.put(format!("turn-{n}").as_bytes(), &body(n, QUARTER), &for_secs(100_000));
        if n % 4 == 3 {
            rig.sleep(millis(200));
        }
    }
}

/// Checks that `trouble` makes each change leave a tombstone, until its regions are freed.
fn comes_and_goes(name: &str, trouble: impl Fn(&mut Rig)) {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 5000), &flushed()).unwrap();
    rig.fill("beside", 4, 100_000);
    assert_eq!(writes_of_purges(&rig), 0, "{name}: nothing is in doubt yet");
    trouble(&mut rig);
    rig.sim.clear_faults();
    rig.put(b"works-again", &body(1, 100), &flushed()).unwrap();
    assert!(writes_of_purges(&rig) >= PURGES, "{name}: each purge is written");
    assert!(rig.stats().store.regions_unindexed > 0, "{name}");
    // A region that could not be reclaimed is tried again after a while.
    rig.clock.advance(secs(100));
    turn_the_log_over(&rig);
    assert_eq!(rig.stats().store.regions_unindexed, 0, "{name}");
    assert_eq!(writes_of_purges(&rig), 0, "{name}: over");
    rig.run(rig.cache().shutdown()).unwrap();
    assert_eq!(rig.stats().store.counters.snapshots_written, 1, "{name}");
    rig.kill();
    assert_eq!(rig.stats().store.counters.snapshots_loaded, 1, "{name}");
}

fn failing(kind: OperationKind) -> Fault {
    Fault::new(Effect::Fail(libc::EIO)).on(kind)
}

#[test]
fn doubt_ends_when_the_region_of_a_damaged_entry_is_freed() {
    comes_and_goes("damage", |rig| {
        rig.sim.corrupt(rig.find(&body(1, 5000)[..64]), 1);
        assert_eq!(rig.get(b"key"), None);
    });
    comes_and_goes("damage met by a change", |rig| {
        // The last byte of the key, which is all that a change reads.
        rig.sim.corrupt(rig.find(&body(1, 5000)[..64]) - 1, 1);
        rig.put(b"key", &body(2, 100), &flushed()).unwrap();
    });
}

#[test]
fn doubt_ends_when_all_regions_of_before_a_failed_write_are_freed() {
    for kind in [OperationKind::Write, OperationKind::Flush] {
        comes_and_goes("failed write or flush", |rig| {
            rig.sim.inject(failing(kind));
            rig.put(b"lost", &body(1, 100), &flushed()).unwrap_err();
        });
    }
}

#[test]
fn doubt_ends_when_a_region_that_could_not_be_freed_is() {
    comes_and_goes("failed freeing", |rig| {
        let start = rig.region_start(rig.find(&body(1, 5000)[..64]));
        rig.sim.inject(failing(OperationKind::Write).within(start..start + 4096).always());
        rig.fill("more", 4 * 8, 100_000);
        rig.sleep(millis(500));
        assert_eq!(rig.get(b"key"), None, "evicted");
    });
}

#[test]
fn doubt_ends_when_a_region_with_blocks_that_could_not_be_read_is_freed() {
    comes_and_goes("blocks unreadable at the start", |rig| {
        rig.put(b"in-the-open-region", &body(5, 20_000), &flushed()).unwrap();
        let at = rig.find(&body(5, 20_000)[..64]) / 4096 * 4096;
        rig.stop();
        rig.sim.inject(failing(OperationKind::Read).within(at..at + 4096).always());
        rig.open();
        assert_eq!(rig.get(b"in-the-open-region"), None);
    });
}

#[test]
fn doubt_ends_when_all_regions_of_a_start_that_could_not_be_flushed_are_freed() {
    comes_and_goes("first flush failed", |rig| {
        rig.stop();
        rig.sim.inject(failing(OperationKind::Flush));
        rig.open();
    });
}

/// Purges "victim", loses the tombstone with the region that it is in, and purges again.
#[test]
fn a_purge_holds_whose_tombstone_was_lost_with_its_region() {
    let mut rig = Rig::new();
    rig.put(b"victim", &body(1, QUARTER), &for_secs(100_000)).unwrap();
    rig.fill("beside-victim", 3, 100_000);
    rig.fill("opens-the-next-region", 1, 20);
    assert!(rig.remove(b"victim").unwrap());
    rig.fill("beside-kill", 3, 20);
    rig.fill("seals-the-region", 1, 100_000);
    rig.sleep(secs(2));
    // Slot and footer, which both have the tombstone, go bad.
    let start = rig.region_start(rig.find(&body(0, QUARTER)[..64])) + REGION;
    let region = rig.sim.contents(start..start + REGION);
    let kill =
        (0..region.len() - 8).step_by(16).find(|at| region[at + 4..at + 8] == [0xC5, 4, 0, 0]);
    rig.sim.corrupt(start + kill.unwrap() as u64, 1);
    rig.sim.corrupt(start + REGION - TRAILER_LEN as u64 + 20, 4);
    rig.clock.advance(secs(60));
    for round in 0.. {
        if rig.stats().store.counters.regions_freed > 0 {
            break;
        }
        assert!(round < 60, "reclaim never ran");
        rig.fill(&format!("after-{round}"), 1, 100_000);
        rig.sleep(secs(1));
    }
    assert!(rig.get(b"beside-victim-0").is_some(), "the victim's region is still there");
    rig.remove(b"victim").unwrap();
    rig.kill();
    assert_eq!(rig.get(b"victim"), None);
}

/// A RAM tier of one entry, observed between evicting an entry and reporting it.
#[derive(Default)]
struct Putting {
    entry: Mutex<Option<Entry>>,
    is_out: AtomicBool,
}

impl Resident for Putting {
    fn admits(&self, _: u64) -> bool {
        true
    }

    fn get(&self, place: Place) -> Option<Entry> {
        let entry = self.entry.lock().clone().filter(|entry| entry.place() == place);
        entry.filter(|_| !self.is_out.load(Ordering::Acquire))
    }

    fn insert(&self, entry: Entry) -> Vec<Entry> {
        self.entry.lock().replace(entry).into_iter().collect()
    }

    fn remove(&self, _: Place) {}

    fn is_on(&self) -> bool {
        true
    }
}

#[test]
fn an_entry_that_the_ram_tier_just_put_out_is_no_damage() {
    let sim = SimDevice::new(SMALL.regions * REGION + 2 * SUPERBLOCK, 4096);
    let clock = Clock::manual(START);
    let runtime = runtime();
    runtime.block_on(async {
        let format = options!(FormatOptions {
            region_size: Some(REGION),
            ..FormatOptions::default().with_uuid(UUID)
        });
        Store::format(&sim.open(), &format, &clock).await.unwrap();
        let tier = Arc::new(Putting::default());
        let open = Store::open(sim.open(), Options::default(), clock, Arc::clone(&tier) as _);
        let store = open.await.unwrap();
        store.recovered().await;
        let keep_until = START.plus(secs(1000));
        let lifetime =
            Lifetime { stored_at: START, age_secs: 0, fresh_until: keep_until, keep_until };
        let short = Value { metadata: &[], body: &[1; 100], lifetime, tags: &[], ram_only: true };
        store.put(b"key", &short, Condition::Always, None).await.unwrap();
        tokio::time::sleep(secs(2)).await;
        let before = sim.counts().writes;
        assert!(tier.entry.lock().is_some());
        tier.is_out.store(true, Ordering::Release);
        assert!(!store.purge(b"key").await.unwrap());
        tier.is_out.store(false, Ordering::Release);
        for n in 0..PURGES {
            store.purge(format!("never-there-{n}").as_bytes()).await.unwrap();
        }
        assert_eq!(sim.counts().writes, before);
        assert_eq!(store.stats().counters.damaged, 0);
        store.check_accounting();
    });
}
