//! Purges by tags and prefixes, hard and soft: they cover what they select on every path, and nothing brings
//! it back.

use std::ops::Range;

use bytes::Bytes;
use rawcached::cache::{CacheOptions, Condition, Purge, StoreError, StoreOptions, Stored};
use rawcached::device::{Effect, Fault, OperationKind};
use rawcached::store::TestKnobs;

use crate::rig::*;

const LONG: u64 = 100_000;
const BOTH: [Purge; 2] = [Purge::Hard, Purge::Soft];

fn tagged(tags: &[&'static str]) -> StoreOptions {
    let tags = tags.iter().map(|tag| Bytes::from_static(tag.as_bytes())).collect();
    options!(StoreOptions { tags, ..for_secs(LONG) })
}

fn with_ram() -> CacheOptions {
    options!(CacheOptions { ram_bytes: 16 << 20, ..CacheOptions::default() })
}

/// With so many records of each kind.
fn with_few_records(purge_records_max: usize) -> CacheOptions {
    plain().with_knobs(TestKnobs { purge_records_max, ..TestKnobs::default() })
}

fn purge_tag(rig: &Rig, tag: &str, how: Purge) {
    rig.run(rig.cache().purge_tag(tag, how)).unwrap();
}

/// What lookups say of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Fresh,
    Stale,
    Gone,
}

fn seen(rig: &Rig, key: &[u8]) -> Seen {
    let stale = rig.run(rig.cache().lookup_stale(key));
    match (rig.get(key), stale.map(|hit| hit.lifetime())) {
        (Some(_), Some(_)) => Seen::Fresh,
        (None, Some(lifetime)) => {
            assert!(lifetime.fresh_until <= rig.clock.now(), "it says so: {lifetime:?}");
            Seen::Stale
        }
        (None, None) => Seen::Gone,
        (Some(_), None) => panic!("fresh and not there"),
    }
}

fn covered(how: Purge) -> Seen {
    match how {
        Purge::Hard => Seen::Gone,
        Purge::Soft => Seen::Stale,
    }
}

/// What a start may follow.
const ENDS: [fn(&mut Rig); 3] = [Rig::kill, Rig::power_cut, Rig::restart];

#[test]
fn a_purge_by_tag_covers_what_has_it_wherever_it_is_and_after_every_kind_of_start() {
    for (options, how) in [(plain(), 0), (plain(), 1), (with_ram(), 0), (with_ram(), 1)]
        .map(|(options, how)| (options, BOTH[how]))
    {
        for (end, name) in ENDS.iter().zip(["kill", "power cut", "restart"]) {
            let mut rig = Rig::with(SMALL, options);
            let long = body(5, 300_000);
            for (key, tags) in
                [(&b"on device"[..], &["a", "b"][..]), (b"on device too", &["b"]), (b"hot", &["a"])]
            {
                rig.put(key, &body(1, 3000), &tagged(tags)).unwrap();
            }
            rig.put(b"long", &long, &tagged(&["a"])).unwrap();
            rig.sleep(secs(2));
            for _ in 0..3 {
                assert_eq!(seen(&rig, b"hot"), Seen::Fresh);
            }
            rig.put(b"in log", &body(2, 3000), &tagged(&["c", "a"])).unwrap();
            rig.put(b"without", &body(3, 3000), &for_secs(LONG)).unwrap();
            purge_tag(&rig, "a", how);
            rig.put(b"later", &body(4, 3000), &tagged(&["a"])).unwrap();
            rig.sleep(secs(2));
            for again in [false, true] {
                let case = format!("{how:?}, {name}, again: {again}");
                for key in [&b"on device"[..], b"hot", b"in log", b"long"] {
                    assert_eq!(seen(&rig, key), covered(how), "{key:?}, {case}");
                }
                for key in [&b"on device too"[..], b"without", b"later"] {
                    assert_eq!(seen(&rig, key), Seen::Fresh, "{key:?}, {case}");
                }
                if !again {
                    end(&mut rig);
                }
            }
            // What is stored anew is fresh.
            rig.put(b"hot", &body(9, 3000), &tagged(&["a"])).unwrap();
            assert_eq!(seen(&rig, b"hot"), Seen::Fresh);
        }
    }
}

