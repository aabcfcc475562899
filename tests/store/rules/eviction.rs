//! Eviction: entries that are read stay, at little cost, and others go.

use rawcached::cache::{CacheOptions, Tier};

use crate::rig::*;

/// Entries of the region that is read.
const HOT: u64 = 4;

/// Fills the first region with entries that are read in each round.
fn with_hot_region() -> Rig {
    let rig = Rig::new();
    rig.fill("hot", HOT, 100_000);
    rig.fill("next", 4, 100_000);
    rig.sleep(secs(2));
    rig
}

fn hot_hits(rig: &Rig) -> u64 {
    (0..HOT).map(|n| u64::from(rig.get(format!("hot-{n}").as_bytes()).is_some())).sum()
}

/// Stores a region's worth of entries that nobody reads.
fn cold_round(rig: &Rig, round: u64) {
    rig.fill(&format!("cold-{round}"), 4, 100_000);
    rig.sleep(millis(200));
}

#[test]
fn a_region_in_use_stays_without_being_written_again() {
    let rig = with_hot_region();
    for round in 0..60 {
        assert_eq!(hot_hits(&rig), HOT, "round {round}");
        cold_round(&rig, round);
    }
    let counters = rig.stats().store.counters;
    assert!(counters.regions_freed > 40, "{} regions freed", counters.regions_freed);
    assert!(counters.reinserted < 2 * HOT, "{} entries written again", counters.reinserted);
}

#[test]
fn a_region_goes_when_it_is_no_longer_asked_for() {
    let rig = with_hot_region();
    for round in 0..20 {
        assert_eq!(hot_hits(&rig), HOT, "round {round}");
        cold_round(&rig, round);
    }
    (20..220).for_each(|round| cold_round(&rig, round));
    assert_eq!(hot_hits(&rig), 0, "200 regions were written since they were asked for");
}

#[test]
fn what_is_asked_for_in_every_region_does_not_hold_up_stores() {
    let rig = Rig::new();
    for round in 0..40 {
        cold_round(&rig, round);
        for known in 0..=round {
            for n in 0..4 {
                rig.get(format!("cold-{known}-{n}").as_bytes());
            }
        }
    }
    let counters = rig.stats().store.counters;
    assert_eq!(counters.refused, 0);
    assert!(counters.regions_freed > 20, "{} regions freed", counters.regions_freed);
}

#[test]
fn tombstones_do_not_pile_up_behind_a_region_in_use() {
    let rig = with_hot_region();
    for round in 0..120 {
        hot_hits(&rig);
        rig.fill(&format!("cold-{round}"), 3, 100_000);
        for n in 0..150 {
            let key = format!("changed-{n}");
            rig.put(key.as_bytes(), &body(n, 50), &for_secs(100_000)).unwrap();
        }
        rig.sleep(millis(200));
    }
    let counters = rig.stats().store.counters;
    assert!(counters.regions_freed > 100, "{} regions freed", counters.regions_freed);
    let each = counters.tombstones_carried / counters.regions_freed;
    assert!(each < 300, "{each} tombstones carried for each region freed");
}

#[test]
fn what_is_written_again_stays_in_the_ram_tier() {
    let rig = Rig::with(SMALL, options!(CacheOptions { ram_bytes: 64 << 20, ..plain() }));
    rig.put(b"hot", &body(1, 1000), &for_secs(1000)).unwrap();
    rig.fill("filler", 4 * 8 - 1, 1000);
    rig.sleep(secs(2));
    let tier = || rig.run(rig.cache().lookup(b"hot")).map(|hit| hit.tier());
    assert_eq!([tier(), tier()], [Some(Tier::Disk), Some(Tier::Ram)]);
    rig.fill("more", 8, 1000);
    rig.sleep(secs(3));
    assert_eq!(rig.stats().store.counters.reinserted, 1);
    assert_eq!(rig.stats().ram_entries, 1);
    assert_eq!(tier(), Some(Tier::Ram));
    rig.fill("more", 24, 1000);
    rig.sleep(secs(3));
    assert_eq!(rig.get(b"hot"), Some(body(1, 1000).to_vec()));
}

#[test]
fn a_full_ram_tier_takes_a_large_entry_only_now_and_then() {
    let disk = Disk { regions: 64, ..SMALL };
    let rig = Rig::with(disk, options!(CacheOptions { ram_bytes: 2 << 20, ..plain() }));
    let tier = |key: &str| rig.run(rig.cache().lookup(key.as_bytes())).map(|hit| hit.tier());
    // Stores `count` entries of 60 kB, reads them twice and counts what the first time left in RAM.
    let kept = |name: &str, count: u64| -> u64 {
        rig.fill(name, count, 1000);
        rig.sleep(secs(2));
        let twice = |n: u64| {
            let key = format!("{name}-{n}");
            assert!(matches!(tier(&key), Some(Tier::Log | Tier::Disk)));
            tier(&key)
        };
        (0..count).map(|n| u64::from(twice(n) == Some(Tier::Ram))).sum()
    };
    assert_eq!(kept("first", 20), 20, "there is room for all");
    kept("filler", 40);
    let taken = kept("late", 60);
    assert!((15..=45).contains(&taken), "{taken} of 60 were taken, which is not about half");
    for (name, count) in [("first", 20), ("filler", 40), ("late", 60)] {
        for n in 0..count {
            rig.run(rig.cache().remove(format!("{name}-{n}").as_bytes())).unwrap();
        }
    }
    assert_eq!(rig.stats().ram_entries, 0);
    assert_eq!(kept("again", 20), 20, "there is room again");
}

#[test]
fn what_is_read_in_pieces_for_want_of_memory_is_taken() {
    let disk = Disk { regions: 10, region_size: 2 << 20, ..SMALL };
    let options =
        options!(CacheOptions { ram_bytes: 4 << 20, range_buffer_bytes: 1 << 10, ..plain() });
    let rig = Rig::with(disk, options);
    let large = |n: u64| (format!("large-{n}"), body(n, 200_000));
    rig.fill("filler", 90, 1000);
    for n in 0..8 {
        let (key, body) = large(n);
        rig.put(key.as_bytes(), &body, &for_secs(1000)).unwrap();
    }
    rig.sleep(secs(2));
    for n in 0..90 {
        assert!(rig.get(format!("filler-{n}").as_bytes()).is_some());
    }
    for n in 0..8 {
        let (key, body) = large(n);
        assert_eq!(rig.get(key.as_bytes()), Some(body.to_vec()));
        let again = rig.run(rig.cache().lookup(key.as_bytes())).unwrap();
        assert_eq!(again.tier(), Tier::Ram, "{key}: all of it would be read a second time");
    }
}
