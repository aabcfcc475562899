//! Rule 9, the wall clock: a start learns from it how long the cache was down, and nothing else
//! ever moves an expiry.

use rawcached::cache::{Condition, Stored};

use crate::rig::*;

const DAY: i64 = 86_400;
const YEAR: i64 = 365 * DAY;

fn put_if(rig: &Rig, key: &[u8], condition: Condition) -> Stored {
    rig.run(rig.cache().put(key, body(9, 100), condition, &for_secs(500))).unwrap()
}

fn touches(rig: &Rig, key: &[u8]) -> bool {
    rig.run(rig.cache().touch(key, secs(86_400))).unwrap().is_some()
}

fn is_age_unknown(rig: &Rig) -> bool {
    rig.stats().store.age_unknown
}

/// A device with "day", which lives for a day, and "hour"; stopped `after` seconds.
fn filled(after: u64) -> Rig {
    let rig = Rig::new();
    rig.put(b"day", &body(1, 100), &for_secs(86_400)).unwrap();
    rig.put(b"hour", &body(2, 100), &for_secs(3600)).unwrap();
    rig.clock.advance(secs(after));
    rig.sleep(secs(2));
    rig
}

#[test]
fn the_time_down_counts_to_the_second() {
    for clean in [true, false] {
        for (down, hour, day) in
            [(3589, true, true), (3590, false, true), (86_389, false, true), (86_390, false, false)]
        {
            let mut rig = filled(10);
            if clean {
                rig.run(rig.cache().shutdown()).unwrap();
            }
            rig.kill_and_set(WALL + 10 + down);
            let found = (rig.get(b"hour").is_some(), rig.get(b"day").is_some());
            assert_eq!(found, (hour, day), "{down} s, clean: {clean}");
        }
    }
}

#[test]
fn an_absurd_time_down_makes_entries_stale_until_the_wall_clock_is_right() {
    for clean in [true, false] {
        for wall in [WALL - 1, 0, -YEAR, WALL + YEAR + 60, WALL + 80 * YEAR] {
            let mut rig = filled(10);
            if clean {
                rig.run(rig.cache().shutdown()).unwrap();
            }
            rig.kill_and_set(wall);
            assert!(rig.get(b"day").is_none() && rig.has_stale(b"day"), "{wall}, clean: {clean}");
            assert!(is_age_unknown(&rig));
            // For others it is not there: neither a touch nor a condition finds it.
            assert!(!touches(&rig, b"day"));
            assert_eq!(put_if(&rig, b"day", Condition::Present), Stored::Missing);
            assert!(matches!(put_if(&rig, b"hour", Condition::Absent), Stored::Yes(_)));
            rig.put(b"new", &body(3, 100), &for_secs(86_400)).unwrap();
            assert!(
                rig.get(b"new").is_some() && rig.get(b"hour").is_some() && touches(&rig, b"new")
            );
            // Two hours down.
            rig.synchronise(WALL + 7200);
            assert!(!is_age_unknown(&rig));
            assert!(
                rig.get(b"day").is_some() && touches(&rig, b"day") && rig.get(b"new").is_some()
            );
            rig.clock.advance(secs(86_400));
            assert!(rig.get(b"new").is_none() && !rig.has_stale(b"new"));
        }
    }
}

#[test]
fn the_time_down_that_is_learnt_late_ends_lives() {
    let mut rig = filled(10);
    rig.kill_and_set(0);
    assert!(rig.has_stale(b"hour"));
    rig.synchronise(WALL + 7200);
    assert!(rig.get(b"hour").is_none() && !rig.has_stale(b"hour"));
    rig.clock.advance(secs(86_400 - 7200 - 1));
    assert!(rig.get(b"day").is_some());
    rig.clock.advance(secs(1));
    assert!(rig.get(b"day").is_none());
}

#[test]
fn a_wall_clock_that_only_becomes_plausible_is_not_believed() {
    let mut rig = filled(10);
    rig.kill_and_set(WALL - 5);
    for _ in 0..10 {
        rig.clock.advance(secs(10));
        rig.sleep(secs(2));
        assert!(rig.get(b"day").is_none() && rig.has_stale(b"day"));
    }
}

#[test]
fn what_is_not_known_stays_so_over_starts() {
    let mut rig = filled(10);
    rig.kill_and_set(50);
    rig.put(b"second", &body(3, 100), &flushed()).unwrap();
    rig.sleep(secs(3));
    // The wall clock goes on from where it wrongly was: no time to believe in.
    rig.kill_and_set(90);
    for key in [&b"day"[..], b"second"] {
        assert!(rig.get(key).is_none() && rig.has_stale(key));
    }
    rig.restart();
    assert!(rig.get(b"second").is_none() && rig.has_stale(b"second"));
    rig.synchronise(WALL + 7200);
    assert!(rig.get(b"day").is_some() && rig.get(b"hour").is_none());
    rig.put(b"third", &body(4, 100), &flushed()).unwrap();
    rig.sleep(secs(2));
    rig.kill_and_set(WALL + 7300);
    assert!(rig.get(b"day").is_some() && rig.get(b"third").is_some());
}