#[test]
fn a_purge_by_prefix_covers_the_keys_that_begin_so() {
    for how in BOTH {
        let mut rig = Rig::new();
        for key in [&b"/img/"[..], b"/img/a", b"/img", b"/im", b"/imgs"] {
            rig.put(key, &body(1, 100), &for_secs(LONG)).unwrap();
        }
        rig.run(rig.cache().purge_prefix("/img/", how)).unwrap();
        for again in [false, true] {
            for key in [&b"/img/"[..], b"/img/a"] {
                assert_eq!(seen(&rig, key), covered(how), "{again}");
            }
            for key in [&b"/img"[..], b"/im", b"/imgs"] {
                assert_eq!(seen(&rig, key), Seen::Fresh, "{again}");
            }
            rig.power_cut();
        }
        let refused = |prefix: &[u8]| rig.run(rig.cache().purge_prefix(prefix, how)).unwrap_err();
        assert!(matches!(refused(b""), StoreError::KeyLen(0)));
        assert!(matches!(refused(&[b'x'; 4097]), StoreError::KeyLen(4097)));
        rig.run(rig.cache().purge_prefix([b'x'; 4096], how)).unwrap();
    }
}

#[test]
fn a_soft_purge_of_all_makes_everything_stale() {
    for end in ENDS {
        let mut rig = Rig::new();
        rig.put(b"before", &body(1, 100), &for_secs(LONG)).unwrap();
        rig.run(rig.cache().purge_all(Purge::Soft)).unwrap();
        rig.put(b"after", &body(1, 100), &for_secs(LONG)).unwrap();
        rig.sleep(secs(2));
        for _ in 0..2 {
            assert_eq!(seen(&rig, b"before"), Seen::Stale);
            assert_eq!(seen(&rig, b"after"), Seen::Fresh);
            end(&mut rig);
        }
    }
}

#[test]
fn only_so_many_tags_of_such_a_length_are_taken() {
    let rig = Rig::new();
    let put = |tags: Vec<Bytes>| {
        let options = options!(StoreOptions { tags, ..for_secs(LONG) });
        rig.put(b"key", &body(1, 100), &options).map(drop)
    };
    let tags = |count: usize, len: usize| -> Vec<Bytes> {
        (0..count).map(|n| Bytes::from(format!("{n:0len$}"))).collect()
    };
    put(tags(1000, 16)).unwrap();
    purge_tag(&rig, "0000000000000999", Purge::Hard);
    assert_eq!(seen(&rig, b"key"), Seen::Gone);
    put(tags(16, 1024)).unwrap();
    assert!(matches!(put(tags(1001, 4)), Err(StoreError::Tags { count: 1001, bytes: 4004 })));
    assert!(matches!(put(tags(17, 1024)), Err(StoreError::Tags { count: 17, .. })));
    assert!(matches!(put(tags(1, 1025)), Err(StoreError::TagLen(1025))));
    assert!(matches!(put(vec![Bytes::new()]), Err(StoreError::TagLen(0))));
    assert!(matches!(rig.run(rig.cache().purge_tag("", Purge::Hard)), Err(StoreError::TagLen(0))));
    // The same tag twice is one.
    put(vec![Bytes::from_static(b"twice"); 2]).unwrap();
    assert_eq!(seen(&rig, b"key"), Seen::Fresh);
}

/// Fills until the entries that are hit in between were written again.
fn fill_until_moved(rig: &Rig, keys: &[&[u8]], at_least: u64) {
    for round in 0..30 {
        for key in keys {
            assert!(rig.has_stale(key), "{key:?} is there");
        }
        rig.fill(&format!("filler-{round}"), 4, LONG);
        rig.sleep(secs(2));
        if rig.stats().store.counters.reinserted >= at_least {
            return;
        }
    }
    panic!("nothing was written again");
}

#[test]
fn what_a_soft_purge_covers_stays_stale_however_often_it_is_moved() {
    for all in [false, true] {
        let mut rig = Rig::new();
        rig.put(b"hot", &body(1, 1000), &tagged(&["a"])).unwrap();
        rig.put(b"fresh", &body(2, 1000), &tagged(&["b"])).unwrap();
        match all {
            true => rig.run(rig.cache().purge_all(Purge::Soft)).unwrap(),
            false => purge_tag(&rig, "a", Purge::Soft),
        }
        rig.put(b"fresh", &body(2, 1000), &tagged(&["b"])).unwrap();
        for moves in 1..4 {
            fill_until_moved(&rig, &[b"hot", b"fresh"], 2 * moves);
            assert_eq!(seen(&rig, b"hot"), Seen::Stale, "after {moves} moves");
            assert_eq!(seen(&rig, b"fresh"), Seen::Fresh);
            let touched = rig.run(rig.cache().touch(b"hot", secs(LONG))).unwrap();
            assert!(touched.is_some(), "it may stay");
            assert_eq!(seen(&rig, b"hot"), Seen::Stale, "after {moves} moves and a touch");
        }
        rig.kill();
        assert_eq!(seen(&rig, b"hot"), Seen::Stale);
        // It has its tags still.
        purge_tag(&rig, "a", Purge::Hard);
        assert_eq!(seen(&rig, b"hot"), Seen::Gone);
        assert_eq!(seen(&rig, b"fresh"), Seen::Fresh);
        purge_tag(&rig, "b", Purge::Hard);
        assert_eq!(seen(&rig, b"fresh"), Seen::Gone);
    }
}

