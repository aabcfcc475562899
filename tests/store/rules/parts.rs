//! Objects that are stored part by part: what is there is given, what is missing is named, and all of it is of
//! one version.

use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use rawcached::cache::{
    Cache, Condition, Found, Parts, Purge, StoreError, StoreOptions, Stored, UpdateOptions,
    Validator,
};

use rawcached::device::{Effect, Fault, OperationKind};

use crate::rig::*;

const GRANULE: u64 = 64 << 10;
const WIDE: Disk = Disk { regions: 40, region_size: 1 << 20, alignment: 4096 };

fn tag(text: &str) -> Validator {
    Validator::etag(format!("\"{text}\"").as_bytes()).unwrap()
}

fn aged(age: u64) -> StoreOptions {
    options!(StoreOptions { age: secs(age), ..for_secs(100_000) })
}

fn try_declare(rig: &Rig, len: usize, validator: &str, options: &StoreOptions) -> Option<Parts> {
    let validator = tag(validator);
    rig.run(rig.cache().declare(b"key", len as u64, &validator, options)).unwrap()
}

fn declare(rig: &Rig, len: usize) -> Parts {
    try_declare(rig, len, "v", &for_secs(100_000)).unwrap()
}

/// Stores the bytes `range` of `whole`.
fn fill(rig: &Rig, parts: &Parts, whole: &[u8], range: Range<usize>) {
    rig.run(parts.fill(range.start as u64, &whole[range])).unwrap();
}

/// Stores what a lookup says is missing of the key.
fn fill_gaps(rig: &Rig, parts: &Parts, whole: &[u8]) {
    for gap in missing(rig) {
        fill(rig, parts, whole, within(&gap));
    }
}

/// What a lookup says is missing of the key.
fn missing(rig: &Rig) -> Vec<Range<u64>> {
    rig.run(missing_of(rig.cache()))
}

/// The same as pairs.
fn gaps(rig: &Rig) -> Vec<(u64, u64)> {
    missing(rig).iter().map(|gap| (gap.start, gap.end)).collect()
}

