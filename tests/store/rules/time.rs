//! Rule 9: time. Nobody gets what has expired, whatever the clock does meanwhile.

use rawcached::cache::{CacheOptions, Condition, StoreOptions, Stored};
use rawcached::device::Delay;

use crate::rig::*;

fn with_ram() -> CacheOptions {
    options!(CacheOptions { ram_bytes: 4 << 20, ..plain() })
}

#[test]
fn an_expired_entry_is_a_miss_on_every_path() {
    // From the log's memory, the device, the RAM tier; small, large; after a restart.
    for (options, fillers) in [(plain(), 0), (plain(), 7), (with_ram(), 7)] {
        for len in [100, 300_000] {
            let mut rig = Rig::with(SMALL, options);
            rig.put(b"key", &body(1, len), &for_secs(50)).unwrap();
            rig.fill("filler", fillers, 1000);
            rig.sleep(secs(2));
            rig.clock.advance(secs(49));
            assert!(rig.get(b"key").is_some());
            rig.clock.advance(secs(1));
            assert_eq!(rig.run(rig.cache().touch(b"key", secs(100))).unwrap(), None);
            let options = for_secs(100);
            let present = rig.cache().put(b"key", body(2, 9), Condition::Present, &options);
            assert_eq!(rig.run(present).unwrap(), Stored::Missing);
            assert_eq!(rig.get(b"key"), None);
            assert!(!rig.remove(b"key").unwrap());
            rig.kill();
            assert_eq!(rig.get(b"key"), None);
        }
    }
}

#[test]
fn an_entry_that_expired_while_stopped_does_not_hit() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 100), &for_secs(50)).unwrap();
    rig.put(b"lasting", &body(1, 100), &for_secs(500)).unwrap();
    rig.run(rig.cache().shutdown()).unwrap();
    rig.stop();
    rig.clock.advance(secs(60));
    rig.open();
    assert_eq!(rig.get(b"key"), None);
    assert!(rig.get(b"lasting").is_some());
}

#[test]
fn reinsertion_does_not_prolong_a_life() {
    let rig = Rig::new();
    rig.put(b"hot", &body(1, 1000), &for_secs(500)).unwrap();
    for n in 0..60 {
        rig.fill(&format!("filler-{n}"), 1, 1000);
        rig.sleep(millis(300));
        rig.get(b"hot");
    }
    assert!(rig.stats().store.counters.reinserted > 0);
    let hit = rig.run(rig.cache().lookup(b"hot")).unwrap();
    assert_eq!(hit.lifetime().keep_until, START.plus(secs(500)));
    rig.clock.advance(secs(500));
    assert_eq!(rig.get(b"hot"), None);
}

#[test]
fn short_lived_entries_are_not_written_to_the_device() {
    let mut rig = Rig::with(SMALL, with_ram());
    rig.put(b"warm", &body(1, 100), &flushed()).unwrap();
    rig.sleep(secs(3));
    let before = rig.sim.counts().writes;
    for n in 0..50 {
        rig.put(format!("short-{n}").as_bytes(), &body(n, 1000), &for_secs(5)).unwrap();
    }
    rig.sleep(secs(3));
    assert_eq!(rig.sim.counts().writes, before);
    assert_eq!(rig.get(b"short-7").unwrap(), body(7, 1000));
    rig.clock.advance(secs(5));
    assert_eq!(rig.get(b"short-7"), None);
    rig.kill();
    assert_eq!(rig.get(b"short-8"), None);
}

#[test]
fn an_entry_in_ram_only_kills_what_it_replaced_on_the_device() {
    let mut rig = Rig::with(SMALL, with_ram());
    rig.put(b"key", &body(1, 100), &flushed()).unwrap();
    rig.put(b"key", &body(2, 100), &for_secs(3)).unwrap();
    assert_eq!(rig.get(b"key").unwrap(), body(2, 100));
    rig.sleep(millis(150));
    rig.kill();
    assert_eq!(rig.get(b"key"), None, "the older version does not come back");
}

#[test]
fn without_a_ram_tier_every_entry_goes_to_the_device() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 100), &for_secs(3)).unwrap();
    rig.sleep(millis(150));
    rig.kill();
    assert_eq!(rig.get(b"key").unwrap(), body(1, 100));
}