#[test]
fn what_a_hard_purge_covers_is_not_moved_and_its_record_stays_as_long_as_it_is_there() {
    for restarts in [false, true] {
        let mut rig = Rig::new();
        rig.put(b"old", &body(1, 1000), &tagged(&["a"])).unwrap();
        // Hot: reclaim would keep it.
        assert!(rig.get(b"old").is_some());
        rig.sleep(secs(2));
        purge_tag(&rig, "a", Purge::Hard);
        let mut freed = 0;
        for round in 0..20 {
            rig.fill(&format!("filler-{round}"), 4, LONG);
            rig.sleep(secs(2));
            freed += rig.stats().store.counters.regions_freed;
            if restarts {
                rig.kill();
            }
            assert_eq!(seen(&rig, b"old"), Seen::Gone, "round {round}");
        }
        assert!(freed > 0);
        let [hard, soft] = rig.stats().store.purge_records;
        assert_eq!((hard, soft), (0, 0), "nothing is left that it could cover");
    }
}

#[test]
fn a_touch_of_what_a_soft_purge_covers_changes_how_long_it_is_kept_only() {
    for options in [plain(), with_ram()] {
        let mut rig = Rig::with(SMALL, options);
        for (key, len) in [(&b"short"[..], 1000), (b"long", 300_000)] {
            rig.put(key, &body(1, len), &tagged(&["a"])).unwrap();
        }
        rig.sleep(secs(2));
        for _ in 0..3 {
            rig.get(b"short").unwrap();
        }
        purge_tag(&rig, "a", Purge::Soft);
        for key in [&b"short"[..], b"long"] {
            for _ in 0..2 {
                let touched = rig.run(rig.cache().touch(key, secs(2 * LONG)));
                let lifetime = touched.unwrap().unwrap();
                assert!(lifetime.fresh_until <= rig.clock.now(), "{lifetime:?}");
                for _ in 0..3 {
                    assert_eq!(seen(&rig, key), Seen::Stale);
                }
            }
        }
        rig.kill();
        rig.clock.advance(secs(LONG + 10));
        for key in [&b"short"[..], b"long"] {
            assert_eq!(seen(&rig, key), Seen::Stale, "it was kept longer");
        }
    }
}

#[test]
fn what_is_in_ram_only_is_covered_and_a_touch_that_stores_it_keeps_it_so() {
    for how in BOTH {
        let rig = Rig::with(SMALL, with_ram());
        let short = options!(StoreOptions { ttl: Some(secs(3)), ..tagged(&["a"]) });
        rig.put(b"key", &body(1, 100), &short).unwrap();
        rig.put(b"other", &body(1, 100), &for_secs(3)).unwrap();
        purge_tag(&rig, "a", how);
        assert_eq!(seen(&rig, b"key"), covered(how));
        assert_eq!(seen(&rig, b"other"), Seen::Fresh);
        let touched = rig.run(rig.cache().touch(b"key", secs(LONG))).unwrap();
        assert_eq!(touched.is_some(), how == Purge::Soft);
        assert_eq!(seen(&rig, b"key"), covered(how));
        // On the device now, with a sequence of its own.
        rig.clock.advance(secs(10));
        for _ in 0..2 {
            assert_eq!(seen(&rig, b"key"), covered(how));
            rig.run(rig.cache().touch(b"key", secs(LONG))).unwrap();
        }
    }
}