fn within(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

async fn missing_of(cache: &Cache) -> Vec<Range<u64>> {
    let hit = cache.lookup_stale_head(b"key").await.unwrap();
    hit.missing(0..hit.len()).await
}

/// The bytes of a range by a lookup, if they are there.
fn range(rig: &Rig, range: Range<u64>) -> Option<Vec<u8>> {
    rig.run(async {
        let hit = rig.cache().lookup_stale_head(b"key").await?;
        if !hit.missing(range.clone()).await.is_empty() {
            return None;
        }
        let mut reader = hit.range(range).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(chunk) = reader.next_chunk().await.unwrap() {
            bytes.extend_from_slice(&chunk);
        }
        Some(bytes)
    })
}

/// The ranges that are not in `covered`.
fn complement(covered: &[bool]) -> Vec<Range<u64>> {
    let mut gaps: Vec<Range<u64>> = Vec::new();
    for (at, _) in covered.iter().enumerate().filter(|(_, is_covered)| !**is_covered) {
        match gaps.last_mut() {
            Some(gap) if gap.end == at as u64 => gap.end += 1,
            _ => gaps.push(at as u64..at as u64 + 1),
        }
    }
    gaps
}

/// Cuts `len` bytes into ranges of about `usual` bytes, in random order.
fn cuts(rng: &mut fastrand::Rng, len: usize, usual: usize) -> Vec<Range<usize>> {
    let (mut cuts, mut at) = (Vec::new(), 0);
    while at < len {
        let end = len.min(at + rng.usize(usual / 2..usual * 3 / 2).max(1));
        cuts.push(at..end);
        at = end;
    }
    rng.shuffle(&mut cuts);
    cuts
}

#[test]
fn parts_in_any_order_by_several_writers_become_an_ordinary_object() {
    // Where all keys have one hash, the index has an entry for whatever is asked.
    for (seed, len, options) in [(1, 700_001, plain()), (2, 200_001, colliding())] {
        let mut rig = Rig::with(WIDE, options);
        let mut rng = fastrand::Rng::with_seed(seed);
        let whole = body(seed, len);
        let writers = [declare(&rig, len), declare(&rig, len)];
        assert!(writers[0].is_new() && !writers[1].is_new());
        assert_eq!(writers[0].cas(), writers[1].cas());
        let mut covered = vec![false; len];
        for (n, part) in cuts(&mut rng, len, 50_000).into_iter().enumerate() {
            assert!(rig.get(b"key").is_none(), "a part is no object");
            // Some of it once more.
            let start = part.start.saturating_sub(rng.usize(0..2_000));
            fill(&rig, &writers[n % 2], &whole, start..part.end);
            covered[start..part.end].fill(true);
            assert_eq!(missing(&rig), complement(&covered), "seed {seed}, part {n}");
            let part = part.start as u64..part.end as u64;
            let expected = &whole[within(&part)];
            assert!(range(&rig, part).unwrap() == expected);
        }
        assert!(rig.get(b"key").unwrap() == whole);
        // Of keys with one hash a start finds only one.
        if seed == 1 {
            rig.sleep(secs(2));
            rig.power_cut();
        }
        assert!(rig.get(b"key").unwrap() == whole);
        assert!(range(&rig, 65_000..66_000).unwrap() == whole[65_000..66_000]);
    }
}

#[test]
fn what_is_there_survives_each_kind_of_end() {
    for how in 0..3 {
        let mut rig = Rig::with(WIDE, plain());
        let len = 1_000_000;
        let whole = body(1, len);
        let parts = declare(&rig, len);
        for part in [0..10, 100_000..400_000, 400_010..400_020, 999_000..1_000_000] {
            fill(&rig, &parts, &whole, part);
        }
        let expected = vec![10..100_000, 400_000..400_010, 400_020..999_000];
        drop(parts);
        rig.sleep(secs(2));
        match how {
            0 => rig.restart(),
            1 => rig.kill(),
            _ => rig.power_cut(),
        }
        assert_eq!(missing(&rig), expected);
        assert!(range(&rig, 100_000..400_000).unwrap() == whole[100_000..400_000]);
        let parts = declare(&rig, len);
        assert!(!parts.is_new(), "it goes on");
        fill_gaps(&rig, &parts, &whole);
        assert!(rig.get(b"key").unwrap() == whole);
    }
}

#[test]
fn a_part_that_was_acknowledged_as_flushed_is_there_after_a_power_cut() {
    let mut rig = Rig::with(WIDE, plain());
    let whole = body(1, 500_000);
    let flushed = flushed();
    for (n, at) in [0, 100_000, 200_000, 130_000, 333_333].into_iter().enumerate() {
        let parts = try_declare(&rig, whole.len(), "v", &flushed).unwrap();
        assert_eq!(parts.is_new(), n == 0);
        // The same bytes once more, which are there and not durable yet.
        let buffered = try_declare(&rig, whole.len(), "v", &for_secs(3000)).unwrap();
        fill(&rig, &buffered, &whole, at..at + 60_000);
        fill(&rig, &parts, &whole, at..at + 60_000);
        rig.power_cut();
        assert!(range(&rig, at as u64..at as u64 + 60_000).unwrap() == whole[at..at + 60_000]);
    }
}

#[test]
fn little_more_than_the_bytes_is_written_in_any_order() {
    for usual in [4096, 10_000, 100_000, 1 << 20] {
        let rig = Rig::with(Disk { regions: 64, ..WIDE }, plain());
        let mut rng = fastrand::Rng::with_seed(7);
        let len = 8 << 20;
        let whole = body(1, len);
        let parts = declare(&rig, len);
        let mut parts_of: Vec<Range<usize>> = match usual {
            4096 => (0..len).step_by(4096).map(|at| at..at + 4096).collect(),
            _ => cuts(&mut rng, len, usual),
        };
        rng.shuffle(&mut parts_of);
        rig.sleep(secs(2));
        let before = rig.sim.counts().bytes_written;
        // As they come over a network: what is written is not for the waiting.
        for (n, part) in parts_of.into_iter().enumerate() {
            fill(&rig, &parts, &whole, part);
            if n % 64 == 0 {
                rig.sleep(millis(5));
            }
        }
        rig.sleep(secs(2));
        let written = rig.sim.counts().bytes_written - before;
        let factor = written as f64 / len as f64;
        println!("parts of about {usual} bytes: {factor:.3} bytes written for each");
        assert!(factor <= 1.1, "parts of about {usual} bytes: {factor}");
        assert!(rig.get(b"key").unwrap() == whole);
    }
}

#[test]
fn the_first_bytes_of_each_part_stay() {
    let rig = Rig::with(WIDE, plain());
    let (first, second) = (body(1, 300_000), body(2, 300_000));
    let parts = declare(&rig, first.len());
    fill(&rig, &parts, &first, 70_000..150_000);
    fill(&rig, &parts, &second, 0..300_000);
    let mut expected = second.to_vec();
    expected[70_000..150_000].copy_from_slice(&first[70_000..150_000]);
    assert!(rig.get(b"key").unwrap() == expected);
    fill(&rig, &parts, &first, 0..300_000);
    assert!(rig.get(b"key").unwrap() == expected);
}

#[test]
fn parts_of_two_versions_are_never_joined_and_the_newer_one_stays() {
    let rig = Rig::with(WIDE, plain());
    let (first, second) = (body(1, 200_000), body(2, 200_000));
    let old = try_declare(&rig, first.len(), "old", &aged(10)).unwrap();
    fill(&rig, &old, &first, 0..100_000);
    assert!(try_declare(&rig, first.len(), "older", &aged(11)).is_none());
    assert!(try_declare(&rig, first.len() + 1, "old", &aged(0)).is_none(), "another length");
    assert_eq!(gaps(&rig), [(100_000, 200_000)]);
    let new = try_declare(&rig, second.len(), "new", &aged(9)).unwrap();
    assert!(new.is_new());
    let gone = rig.run(old.fill(100_000, &first[100_000..]));
    assert!(matches!(gone, Err(StoreError::Gone)), "{gone:?}");
    assert_eq!(gaps(&rig), [(0, 200_000)], "nothing of the old one");
    fill(&rig, &new, &second, 50_000..200_000);
    assert!(try_declare(&rig, first.len(), "old", &aged(10)).is_none());
    fill(&rig, &new, &second, 0..60_000);
    assert!(rig.get(b"key").unwrap() == second);
    // A complete version is a version too.
    rig.put(b"key", &first, &aged(5)).unwrap();
    assert!(try_declare(&rig, second.len(), "new", &aged(9)).is_none());
    assert!(rig.get(b"key").unwrap() == first);
    // Dates that are strong validators do as well.
    let modified = Validator::last_modified(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(60));
    let (modified, options) = (modified.unwrap(), aged(0));
    let parts = rig.run(rig.cache().declare(b"key", 10, &modified, &options)).unwrap().unwrap();
    fill(&rig, &parts, b"0123456789", 0..10);
    assert_eq!(rig.get(b"key").unwrap(), b"0123456789");
}

#[test]
fn a_part_that_is_evicted_is_a_hole_that_can_be_filled_again() {
    let mut rig = Rig::new();
    let len = 600_000;
    let whole = body(1, len);
    let parts = declare(&rig, len);
    fill(&rig, &parts, &whole, 0..len);
    assert!(rig.get(b"key").unwrap() == whole);
    let mut holes = Vec::new();
    for round in 0..200 {
        // The head and the beginning are in use.
        drop(range(&rig, 0..GRANULE));
        rig.fill(&format!("filler-{round}"), 2, 100_000);
        rig.sleep(millis(500));
        holes = missing(&rig);
        if !holes.is_empty() {
            break;
        }
    }
    let is_all = holes.iter().any(|hole| hole.end - hole.start == len as u64);
    assert!(!holes.is_empty() && !is_all, "a hole, not a loss: {holes:?}");
    assert!(rig.get(b"key").is_none());
    rig.kill();
    let parts = declare(&rig, len);
    assert!(!parts.is_new());
    fill_gaps(&rig, &parts, &whole);
    assert!(rig.get(b"key").unwrap() == whole);
}

#[test]
fn small_pieces_are_joined_when_there_are_many() {
    let mut rig = Rig::with(WIDE, plain());
    let len = 200_000;
    let whole = body(1, len);
    let parts = declare(&rig, len);
    // Neither of the first granules is whole before the last piece of 1000 bytes.
    for at in (0..len).step_by(1000) {
        fill(&rig, &parts, &whole, at..at + 1000);
    }
    assert!(rig.get(b"key").unwrap() == whole);
    rig.sleep(secs(2));
    rig.kill();
    assert!(rig.get(b"key").unwrap() == whole);
    rig.run(rig.cache().remove(b"key")).unwrap();
    let parts = declare(&rig, len);
    let apart = |n: usize| n * 3000..n * 3000 + 1000;
    (0..16).for_each(|n| fill(&rig, &parts, &whole, apart(n)));
    let one_more = rig.run(parts.fill(50_000, &whole[50_000..50_001]));
    assert!(matches!(one_more, Err(StoreError::Fragmented)), "{one_more:?}");
    // What joins two of them makes room.
    fill(&rig, &parts, &whole, 1000..3000);
    fill(&rig, &parts, &whole, 50_000..50_001);
    assert!(range(&rig, 0..4000).unwrap() == whole[..4000]);
    let all = rig.run(parts.fill(0, &whole));
    assert!(matches!(all, Ok(()) | Err(StoreError::Fragmented)));
    fill_gaps(&rig, &parts, &whole);
    assert!(rig.get(b"key").unwrap() == whole);
}

#[test]
fn every_hard_purge_prevails_over_parts_under_way() {
    let whole = body(1, 200_000);
    for how in 0..4 {
        let mut rig = Rig::with(WIDE, plain());
        let tagged =
            options!(StoreOptions { tags: vec![b"tag".as_slice().into()], ..for_secs(100_000) });
        let parts = try_declare(&rig, whole.len(), "v", &tagged).unwrap();
        fill(&rig, &parts, &whole, 0..100_000);
        rig.run(async {
            let cache = rig.cache();
            match how {
                0 => drop(cache.remove(b"key").await.unwrap()),
                1 => cache.purge_tag(b"tag", Purge::Hard).await.unwrap(),
                2 => cache.purge_prefix(b"ke", Purge::Hard).await.unwrap(),
                _ => cache.purge_all(Purge::Hard).await.unwrap(),
            }
        });
        let late = rig.run(parts.fill(100_000, &whole[100_000..]));
        assert!(matches!(late, Err(StoreError::Purged | StoreError::Gone)), "{how}: {late:?}");
        assert!(rig.run(rig.cache().lookup_stale_head(b"key")).is_none());
        let again = declare(&rig, whole.len());
        assert!(again.is_new());
        assert_eq!(gaps(&rig), [(0, 200_000)], "nothing of before the purge");
        fill(&rig, &again, &whole, 0..10);
        rig.sleep(secs(2));
        rig.kill();
        assert_eq!(gaps(&rig), [(10, 200_000)]);
    }
}

#[test]
fn a_soft_purge_makes_parts_stale_until_an_update_validates_them() {
    let mut rig = Rig::with(WIDE, plain());
    let whole = body(1, 200_000);
    let parts = declare(&rig, whole.len());
    fill(&rig, &parts, &whole, 0..100_000);
    rig.run(rig.cache().purge_prefix(b"k", Purge::Soft)).unwrap();
    fill(&rig, &parts, &whole, 150_000..200_000);
    for _ in 0..2 {
        assert!(rig.run(rig.cache().lookup_head(b"key")).is_none());
        assert_eq!(gaps(&rig), [(100_000, 150_000)]);
        rig.sleep(secs(2));
        rig.kill();
    }
    let validated = options!(UpdateOptions { ttl: Some(secs(1000)), ..UpdateOptions::default() });
    let updated = rig.run(rig.cache().update(b"key", Condition::Always, &validated)).unwrap();
    assert!(matches!(updated, Stored::Yes(_)), "an incomplete object can be validated");
    assert!(rig.run(rig.cache().lookup_head(b"key")).is_some());
    let parts = declare(&rig, whole.len());
    assert!(!parts.is_new(), "the new head is of the same parts");
    fill(&rig, &parts, &whole, 100_000..150_000);
    assert!(rig.get(b"key").unwrap() == whole);
}

#[test]
fn a_purge_between_lease_and_part_prevails() {
    let rig = Rig::with(WIDE, plain());
    let whole = body(1, 200_000);
    rig.run(async {
        let cache = rig.cache();
        for how in 0..2 {
            let Found::Lease(lease) = cache.lookup_or_fill(b"key", secs(1)).await else { panic!() };
            if how == 0 {
                cache.remove(b"key").await.unwrap();
                let late = lease.declare(200_000, &tag("v"), &for_secs(1000)).await;
                assert!(matches!(late, Err(StoreError::Purged)), "{late:?}");
                continue;
            }
            let parts = lease.declare(200_000, &tag("v"), &for_secs(1000)).await.unwrap().unwrap();
            parts.fill(0, &whole[..10]).await.unwrap();
            cache.remove(b"key").await.unwrap();
            let late = parts.fill(10, &whole[10..20]).await;
            assert!(matches!(late, Err(StoreError::Purged)), "{late:?}");
        }
    });
}

#[test]
fn a_writer_leaves_the_granules_that_came_whole() {
    let rig = Rig::with(WIDE, plain());
    let whole = body(1, 300_000);
    let parts = declare(&rig, whole.len());
    rig.run(async {
        let mut writer = parts.writer(0);
        for chunk in whole[..150_000].chunks(777) {
            writer.write_chunk(chunk).await.unwrap();
        }
        drop(writer);
        let mut writer = parts.writer(200_000);
        for chunk in whole[200_000..].chunks(777) {
            writer.write_chunk(chunk).await.unwrap();
        }
        writer.finish().await.unwrap();
        let mut beyond = parts.writer(299_999);
        let refused = beyond.write_chunk(b"ab").await;
        assert!(matches!(refused, Err(StoreError::Range { len: 300_000 })), "{refused:?}");
    });
    assert_eq!(gaps(&rig), [(2 * GRANULE, 200_000)]);
}

#[test]
fn damage_in_a_part_is_a_hole() {
    let rig = Rig::with(WIDE, plain());
    let whole = body(1, 300_000);
    let parts = declare(&rig, whole.len());
    fill(&rig, &parts, &whole, 0..300_000);
    rig.sleep(secs(2));
    let at = rig.find(&whole[within(&(2 * GRANULE..3 * GRANULE))][100..164]);
    rig.sim.overwrite(at, b"damage");
    // The header is sound: the damage is found as the bytes are read.
    assert!(rig.get(b"key").is_none());
    assert_eq!(gaps(&rig), [(2 * GRANULE, 3 * GRANULE)]);
    fill(&rig, &parts, &whole, 0..300_000);
    assert!(rig.get(b"key").unwrap() == whole);
}

#[test]
fn an_object_of_no_bytes_is_complete_as_it_is_declared() {
    let mut rig = Rig::with(WIDE, plain());
    declare(&rig, 0);
    assert_eq!(rig.get(b"key").unwrap(), b"");
    rig.sleep(secs(2));
    rig.kill();
    assert_eq!(rig.get(b"key").unwrap(), b"");
}

#[test]
fn a_writer_that_lost_a_chunk_stores_nothing_more() {
    let rig = Rig::with(WIDE, plain());
    let whole = body(1, 300_000);
    let parts = declare(&rig, whole.len());
    rig.run(async {
        rig.cache().remove(b"key").await.unwrap();
        let mut writer = parts.writer(0);
        let lost = writer.write_chunk(&whole[..100_000]).await;
        assert!(matches!(lost, Err(StoreError::Purged)), "{lost:?}");
        let next = writer.write_chunk(&whole[100_000..]).await;
        assert!(matches!(next, Err(StoreError::Incomplete)), "its place is not known: {next:?}");
        assert!(matches!(writer.finish().await, Err(StoreError::Incomplete)));
    });
}

#[test]
fn what_a_failed_flush_lost_is_stored_again() {
    let mut rig = Rig::with(WIDE, plain());
    let whole = body(1, 300_000);
    let parts = try_declare(&rig, whole.len(), "v", &flushed()).unwrap();
    fill(&rig, &parts, &whole, 0..10);
    rig.sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Flush));
    let lost = rig.run(parts.fill(0, &whole[..200_000]));
    assert!(lost.is_err(), "a flush failed");
    rig.sleep(secs(20));
    // What can still be read, the head too, is not known to be durable.
    let parts = try_declare(&rig, whole.len(), "v", &flushed()).unwrap();
    rig.run(parts.fill(0, &whole[..200_000])).unwrap();
    rig.power_cut();
    assert!(range(&rig, 0..200_000).unwrap() == whole[..200_000]);
}

