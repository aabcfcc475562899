//! Versions of an entry, which stay when reclaim moves it; new heads over the same slices, which live as
//! long as a live head names their object.

use rawcached::cache::{
    Ack, Cache, Condition, Hit, Purge, StoreError, StoreOptions, Stored, UpdateOptions,
};
use rawcached::clock::Timestamp;
use rawcached::device::Delay;

use crate::rig::*;

const LARGE: usize = 300_000;
/// Its slices have 256 KiB.
const WIDE: Disk = Disk { regions: 16, region_size: 1 << 20, alignment: 4096 };

fn hit(rig: &Rig, key: &[u8]) -> Hit {
    rig.run(rig.cache().lookup_stale(key)).unwrap()
}

fn version(rig: &Rig, key: &[u8]) -> u64 {
    hit(rig, key).cas()
}

fn with_metadata(metadata: &str) -> UpdateOptions {
    options!(UpdateOptions {
        metadata: Some(metadata.as_bytes().to_vec().into()),
        ttl: Some(secs(100_000)),
        ..UpdateOptions::default()
    })
}

fn fresh_for(ttl: u64) -> UpdateOptions {
    options!(UpdateOptions { ttl: Some(secs(ttl)), ..UpdateOptions::default() })
}

fn update(rig: &Rig, key: &[u8], options: &UpdateOptions) -> Result<Stored, StoreError> {
    rig.run(rig.cache().update(key, Condition::Always, options))
}

/// Fills until entries that were hit in between were written again.
fn fill_until_moved(rig: &Rig, key: &[u8]) {
    for round in 0..20 {
        rig.get(key).unwrap();
        rig.fill(&format!("filler-{round}"), 4, 100_000);
        rig.sleep(secs(2));
        if rig.stats().store.counters.reinserted > 0 {
            return;
        }
    }
    panic!("nothing was written again");
}

/// Fills the device a few times over, and has the key hit meanwhile.
fn turn_over(rig: &Rig, key: &[u8]) {
    let freed = |rig: &Rig| rig.stats().store.counters.regions_freed;
    let before = freed(rig);
    for round in 0.. {
        if freed(rig) > before + 30 {
            return;
        }
        assert!(round < 200, "regions are freed");
        rig.run(read(rig.cache(), key));
        rig.fill(&format!("turn-{round}"), 4, 1_000_000);
        rig.sleep(secs(2));
    }
}

#[test]
fn a_version_stays_when_eviction_moves_its_entry() {
    let mut rig = Rig::new();
    let first = rig.put(b"hot", &body(1, 1000), &for_secs(100_000)).unwrap();
    fill_until_moved(&rig, b"hot");
    assert_eq!(version(&rig, b"hot"), first);
    rig.kill();
    assert_eq!(version(&rig, b"hot"), first, "after a crash too");
    let unchanged = |version| {
        let condition = Condition::Unchanged(version);
        rig.run(rig.cache().put(b"hot", body(2, 1000), condition, &flushed()))
    };
    let Ok(Stored::Yes(second)) = unchanged(first) else { panic!("it is the same version") };
    assert_eq!(unchanged(first).unwrap(), Stored::Exists);
    assert_eq!(version(&rig, b"hot"), second);
}

#[test]
fn an_update_of_a_large_object_writes_its_head_only() {
    let mut rig = Rig::with(Disk { regions: 64, region_size: 1 << 20, alignment: 4096 }, plain());
    let whole = body(1, 16 << 20);
    let first = rig.put(b"key", &whole, &for_secs(50)).unwrap();
    let mut reader = hit(&rig, b"key");
    let begun = rig.run(reader.next_chunk()).unwrap().unwrap();
    rig.sleep(secs(2));
    let before = rig.sim.counts().bytes_written;
    let metadata = "m".repeat(60 << 10);
    let Stored::Yes(second) = update(&rig, b"key", &with_metadata(&metadata)).unwrap() else {
        panic!("it is live")
    };
    rig.sleep(secs(2));
    let written = rig.sim.counts().bytes_written - before;
    assert!(written < 128 << 10, "{written} bytes for a new head");
    assert!(second > first);
    let mut read_on = begun.to_vec();
    while let Some(chunk) = rig.run(reader.next_chunk()).unwrap() {
        read_on.extend_from_slice(&chunk);
    }
    assert!(read_on == whole, "a reader of the old head goes on");
    for _ in 0..2 {
        let found = hit(&rig, b"key");
        assert_eq!((found.cas(), found.metadata()), (second, metadata.as_bytes()));
        assert!(rig.get(b"key").unwrap() == whole);
        rig.kill();
    }
    // The first change of a start writes the epoch.
    rig.put(b"other", &body(1, 10), &flushed()).unwrap();
    let before = rig.sim.counts().bytes_written;
    assert_eq!(update(&rig, b"key", &fresh_for(70)).unwrap(), Stored::Yes(second));
    rig.sleep(secs(2));
    let written = rig.sim.counts().bytes_written - before;
    assert!(written <= 16 << 10, "{written} bytes for a new lifetime in place");
    rig.put(b"key", &body(2, 100), &for_secs(50)).unwrap();
    rig.sleep(secs(2));
    assert_eq!(rig.stats().store.entries, 2, "who comes after it drops the slices");
}