#[test]
fn a_stamp_later_than_the_wall_clock_says_is_an_absurd_time_too() {
    // No superblock was written since the first change, an hour ago; the stamp is in a footer, or in
    // the slot of a region that has none.
    for (fillers, clean) in [(0, false), (7, false), (0, true)] {
        let mut rig = filled(3000);
        rig.put(b"last", &body(3, 100), &flushed()).unwrap();
        rig.fill("filler", fillers, 86_400);
        rig.sleep(secs(2));
        if clean {
            rig.run(rig.cache().shutdown()).unwrap();
        }
        rig.kill_and_set(WALL + 600);
        assert!(rig.get(b"last").is_none() && rig.has_stale(b"last"), "{fillers} {clean}");
        rig.synchronise(WALL + 4000);
        assert!(rig.get(b"day").is_some() && rig.get(b"hour").is_none(), "{fillers} {clean}");
    }
}

#[test]
fn a_wall_clock_that_was_ahead_leaves_old_entries_stale_for_good() {
    let mut rig = Rig::new();
    rig.clock.set_wall(WALL + 90 * DAY);
    rig.put(b"key", &body(1, 100), &for_secs(86_400)).unwrap();
    rig.sleep(secs(2));
    rig.stop();
    rig.boot_at(WALL + 100);
    rig.clock.set_synchronised(true);
    rig.open();
    assert!(rig.get(b"key").is_none() && rig.has_stale(b"key") && is_age_unknown(&rig));
    rig.put(b"new", &body(2, 100), &flushed()).unwrap();
    rig.sleep(secs(2));
    // The next start knows its time down, but still not the one before.
    rig.kill_and_set(WALL + 200);
    assert!(rig.get(b"new").is_some());
    assert!(rig.get(b"key").is_none() && rig.has_stale(b"key") && is_age_unknown(&rig));
    // Many hits do not make it count as stored since this start.
    for n in 0..60 {
        rig.fill(&format!("filler-{n}"), 1, 1000);
        rig.sleep(millis(300));
        assert!(rig.get(b"key").is_none());
        rig.has_stale(b"key");
    }
    rig.sleep(secs(2));
    assert!(!rig.has_stale(b"key") && !is_age_unknown(&rig));
    rig.restart();
    assert!(!is_age_unknown(&rig), "and that is on record");
}

#[test]
fn steps_of_the_wall_clock_while_running_move_no_end() {
    for step in [1, -1, 3, -3, DAY, -DAY, 100 * YEAR, -WALL - 500] {
        let mut rig = filled(10);
        rig.clock.set_wall(WALL + 10 + step);
        rig.sleep(secs(3));
        assert!(rig.get(b"hour").is_some() && rig.get(b"day").is_some(), "{step}");
        // Nor after a start, whose clock goes on from there.
        rig.kill_and_set(WALL + 10 + step + 100);
        assert!(rig.get(b"hour").is_some() && rig.get(b"day").is_some(), "{step}");
        rig.clock.advance(secs(3600 - 10 - 100 - 1));
        assert!(rig.get(b"hour").is_some() || step == 1, "{step}");
        rig.clock.advance(secs(1));
        assert!(rig.get(b"hour").is_none() && rig.get(b"day").is_some(), "{step}");
    }
}

#[test]
fn before_the_first_change_no_step_is_written() {
    let mut rig = filled(10);
    rig.restart();
    let before = rig.sim.counts().writes;
    rig.clock.set_wall(WALL + 5 * DAY);
    rig.sleep(secs(10));
    assert_eq!(rig.sim.counts().writes, before);
    rig.remove(b"hour").unwrap();
    rig.sleep(secs(2));
    let before = rig.sim.counts().writes;
    rig.sleep(secs(60));
    assert_eq!(rig.sim.counts().writes, before, "a clock that runs on needs no writes");
    rig.clock.set_wall(WALL + 9 * DAY);
    rig.sleep(secs(2));
    assert!(rig.sim.counts().writes > before);
}

#[test]
fn the_year_2106_is_like_any_other() {
    let mut rig = Rig::new();
    for wall in [(1 << 32) - 20, (1 << 32) + 20, 1 << 40] {
        rig.clock.set_wall(wall);
        rig.put(b"key", &body(1, 100), &for_secs(50)).unwrap();
        assert!(rig.get(b"key").is_some());
        rig.sleep(secs(2));
        rig.kill_and_set(wall + 30);
        assert!(rig.get(b"key").is_some());
        rig.clock.advance(secs(20));
        assert!(rig.get(b"key").is_none());
    }
}

#[test]
fn cache_time_begins_with_the_format() {
    let mut rig = Rig::new();
    rig.stop();
    rig.boot_at(WALL);
    rig.format();
    rig.open();
    rig.put(b"key", &body(1, 100), &for_secs(50)).unwrap();
    let hit = rig.run(rig.cache().lookup(b"key")).unwrap();
    assert_eq!((hit.lifetime().stored_at.0, hit.lifetime().keep_until.0), (0, 50));
}