/// Only what a failed write puts in doubt is written again.
#[test]
fn a_head_of_unknown_age_is_not_fresh_because_it_is_written_again() {
    let mut rig = Rig::with(WIDE, plain());
    let whole = body(1, 300_000);
    let parts = try_declare(&rig, whole.len(), "v", &flushed()).unwrap();
    fill(&rig, &parts, &whole, 0..whole.len());
    drop(parts);
    // The wall clock went back: nobody knows how long it was down.
    rig.kill_and_set(WALL - 1);
    assert!(rig.get(b"key").is_none() && rig.has_stale(b"key"));
    rig.sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Flush));
    assert!(rig.put(b"other", &body(2, 100), &flushed()).is_err(), "a flush failed");
    rig.sleep(secs(20));
    let written = rig.stats().store.counters.declared;
    let parts = try_declare(&rig, whole.len(), "v", &flushed()).unwrap();
    assert!(!parts.is_new() && rig.stats().store.counters.declared == written);
    assert!(rig.get(b"key").is_none() && rig.has_stale(b"key"));
}

#[test]
fn a_purge_by_tag_between_lease_and_going_on_prevails() {
    let rig = Rig::with(WIDE, plain());
    let tagged =
        options!(StoreOptions { tags: vec![b"tag".as_slice().into()], ..for_secs(100_000) });
    rig.run(async {
        let cache = rig.cache();
        let Found::Lease(lease) = cache.lookup_or_fill(b"key", secs(1)).await else { panic!() };
        cache.purge_tag(b"tag", Purge::Hard).await.unwrap();
        // Somebody who asked after the purge.
        let parts = cache.declare(b"key", 1000, &tag("v"), &tagged).await.unwrap().unwrap();
        let late = lease.declare(1000, &tag("v"), &tagged).await;
        assert!(matches!(late, Err(StoreError::Purged)), "{late:?}");
        parts.fill(0, &[7; 1000]).await.unwrap();
    });
    assert_eq!(rig.get(b"key").unwrap(), [7; 1000]);
}