#[test]
fn a_crash_leaves_the_old_head_or_the_new_one() {
    let mut rig = Rig::new();
    let options = options!(StoreOptions { metadata: "old".into(), ..flushed() });
    rig.put(b"key", &body(1, LARGE), &options).unwrap();
    update(&rig, b"key", &with_metadata("new")).unwrap();
    rig.power_cut();
    assert_eq!(hit(&rig, b"key").metadata(), b"old");
    assert_eq!(rig.get(b"key").unwrap(), body(1, LARGE));
    let flushed = options!(UpdateOptions { ack: Some(Ack::Flushed), ..with_metadata("new") });
    update(&rig, b"key", &flushed).unwrap();
    rig.power_cut();
    assert_eq!(hit(&rig, b"key").metadata(), b"new");
    assert_eq!(rig.get(b"key").unwrap(), body(1, LARGE));
}

#[test]
fn slices_live_as_long_as_a_live_head_names_their_object() {
    for (case, longer) in [fresh_for(1_000_000), with_metadata("new")].iter().enumerate() {
        let mut rig = Rig::new();
        rig.put(b"key", &body(1, LARGE), &for_secs(50)).unwrap();
        rig.sleep(secs(2));
        let longer = options!(UpdateOptions { ttl: Some(secs(1_000_000)), ..longer.clone() });
        update(&rig, b"key", &longer).unwrap();
        rig.sleep(secs(2));
        // The ends that the slots of the slices tell are over.
        rig.clock.advance(secs(100));
        for step in ["in the same life", "after a crash", "after a stop"] {
            assert_eq!(rig.get(b"key").unwrap(), body(1, LARGE), "{case} {step}");
            match step {
                "after a crash" => rig.restart(),
                _ => rig.kill(),
            }
        }
        let freed = rig.stats().store.counters.regions_freed;
        for n in 0..40 {
            rig.fill(&format!("short-{n}"), 2, 10);
            rig.sleep(secs(2));
            rig.clock.advance(secs(20));
            assert_eq!(rig.get(b"key").unwrap(), body(1, LARGE), "{case}, round {n}");
        }
        assert!(rig.stats().store.counters.regions_freed > freed, "what had ended was freed");
    }
}

#[test]
fn slices_whose_head_has_ended_go_with_their_region() {
    let rig = Rig::new();
    rig.put(b"key", &body(1, LARGE), &for_secs(50)).unwrap();
    rig.sleep(secs(2));
    update(&rig, b"key", &fresh_for(100)).unwrap();
    rig.clock.advance(secs(200));
    for n in 0..12 {
        rig.fill(&format!("filler-{n}"), 4, 10);
        rig.sleep(secs(2));
        rig.clock.advance(secs(20));
    }
    let stats = rig.stats().store;
    assert_eq!((stats.counters.large_moved_bytes, stats.counters.reinserted_bytes), (0, 0));
    let slices = (LARGE as u64).div_ceil(64 << 10);
    assert!(stats.entries <= 4 * 9 && slices > 0, "{} entries", stats.entries);
}

