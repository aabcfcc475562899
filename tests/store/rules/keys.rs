//! Rule 1: verified operations. Keys with one hash live side by side, and however many there are, a
//! lookup costs a few reads.

use rawcached::cache::{Ack, CacheOptions};
use rawcached::store::TestKnobs;

use crate::rig::*;

/// All keys have one fingerprint; the rest of their hashes differs.
fn crowded() -> CacheOptions {
    plain().with_knobs(TestKnobs { hash_mask: u64::MAX << 37, ..TestKnobs::default() })
}

fn key(n: u64) -> Vec<u8> {
    format!("key-{n}").into_bytes()
}

#[test]
fn a_thousand_collisions_cost_a_lookup_no_more_than_sixteen() {
    let mut rig = Rig::with(SMALL, crowded());
    for n in 0..1000 {
        rig.put(&key(n), &body(n, 100), &for_secs(10_000)).unwrap();
    }
    rig.sleep(secs(2));
    rig.kill();
    for n in (0..1000).step_by(83).chain([999, 5000]) {
        let before = rig.sim.counts().reads;
        let found = rig.get(&key(n));
        assert!(found.is_none_or(|found| found == body(n, 100)));
        let reads = rig.sim.counts().reads - before;
        assert!(reads <= 17, "{reads} reads for key {n}");
        let before = rig.sim.counts().reads;
        rig.put(&key(n), &body(n + 1, 100), &for_secs(10_000)).unwrap();
        assert_eq!(rig.get(&key(n)).unwrap(), body(n + 1, 100), "what was just stored is found");
        let reads = rig.sim.counts().reads - before;
        assert!(reads <= 40, "{reads} reads to store and find key {n}");
    }
    assert!(rig.stats().store.counters.crowded > 0);
    rig.cache().device_store().check_accounting();
}

#[test]
fn a_removal_among_many_collisions_is_final() {
    let mut rig = Rig::with(SMALL, crowded());
    for n in 0..30 {
        rig.put(&key(n), &body(n, 100), &for_secs(10_000)).unwrap();
    }
    // Lookups do not reach these, as there are enough newer ones; then those go too.
    for n in (0..10).chain((15..30).rev()) {
        rig.remove(&key(n)).unwrap();
        assert_eq!(rig.get(&key(n)), None);
    }
    rig.put(&key(3), &body(99, 100), &flushed()).unwrap();
    for round in 0..4 {
        for n in 0..30 {
            let expected = match n {
                3 => Some(body(99, 100)),
                10..15 => Some(body(n, 100)),
                _ => None,
            };
            assert_eq!(rig.get(&key(n)).as_deref(), expected.as_deref(), "key {n}, {round}");
        }
        match round {
            0 | 2 => rig.kill(),
            _ => rig.restart(),
        }
        rig.cache().device_store().check_accounting();
    }
}

#[test]
fn what_a_change_killed_unseen_is_not_written_again() {
    let mut rig = Rig::with(SMALL, crowded());
    for n in 0..20 {
        rig.put(&key(n), &body(n, 100), &for_secs(100_000)).unwrap();
    }
    // The region is sealed with few entries in it: all live ones are re-inserted.
    rig.restart();
    rig.put(&key(0), &body(7, 100), &for_secs(100_000)).unwrap();
    rig.remove(&key(1)).unwrap();
    // The re-inserted entries must be among the few candidates of a lookup.
    for n in (3..20).rev() {
        rig.remove(&key(n)).unwrap();
    }
    let freed = || rig.stats().store.counters.regions_freed;
    for n in 0..200 {
        rig.put(format!("filler-{n}").as_bytes(), &body(n, QUARTER), &for_secs(100_000)).unwrap();
        rig.sleep(secs(1));
        assert!(rig.get(&key(0)).is_none_or(|found| found == body(7, 100)), "the old body");
        assert_eq!(rig.get(&key(1)), None);
        if freed() > 8 {
            break;
        }
    }
    assert!(rig.stats().store.counters.reinserted > 0);
    for _ in 0..2 {
        assert!(rig.get(&key(0)).is_none_or(|found| found == body(7, 100)), "the old body");
        assert_eq!(rig.get(&key(1)), None);
        rig.kill();
    }
}

#[test]
fn two_keys_with_one_hash_coexist() {
    let rig = Rig::with(SMALL, colliding());
    rig.put(b"one", &body(1, 300), &for_secs(100)).unwrap();
    rig.put(b"two", &body(2, 300), &for_secs(100)).unwrap();
    assert_eq!(rig.get(b"one").unwrap(), body(1, 300));
    assert_eq!(rig.get(b"two").unwrap(), body(2, 300));
    assert_eq!(rig.get(b"three"), None);
}