#[test]
fn a_store_in_progress_is_covered_by_what_comes_before_its_end() {
    for how in BOTH {
        for len in [1000, 300_000] {
            let mut rig = Rig::new();
            let begin =
                |key: &[u8], tags: &[&'static str]| rig.cache().store(key, tagged(tags)).unwrap();
            let (mut first, mut second, mut third) =
                (begin(b"/1", &["a"]), begin(b"/2", &["b"]), begin(b"/3", &["c"]));
            for writer in [&mut first, &mut second, &mut third] {
                rig.run(writer.write_chunk(&body(1, len / 2))).unwrap();
            }
            purge_tag(&rig, "a", how);
            rig.run(rig.cache().purge_prefix("/2", how)).unwrap();
            // One that begins after it is not covered.
            let mut fourth = begin(b"/2/4", &["a"]);
            rig.run(fourth.write_chunk(&body(1, len / 2))).unwrap();
            for writer in [&mut first, &mut second, &mut third, &mut fourth] {
                rig.run(writer.write_chunk(&body(2, len / 2))).unwrap();
            }
            let mut ends = Vec::new();
            for writer in [first, second, third, fourth] {
                ends.push(rig.run(writer.finalize(Condition::Always)));
            }
            for end in &ends[..2] {
                match how {
                    Purge::Hard => assert!(matches!(end, Err(StoreError::Purged)), "{end:?}"),
                    Purge::Soft => assert!(matches!(end, Ok(Stored::Yes(_))), "{end:?}"),
                }
            }
            assert!(ends[2..].iter().all(|end| matches!(end, Ok(Stored::Yes(_)))), "{ends:?}");
            rig.sleep(secs(2));
            for _ in 0..2 {
                for (key, expected) in [
                    (b"/1".as_slice(), covered(how)),
                    (b"/2", covered(how)),
                    (b"/3", Seen::Fresh),
                    (b"/2/4", Seen::Fresh),
                ] {
                    assert_eq!(seen(&rig, key), expected, "{key:?} of {len} bytes, {how:?}");
                }
                rig.kill();
            }
        }
    }
}

#[test]
fn too_many_records_become_a_floor_that_is_durable_before_they_are_forgotten() {
    for how in BOTH {
        for end in ENDS {
            let mut rig = Rig::with(SMALL, with_few_records(8));
            rig.put(b"oldest", &body(1, 100), &for_secs(LONG)).unwrap();
            for n in 0..9 {
                rig.put(format!("{n}").as_bytes(), &body(n, 100), &for_secs(LONG)).unwrap();
                purge_tag(&rig, &format!("tag {n}"), how);
            }
            rig.put(b"newest", &body(1, 100), &tagged(&["tag 8"])).unwrap();
            rig.sleep(secs(2));
            let counters = rig.stats().store.counters;
            assert_eq!((counters.purge_folds, counters.purge_records_folded), (1, 5));
            for _ in 0..2 {
                for key in [&b"oldest"[..], b"0", b"4"] {
                    assert_eq!(seen(&rig, key), covered(how), "{key:?}");
                }
                for key in [&b"5"[..], b"8", b"newest"] {
                    assert_eq!(seen(&rig, key), Seen::Fresh, "{key:?}");
                }
                let [hard, soft] = rig.stats().store.purge_records;
                assert_eq!(hard + soft, 4);
                end(&mut rig);
            }
        }
    }
}

#[test]
fn records_of_one_kind_do_not_fold_those_of_the_other() {
    let rig = Rig::with(SMALL, with_few_records(8));
    rig.put(b"key", &body(1, 100), &for_secs(LONG)).unwrap();
    for n in 0..20 {
        purge_tag(&rig, &format!("hard {}", n % 8), Purge::Hard);
        purge_tag(&rig, &format!("soft {}", n % 8), Purge::Soft);
    }
    assert_eq!(rig.stats().store.purge_records, [8, 8], "each selector counts once");
    assert_eq!(seen(&rig, b"key"), Seen::Fresh);
    purge_tag(&rig, "soft 8", Purge::Soft);
    assert_eq!(seen(&rig, b"key"), Seen::Stale);
    assert_eq!(rig.stats().store.purge_records, [8, 4]);
}

fn region_at(region: u64) -> Range<u64> {
    let start = SUPERBLOCK + region * REGION;
    start..start + REGION
}

#[test]
fn no_single_region_that_cannot_be_read_undoes_a_purge_by_tag() {
    for how in BOTH {
        let mut rig = Rig::new();
        rig.put(b"key", &body(801, 3000), &tagged(&["a"])).unwrap();
        rig.fill("first", 6, LONG);
        rig.sleep(secs(2));
        purge_tag(&rig, "a", how);
        rig.fill("second", 4, LONG);
        rig.sleep(secs(2));
        let place = rig.region_start(rig.find(&body(801, 3000)[..64]));
        let mut unreadable = 0;
        for region in 0..SMALL.regions {
            if region_at(region).start == place {
                continue;
            }
            rig.stop();
            rig.sim.clear_faults();
            let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
            rig.sim.inject(fault.within(region_at(region)).always());
            rig.open();
            unreadable += rig.stats().store.regions_unreadable;
            assert_eq!(seen(&rig, b"key"), covered(how), "without region {region}");
        }
        assert!(unreadable >= 3, "{unreadable}");
    }
}

#[test]
fn a_purge_holds_from_its_first_moment_and_is_written_when_that_can_be() {
    for how in BOTH {
        let mut rig = Rig::new();
        rig.put(b"key", &body(1, 3000), &tagged(&["a"])).unwrap();
        rig.put(b"other", &body(1, 3000), &tagged(&["b"])).unwrap();
        rig.sleep(secs(2));
        rig.sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Write).always());
        rig.run(rig.cache().purge_tag("a", how)).unwrap_err();
        assert_eq!(seen(&rig, b"key"), covered(how), "refused or not");
        assert_eq!(seen(&rig, b"other"), Seen::Fresh);
        rig.sim.clear_faults();
        rig.sleep(secs(60));
        rig.power_cut();
        assert_eq!(seen(&rig, b"key"), covered(how), "it was written");
        assert_eq!(seen(&rig, b"other"), Seen::Fresh);
    }
}