#[test]
fn slices_of_a_prolonged_object_that_is_read_outlive_their_regions() {
    let rig = Rig::with(Disk { regions: 16, ..SMALL }, plain());
    // The last slice comes to another region than the others, and is too little for that to be in use.
    rig.fill("before", 1, 1000);
    rig.put(b"between", &body(1, 45_000), &for_secs(1000)).unwrap();
    rig.put(b"key", &body(1, 150_000), &for_secs(50)).unwrap();
    rig.sleep(secs(2));
    update(&rig, b"key", &fresh_for(1_000_000)).unwrap();
    rig.clock.advance(secs(100));
    turn_over(&rig, b"key");
    assert_eq!(rig.get(b"key").unwrap(), body(1, 150_000));
    let moved = rig.stats().store.counters.reinserted_bytes;
    assert!(moved >= 150_000 - (2 << 16), "{moved} bytes were moved");
}

#[test]
fn an_update_keeps_what_it_does_not_change() {
    let rig = Rig::with(WIDE, plain());
    for len in [1000, 100_000, 600_000] {
        let key = format!("key-{len}");
        let key = key.as_bytes();
        let options = options!(StoreOptions {
            metadata: "old".into(),
            grace: secs(30),
            age: secs(7),
            ..for_secs(50)
        });
        let first = rig.put(key, &body(1, len), &options).unwrap();
        rig.sleep(secs(2));
        rig.clock.advance(secs(20));
        assert_eq!(hit(&rig, key).age(rig.clock.now()), secs(27));
        let old = hit(&rig, key).lifetime();

        // Metadata alone.
        let only_metadata =
            options!(UpdateOptions { metadata: Some("new".into()), ..UpdateOptions::default() });
        let Stored::Yes(second) = update(&rig, key, &only_metadata).unwrap() else { panic!() };
        assert!(second > first);
        assert_eq!(hit(&rig, key).lifetime(), old);
        assert_eq!(hit(&rig, key).metadata(), b"new");
        assert_eq!(rig.get(key).unwrap(), body(1, len));

        // The same metadata, and a lifetime: in place.
        let revalidated =
            options!(UpdateOptions { ttl: Some(secs(100)), age: secs(3), ..only_metadata.clone() });
        rig.sleep(secs(2));
        assert_eq!(update(&rig, key, &revalidated).unwrap(), Stored::Yes(second));
        let now = rig.clock.now();
        let new = hit(&rig, key).lifetime();
        assert_eq!((new.stored_at, new.age_secs), (now, 3));
        assert_eq!((new.fresh_until, new.keep_until), (now.plus(secs(100)), now.plus(secs(130))));
        assert_eq!(hit(&rig, key).age(now.plus(secs(4))), secs(7));

        // Grace alone.
        let grace = options!(UpdateOptions { grace: Some(secs(5)), ..UpdateOptions::default() });
        assert_eq!(update(&rig, key, &grace).unwrap(), Stored::Yes(second));
        let new = hit(&rig, key).lifetime();
        assert_eq!(new.keep_until, new.fresh_until.plus(secs(5)));
        assert_eq!(rig.get(key).unwrap(), body(1, len));
        assert_eq!(hit(&rig, key).metadata(), b"new");
    }
    rig.cache().device_store().check_accounting();
}

#[test]
fn a_body_of_more_than_64_kib_is_written_again_once() {
    let mut rig = Rig::with(WIDE, plain());
    rig.put(b"key", &body(1, 200_000), &flushed()).unwrap();
    let mut written = Vec::new();
    for n in 0..3 {
        let before = rig.sim.counts().bytes_written;
        update(&rig, b"key", &with_metadata(&format!("number {n}"))).unwrap();
        rig.sleep(secs(2));
        written.push(rig.sim.counts().bytes_written - before);
        assert_eq!(rig.get(b"key").unwrap(), body(1, 200_000));
    }
    assert!(written[0] > 200_000, "{written:?}: the body becomes a slice");
    assert!(written[1..].iter().all(|bytes| *bytes < 20_000), "{written:?}: a head only");
    rig.kill();
    assert_eq!(rig.get(b"key").unwrap(), body(1, 200_000));
    assert_eq!(hit(&rig, b"key").metadata(), b"number 2");
}