#[test]
fn a_declaration_waits_for_what_recovery_finds() {
    let mut rig = Rig::with(WIDE, plain());
    let whole = body(1, 300_000);
    let parts = declare(&rig, whole.len());
    fill(&rig, &parts, &whole, 0..100_000);
    drop(parts);
    rig.sleep(secs(2));
    rig.stop();
    rig.begin().unwrap();
    let parts = declare(&rig, whole.len());
    assert!(!parts.is_new(), "it goes on with what was there");
    assert_eq!(gaps(&rig), [(100_000, 300_000)]);
}

#[test]
fn what_is_missing_is_bounded() {
    let rig = Rig::with(Disk { regions: 400, ..WIDE }, plain());
    let len = 160 << 20;
    let parts = declare(&rig, len);
    rig.run(async {
        for n in 0..1100u64 {
            parts.fill((n + 10) * 2 * 64_000, &[7; 64]).await.unwrap();
        }
    });
    let missing = missing(&rig);
    assert_eq!(missing.len(), 1000);
    assert_eq!(missing.last().unwrap().end, len as u64);
}

#[test]
fn what_a_start_finds_of_joined_pieces_hides_nothing_that_came_later() {
    let mut rig = Rig::with(WIDE, plain());
    let whole = body(1, 65_536);
    let parts = try_declare(&rig, whole.len(), "v", &flushed()).unwrap();
    let apart = |n: usize| n * 3000..n * 3000 + 1000;
    (0..16).for_each(|n| fill(&rig, &parts, &whole, apart(n)));
    drop(parts);
    let mut covered = vec![false; whole.len()];
    (0..16).for_each(|n| covered[apart(n)].fill(true));
    // Each joins two of them, and the start after it finds these again.
    for n in 0..15 {
        let parts = try_declare(&rig, whole.len(), "v", &flushed()).unwrap();
        let between = apart(n).end..apart(n + 1).start;
        let more = 48_000 + n * 1000..48_500 + n * 1000;
        fill(&rig, &parts, &whole, between.clone());
        covered[between].fill(true);
        match rig.run(parts.fill(more.start as u64, &whole[more.clone()])) {
            Ok(()) => covered[more].fill(true),
            Err(StoreError::Fragmented) => {}
            Err(error) => panic!("{error}"),
        }
        drop(parts);
        rig.power_cut();
        let expected: Vec<(u64, u64)> =
            complement(&covered).iter().map(|gap| (gap.start, gap.end)).collect();
        assert_eq!(gaps(&rig), expected, "after {n} joins");
    }
    let parts = declare(&rig, whole.len());
    fill_gaps(&rig, &parts, &whole);
    assert!(rig.get(b"key").unwrap() == whole);
}