#[test]
fn a_key_that_only_an_unwritten_record_killed_is_purged_with_a_tombstone() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 3000), &tagged(&["a"])).unwrap();
    rig.sleep(secs(2));
    rig.sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Write).always());
    rig.run(rig.cache().purge_tag("a", Purge::Hard)).unwrap_err();
    // The lookup takes its index entry out.
    assert_eq!(seen(&rig, b"key"), Seen::Gone);
    rig.remove(b"key").unwrap_err();
    rig.sim.clear_faults();
    rig.sleep(secs(60));
    rig.power_cut();
    assert_eq!(seen(&rig, b"key"), Seen::Gone);
}

#[test]
fn a_purge_is_the_first_change_of_a_start_or_comes_before_all_is_known() {
    for how in BOTH {
        for waits in [false, true] {
            for end in ENDS {
                let mut rig = Rig::new();
                rig.put(b"key", &body(1, 3000), &tagged(&["a"])).unwrap();
                rig.put(b"other", &body(1, 3000), &tagged(&["b"])).unwrap();
                rig.fill("filler", 8, LONG);
                rig.sleep(secs(2));
                end(&mut rig);
                rig.stop();
                rig.begin().unwrap();
                if waits {
                    rig.run(rig.cache().ready());
                }
                purge_tag(&rig, "a", how);
                rig.run(rig.cache().ready());
                for _ in 0..2 {
                    assert_eq!(seen(&rig, b"key"), covered(how));
                    assert_eq!(seen(&rig, b"other"), Seen::Fresh);
                    rig.power_cut();
                }
            }
        }
    }
}

#[test]
fn a_snapshot_has_the_records() {
    for how in BOTH {
        let mut rig = Rig::new();
        for n in 0..100 {
            let tag: &'static str = ["even", "odd"][n % 2];
            rig.put(format!("{n}").as_bytes(), &body(n as u64, 300), &tagged(&[tag])).unwrap();
        }
        purge_tag(&rig, "odd", how);
        for n in 0..500 {
            rig.run(rig.cache().purge_prefix(format!("never {n}"), how)).unwrap();
        }
        for round in 0..3 {
            rig.restart();
            assert_eq!(rig.stats().store.counters.snapshots_loaded, 1, "round {round}");
            assert_eq!(rig.stats().store.purge_records.iter().sum::<u64>(), 501);
            for n in 0..100 {
                let expected = if n % 2 == 1 { covered(how) } else { Seen::Fresh };
                assert_eq!(seen(&rig, format!("{n}").as_bytes()), expected, "{n}");
            }
            // A change, or the snapshot of before would count still.
            rig.put(b"more", &body(1, 100), &for_secs(LONG)).unwrap();
        }
    }
}

#[test]
fn records_that_nothing_needs_are_forgotten_in_memory_and_on_the_device() {
    let mut rig = Rig::new();
    for round in 0..60 {
        for n in 0..20 {
            purge_tag(&rig, &format!("{round} {n}"), BOTH[n % 2]);
        }
        rig.fill(&format!("{round}"), 4, LONG);
        rig.sleep(secs(2));
    }
    let counters = rig.stats().store.counters;
    let known = rig.stats().store.purge_records.iter().sum::<u64>();
    assert!(known < 600, "{known} of 1200 are known");
    assert!(counters.purge_records_carried < 2000, "{counters:?}");
    rig.kill();
    let found = rig.stats().store.purge_records.iter().sum::<u64>();
    assert!(found <= known, "{found} were found, {known} known");
}