#[test]
fn an_update_happens_only_to_the_version_it_is_meant_for() {
    let rig = Rig::new();
    let key = b"key";
    let update = |condition, options: &UpdateOptions| {
        rig.run(rig.cache().update(key, condition, options)).unwrap()
    };
    for options in [fresh_for(500), with_metadata("new")] {
        rig.remove(key).unwrap();
        for condition in [Condition::Always, Condition::Present, Condition::Unchanged(1)] {
            assert_eq!(update(condition, &options), Stored::Missing);
        }
        let first = rig.put(key, &body(1, 100), &for_secs(50)).unwrap();
        assert_eq!(update(Condition::Absent, &options), Stored::Exists);
        assert_eq!(update(Condition::Unchanged(first + 1), &options), Stored::Exists);
        let before = hit(&rig, key).lifetime();
        assert!(matches!(update(Condition::Unchanged(first), &options), Stored::Yes(_)));
        assert!(hit(&rig, key).lifetime().fresh_until > before.fresh_until);
        rig.clock.advance(secs(200_000));
        assert_eq!(update(Condition::Always, &options), Stored::Missing, "it has ended");
    }
}

#[test]
fn a_stale_entry_is_fresh_again_after_an_update_and_an_expired_one_is_kept_till_its_end() {
    let rig = Rig::new();
    for len in [1000, LARGE] {
        let options = options!(StoreOptions { grace: secs(100), ..for_secs(50) });
        let version = rig.put(b"key", &body(1, len), &options).unwrap();
        rig.sleep(secs(2));
        let end = hit(&rig, b"key").lifetime().keep_until;
        let expired = rig.run(rig.cache().expire(b"key", Condition::Unchanged(version))).unwrap();
        assert_eq!(expired, Stored::Yes(version));
        assert_eq!(rig.get(b"key"), None);
        assert_eq!(hit(&rig, b"key").lifetime().keep_until, end);
        rig.clock.advance(secs(120));
        assert!(rig.has_stale(b"key"));
        update(&rig, b"key", &fresh_for(50)).unwrap();
        assert_eq!(rig.get(b"key").unwrap(), body(1, len));
        rig.run(rig.cache().expire(b"key", Condition::Always)).unwrap();
        rig.clock.advance(secs(200));
        assert!(!rig.has_stale(b"key"));
        assert_eq!(
            rig.run(rig.cache().expire(b"key", Condition::Always)).unwrap(),
            Stored::Missing
        );
    }
}

#[test]
fn an_update_makes_fresh_what_a_soft_purge_covers() {
    let mut rig = Rig::new();
    for len in [1000, LARGE] {
        let options = options!(StoreOptions { tags: vec!["tag".into()], ..for_secs(500) });
        let first = rig.put(b"key", &body(1, len), &options).unwrap();
        rig.sleep(secs(2));
        rig.run(rig.cache().purge_tag("tag", Purge::Soft)).unwrap();
        assert_eq!(rig.get(b"key"), None);
        let Stored::Yes(second) = update(&rig, b"key", &fresh_for(500)).unwrap() else { panic!() };
        assert!(second > first, "with its old sequence the purge would cover it still");
        assert_eq!(rig.get(b"key").unwrap(), body(1, len));
        // Who brings no new lifetime did not validate it.
        rig.run(rig.cache().purge_tag("tag", Purge::Soft)).unwrap();
        let only_metadata = options!(UpdateOptions {
            metadata: Some(format!("of {len}").into()),
            ..UpdateOptions::default()
        });
        update(&rig, b"key", &only_metadata).unwrap();
        rig.sleep(secs(2));
        rig.kill();
        assert_eq!(rig.get(b"key"), None);
        assert_eq!(hit(&rig, b"key").metadata(), format!("of {len}").as_bytes());
        update(&rig, b"key", &fresh_for(500)).unwrap();
        assert_eq!(rig.get(b"key").unwrap(), body(1, len));
        // The tag is still its own.
        rig.run(rig.cache().purge_tag("tag", Purge::Soft)).unwrap();
        assert_eq!(rig.get(b"key"), None);
        let other = options!(UpdateOptions { tags: Some(vec!["other".into()]), ..fresh_for(500) });
        update(&rig, b"key", &other).unwrap();
        rig.run(rig.cache().purge_tag("tag", Purge::Hard)).unwrap();
        rig.sleep(secs(2));
        rig.kill();
        assert_eq!(rig.get(b"key").unwrap(), body(1, len), "it has another tag now");
        rig.run(rig.cache().purge_tag("other", Purge::Hard)).unwrap();
        assert!(!rig.has_stale(b"key"));
    }
}