#[test]
fn after_a_failed_flush_nothing_that_is_acknowledged_is_lost() {
    let mut rig = Rig::with(WIDE, plain());
    let whole = body(1, 300_000);
    let parts = try_declare(&rig, whole.len(), "v", &flushed()).unwrap();
    rig.sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Flush));
    assert!(rig.run(parts.fill(0, &whole)).is_err(), "a flush failed");
    rig.sleep(secs(20));
    let late = rig.run(parts.fill(0, &whole[..10]));
    assert!(matches!(late, Err(StoreError::NotDurable)), "the head may be lost too: {late:?}");
    let parts = try_declare(&rig, whole.len(), "v", &flushed()).unwrap();
    assert!(!parts.is_new());
    for n in 0..40 {
        // Much of it again and again: the index does not grow with it.
        fill(&rig, &parts, &whole, 100..200);
        fill(&rig, &parts, &whole, n * 1000..n * 1000 + 1000);
        fill(&rig, &parts, &whole, 65_536..2 * 65_536);
    }
    assert!(rig.stats().store.entries < 80, "{} entries", rig.stats().store.entries);
    rig.power_cut();
    for n in 0..40 {
        let part = n * 1000..n * 1000 + 1000;
        assert!(range(&rig, part.start as u64..part.end as u64).unwrap() == whole[part]);
    }
    assert!(range(&rig, 65_536..2 * 65_536).unwrap() == whole[65_536..2 * 65_536]);
}