#[test]
fn a_key_without_a_match_costs_no_device_read() {
    let rig = Rig::new();
    rig.fill("other", 12, 1000);
    let before = rig.sim.counts().reads;
    assert_eq!(rig.get(b"absent"), None);
    assert!(!rig.remove(b"absent").unwrap());
    assert_eq!(rig.run(rig.cache().touch(b"absent", secs(5))).unwrap(), None);
    rig.put(b"absent", &body(1, 10), &for_secs(100)).unwrap();
    assert_eq!(rig.sim.counts().reads, before);
}

/// Changes "one" while "two" has the same hash, both in memory and on the device.
fn changes_leave_the_other(change: impl Fn(&Rig)) {
    for on_device in [false, true] {
        let rig = Rig::with(SMALL, colliding());
        rig.put(b"one", &body(1, QUARTER), &for_secs(100)).unwrap();
        rig.put(b"two", &body(2, QUARTER), &for_secs(100)).unwrap();
        if on_device {
            rig.fill("filler", 3, 100);
            rig.sleep(secs(2));
        }
        let before = rig.cache().lookup(b"two");
        let before = rig.run(before).unwrap().lifetime();
        change(&rig);
        assert_eq!(rig.get(b"two").unwrap(), body(2, QUARTER), "on device: {on_device}");
        let after = rig.run(rig.cache().lookup(b"two")).unwrap().lifetime();
        assert_eq!(before, after);
        rig.cache().device_store().check_accounting();
    }
}

#[test]
fn an_overwrite_leaves_a_key_with_the_same_hash() {
    changes_leave_the_other(|rig| {
        rig.put(b"one", &body(3, 100), &for_secs(100)).unwrap();
        assert_eq!(rig.get(b"one").unwrap(), body(3, 100));
    });
}

#[test]
fn a_delete_leaves_a_key_with_the_same_hash() {
    changes_leave_the_other(|rig| {
        assert!(rig.remove(b"one").unwrap());
        assert_eq!(rig.get(b"one"), None);
        assert!(!rig.remove(b"three").unwrap(), "a third key with the hash is not there");
    });
}

#[test]
fn a_touch_leaves_a_key_with_the_same_hash() {
    changes_leave_the_other(|rig| {
        let lifetime = rig.run(rig.cache().touch(b"one", secs(7))).unwrap().unwrap();
        assert_eq!(lifetime.keep_until, START.plus(secs(7)));
        rig.clock.advance(secs(8));
        assert_eq!(rig.get(b"one"), None);
    });
}

#[test]
fn a_touch_of_one_version_leaves_the_others() {
    let rig = Rig::with(SMALL, plain());
    rig.put(b"key", &body(1, 100), &for_secs(100)).unwrap();
    let old = rig.run(rig.cache().lookup(b"key")).unwrap();
    rig.put(b"key", &body(2, 100), &for_secs(100)).unwrap();
    let new = rig.run(rig.cache().lookup(b"key")).unwrap();
    let longer = rig.cache().lifetime(Some(secs(500)), secs(0));
    let touch = |cas| rig.run(rig.cache().touch_version(b"key", cas, longer, None)).unwrap();
    assert_eq!(touch(old.cas()), None);
    assert!(touch(new.cas()).is_some());
    rig.clock.advance(secs(499));
    assert_eq!(rig.get(b"key").unwrap(), body(2, 100));
}

#[test]
fn an_end_of_one_version_leaves_the_others() {
    let mut rig = Rig::with(SMALL, plain());
    rig.put(b"key", &body(1, 100), &for_secs(100)).unwrap();
    let old = rig.run(rig.cache().lookup(b"key")).unwrap();
    rig.put(b"key", &body(2, 100), &flushed()).unwrap();
    let new = rig.run(rig.cache().lookup(b"key")).unwrap();
    let over = rig.cache().lifetime(Some(secs(0)), secs(0));
    let end = |rig: &Rig, cas| {
        rig.run(rig.cache().touch_version(b"key", cas, over, Some(Ack::Flushed))).unwrap()
    };
    assert_eq!(end(&rig, old.cas()), None);
    assert_eq!(rig.get(b"key").unwrap(), body(2, 100));
    assert!(end(&rig, new.cas()).is_some());
    drop((old, new));
    for _ in 0..2 {
        assert_eq!(rig.get(b"key"), None);
        rig.power_cut();
    }
}