#[test]
fn an_entry_of_unknown_age_is_fresh_again_only_with_a_new_lifetime() {
    for len in [1000, LARGE] {
        let mut rig = Rig::new();
        rig.put(b"key", &body(1, len), &for_secs(5000)).unwrap();
        rig.sleep(secs(2));
        // The wall clock went back: nobody knows how long it was down.
        rig.kill_and_set(WALL - 1);
        assert!(rig.get(b"key").is_none() && rig.has_stale(b"key"));
        let only_metadata =
            options!(UpdateOptions { metadata: Some("new".into()), ..UpdateOptions::default() });
        assert!(matches!(update(&rig, b"key", &only_metadata).unwrap(), Stored::Yes(_)));
        assert_eq!(rig.get(b"key"), None);
        assert_eq!(hit(&rig, b"key").metadata(), b"new");
        update(&rig, b"key", &fresh_for(500)).unwrap();
        assert_eq!(rig.get(b"key").unwrap(), body(1, len));
        rig.sleep(secs(2));
        rig.kill();
        assert!(rig.has_stale(b"key"));
    }
}

#[test]
fn an_update_that_ends_an_entry_removes_it() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, LARGE), &flushed()).unwrap();
    let over = options!(UpdateOptions { grace: Some(secs(0)), ..fresh_for(0) });
    assert!(matches!(update(&rig, b"key", &over).unwrap(), Stored::Yes(_)));
    for _ in 0..2 {
        assert!(!rig.has_stale(b"key"));
        rig.sleep(secs(2));
        rig.kill();
    }
}

#[test]
fn an_update_that_a_purge_overtakes_brings_nothing_back() {
    let rig = Rig::new();
    for len in [1000, LARGE] {
        for turns in 0..40 {
            rig.put(b"key", &body(1, len), &for_secs(500)).unwrap();
            rig.sleep(secs(2));
            let purge = async |cache: &Cache| {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                cache.remove(b"key").await.unwrap()
            };
            let options = with_metadata("new");
            let updated = rig.cache().update(b"key", Condition::Always, &options);
            rig.run(async { tokio::join!(updated, purge(rig.cache())) }).0.ok();
            assert!(!rig.has_stale(b"key"), "{len} bytes, purged after {turns} turns");
        }
    }
}

#[test]
fn a_condition_that_no_longer_holds_leaves_the_other_update() {
    let rig = Rig::new();
    let first = rig.put(b"key", &body(1, LARGE), &for_secs(500)).unwrap();
    let condition = Condition::Unchanged(first);
    let (one, two) = (with_metadata("one"), with_metadata("two"));
    let (cache, key) = (rig.cache(), b"key");
    let both = async {
        tokio::join!(cache.update(key, condition, &one), cache.update(key, condition, &two))
    };
    let (a, b) = rig.run(both);
    let done = [a.unwrap(), b.unwrap()];
    assert!(done.iter().filter(|done| matches!(done, Stored::Yes(_))).count() == 1, "{done:?}");
    assert_eq!(rig.get(key).unwrap(), body(1, LARGE));
    assert_ne!(Timestamp(0), hit(&rig, key).lifetime().stored_at);
}

#[test]
fn of_two_lifetimes_at_one_time_neither_undoes_the_other() {
    for is_on_device in [false, true] {
        let rig = Rig::with(WIDE, plain());
        rig.sim.set_delay(Delay::Sleep(millis(20)));
        for round in 0..4 {
            let key = format!("key-{round}");
            rig.put(key.as_bytes(), &body(1, 1000), &for_secs(50)).unwrap();
            if is_on_device {
                rig.sleep(secs(2));
            }
            rig.run(async {
                let (cache, key) = (rig.cache(), key.as_bytes());
                let fresh = options!(UpdateOptions { grace: Some(secs(0)), ..fresh_for(10_000) });
                let validated = cache.update(key, Condition::Always, &fresh);
                let (expired, validated) =
                    tokio::join!(cache.expire(key, Condition::Always), validated);
                assert!(matches!((expired, validated), (Ok(Stored::Yes(_)), Ok(Stored::Yes(_)))));
            });
            let lifetime = hit(&rig, key.as_bytes()).lifetime();
            let end = lifetime.keep_until.since(lifetime.stored_at);
            assert_eq!(end, secs(10_000), "what expires keeps the end that the other gave");
        }
    }
}