#[test]
fn a_stale_entry_is_only_for_those_who_ask_for_it() {
    let mut rig = Rig::new();
    let options = options!(StoreOptions { grace: secs(30), ..for_secs(50) });
    rig.put(b"key", &body(1, 100), &options).unwrap();
    let stale = |rig: &Rig| rig.run(rig.cache().lookup_stale(b"key")).is_some();
    for restart in [Rig::kill, Rig::restart] {
        rig.sleep(secs(2));
        restart(&mut rig);
        rig.clock.advance(secs(25));
    }
    assert!(rig.get(b"key").is_none() && stale(&rig));
    rig.clock.advance(secs(30));
    assert!(rig.get(b"key").is_none() && !stale(&rig));
}

#[test]
fn a_region_whose_entries_expired_is_freed_without_reading_bodies() {
    let rig = Rig::new();
    rig.fill("short", 4 * 8 - 1, 20);
    rig.sleep(secs(2));
    rig.clock.advance(secs(30));
    let before = rig.sim.counts().bytes_read;
    rig.fill("more", 12, 1000);
    rig.sleep(secs(2));
    let freed = rig.stats().store.counters.regions_freed;
    let read = rig.sim.counts().bytes_read - before;
    assert!(freed >= 2 && read <= freed * (64 << 10), "{read} bytes read to free {freed} regions");
}

#[test]
fn a_purged_key_that_had_expired_stays_gone_when_the_clock_is_set_back() {
    // It expires while the store runs, or while it is stopped; whole in the log, or sealed.
    for (while_stopped, fillers) in [(false, 0), (true, 0), (false, 7), (true, 7)] {
        let mut rig = Rig::new();
        rig.put(b"key", &body(1, 100), &for_secs(50)).unwrap();
        rig.fill("filler", fillers, 1000);
        rig.sleep(secs(2));
        if while_stopped {
            rig.kill_and_set(WALL + 100);
        } else {
            rig.clock.advance(secs(100));
        }
        assert_eq!(rig.get(b"key"), None);
        assert!(!rig.remove(b"key").unwrap());
        rig.kill_and_set(WALL);
        assert!(!rig.has_stale(b"key"), "stopped: {while_stopped}, fillers: {fillers}");
    }
}

#[test]
fn a_lookup_that_read_the_end_before_a_touch_moved_it_takes_nothing_away() {
    // The read of the lookup takes effect at a random moment in half a second: often before the
    // touch, and returns after it, when the expiry that it shows is past.
    for seed in 0..40 {
        let mut rig = Rig::new();
        rig.put(b"key", &body(1, 100), &for_secs(50)).unwrap();
        rig.fill("filler", 7, 1000);
        rig.sleep(secs(2));
        rig.sim.reseed(seed);
        let touched = rig.run(async {
            rig.sim.set_delay(Delay::Anytime { turns: 0, slow: millis(500), slow_one_in: 1 });
            let touch = async {
                tokio::time::sleep(millis(250)).await;
                rig.sim.set_delay(Delay::None);
                let touched = rig.cache().touch(b"key", secs(500)).await.unwrap();
                rig.clock.advance(secs(100));
                touched
            };
            tokio::join!(rig.cache().lookup(b"key"), touch).1
        });
        assert!(touched.is_some());
        assert!(rig.get(b"key").is_some(), "seed {seed}: touched, then gone");
        assert!(rig.remove(b"key").unwrap());
        rig.kill();
        assert_eq!(rig.get(b"key"), None, "seed {seed}: back after its removal");
    }
}

#[test]
fn a_touch_of_an_entry_in_ram_only_takes_no_body_from_a_client() {
    let options = options!(CacheOptions { ram_bytes: 1 << 20, min_to_disk: secs(60), ..plain() });
    let rig = Rig::with(SMALL, options);
    rig.put(b"key", &body(1, 1000), &for_secs(10)).unwrap();
    let taken = || rig.stats().store.counters.body_bytes;
    let before = taken();
    rig.run(rig.cache().touch(b"key", secs(1000))).unwrap().unwrap();
    assert_eq!(taken(), before);
    rig.clock.advance(secs(100));
    assert_eq!(rig.get(b"key").unwrap(), body(1, 1000));
}