#[test]
fn what_no_region_told_at_the_start_counts_when_it_is_read() {
    for how in BOTH {
        let mut rig = Rig::new();
        rig.put(b"key", &body(801, 3000), &tagged(&["a"])).unwrap();
        rig.fill("first", 6, LONG);
        purge_tag(&rig, "a", how);
        rig.fill("second", 2, LONG);
        rig.sleep(secs(2));
        let place = rig.region_start(rig.find(&body(801, 3000)[..64]));
        rig.stop();
        for region in (0..SMALL.regions).map(region_at).filter(|region| region.start != place) {
            let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
            rig.sim.inject(fault.within(region).always());
        }
        rig.open();
        assert_eq!(seen(&rig, b"key"), Seen::Fresh, "nobody can know");
        rig.sim.clear_faults();
        rig.sleep(secs(30));
        assert_eq!(seen(&rig, b"key"), covered(how));
    }
}

#[test]
fn a_record_is_kept_for_a_store_in_progress_however_long_that_takes() {
    for how in BOTH {
        let rig = Rig::new();
        let mut writer = rig.cache().store(b"key", tagged(&["a"])).unwrap();
        rig.run(writer.write_chunk(&body(1, 100))).unwrap();
        purge_tag(&rig, "a", how);
        for round in 0..20 {
            rig.fill(&format!("filler-{round}"), 4, LONG);
            rig.sleep(secs(2));
        }
        assert_eq!(rig.stats().store.purge_records.iter().sum::<u64>(), 1);
        let stored = rig.run(writer.finalize(Condition::Always));
        assert_eq!(stored.is_ok(), how == Purge::Soft, "{stored:?}");
        assert_eq!(seen(&rig, b"key"), covered(how));
        // One more region is freed.
        rig.fill("more", 12, LONG);
        rig.sleep(secs(2));
        assert_eq!(rig.stats().store.purge_records, [0, 0]);
    }
}

#[test]
fn records_that_were_carried_on_are_in_two_regions_still() {
    let mut rig = Rig::new();
    // In a region that stays.
    for n in 0..100 {
        let options =
            options!(StoreOptions { tags: vec![Bytes::from(format!("{n}"))], ..for_secs(LONG) });
        rig.put(format!("old-{n}").as_bytes(), &body(n, 100), &options).unwrap();
    }
    rig.fill("beside", 3, LONG);
    let mut purged = 0;
    for round in 0..30u64 {
        rig.turn(round, |n| {
            if n < 2 {
                purge_tag(&rig, &format!("{purged}"), BOTH[purged % 2]);
                purged += 1;
            }
        });
    }
    let counters = rig.stats().store.counters;
    assert!(counters.purge_records_carried > 50, "{counters:?}");
    assert!(rig.get(b"beside-0").is_some(), "the region of what was purged is there");
    rig.stop();
    for region in 0..SMALL.regions {
        rig.sim.clear_faults();
        let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
        rig.sim.inject(fault.within(region_at(region)).always());
        rig.open();
        for n in 0..purged {
            let key = format!("old-{n}");
            let seen = seen(&rig, key.as_bytes());
            assert!(seen != Seen::Fresh, "{key} without region {region}");
        }
        rig.stop();
    }
}

#[test]
fn what_is_stored_again_after_a_purge_supersedes_what_was_purged() {
    let mut rig = Rig::new();
    for n in 0..20u64 {
        rig.put(&n.to_be_bytes(), &body(n, 5000), &tagged(&["tag"])).unwrap();
    }
    rig.run(rig.cache().purge_tag(b"tag", Purge::Hard)).unwrap();
    for n in 0..20u64 {
        assert_eq!(rig.get(&n.to_be_bytes()), None);
        rig.put(&n.to_be_bytes(), &body(n + 100, 5000), &for_secs(LONG)).unwrap();
    }
    rig.sleep(secs(2));
    rig.kill();
    assert_eq!(rig.stats().store.regions_unindexed, 0, "nothing hides an older version");
    for n in 0..20u64 {
        assert!(rig.get(&n.to_be_bytes()).unwrap() == body(n + 100, 5000));
    }
}
