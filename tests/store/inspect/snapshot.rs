//! The index snapshot: what `check` and `inspect` say of a sound one, a damaged one, one that a
//! change has ended and one whose writing was cut off; the next start must agree.

use std::mem::discriminant;
use std::time::Duration;

use bytes::Bytes;
use rawcached::cache::{Ack, Condition, StoreOptions};
use rawcached::clock::{Clock, Timestamp};
use rawcached::device::{Effect, Fault, OperationKind, SimDevice};
use rawcached::format::{
    REGION_HEADER_LEN, RegionHeader, RegionUse, SNAPSHOT_DIRECTORY_LEN, Seed, SnapshotDirectory,
    SnapshotPart, SnapshotPiece, Uuid,
};
use rawcached::inspect::{CheckEvent, Condition as State, Inspection, SnapshotState};

use super::filled::*;
use crate::fill::Fill;

const COST: &str = "; nothing is lost, the next start reads footers and is slower";
/// Where the directory stands in a region of the device.
const DIRECTORY: u64 = 512;

/// The region of a snapshot in one part: which, its seed, where it begins, and its directory.
fn part(filled: &Filled) -> (u32, Seed, u64, SnapshotDirectory) {
    let uuid = Uuid([9; 16]);
    let mut parts = (0..layout().region_count).filter_map(|region| {
        let start = layout().region_offset(region);
        let header = filled.device.contents(start..start + REGION_HEADER_LEN as u64);
        let header = RegionHeader::decode(&header, uuid, region).ok()?;
        let seed = Seed::new(uuid, region, header.generation);
        let at = start + DIRECTORY;
        let bytes = filled.device.contents(at..at + SNAPSHOT_DIRECTORY_LEN as u64);
        (header.region_use == RegionUse::Snapshot)
            .then(|| (region, seed, start, SnapshotDirectory::decode(&bytes, seed).unwrap()))
    });
    let part = parts.next().unwrap();
    assert!(parts.next().is_none());
    part
}

#[tokio::test]
async fn a_sound_snapshot_is_verified_and_shown() {
    let filled = filled(false).await;
    let (region, _, start, directory) = part(&filled);
    let (summary, findings) = check(&filled).await;
    assert_eq!((summary.snapshot, findings), (SnapshotState::Sound, vec![]));
    let regions = summary.regions_used + summary.regions_unused + summary.regions_snapshot;
    assert_eq!((regions, summary.regions_snapshot), (layout().region_count.into(), 1));
    let cache = open(&filled.device, &filled.clock).await;
    assert_eq!(cache.stats().store.counters.snapshots_loaded, 1);
    assert_eq!(summary.snapshot_entries, cache.stats().store.entries);
    cache.shutdown().await.unwrap();

    let inspection = inspection(&filled).await;
    let explained = inspection.explain_region(&filled.clock, region).await.unwrap();
    let shown = explained.snapshot.unwrap();
    assert_eq!((shown.part, shown.part_count, shown.pieces), (0, 1, directory.pieces.len()));
    assert_eq!(explained.survey.condition, State::Snapshot);
    let image = Image::of(&filled);
    let report = image.json(&["check", "--json"]);
    assert_eq!((&report["snapshot"], &report["regions_snapshot"]), (&"sound".into(), &1.into()));
    let report = image.json(&["inspect", "--json", "-v"]);
    assert_eq!(report["regions"]["snapshot"], 1);
    assert_eq!(report["region_table"][region as usize]["state"], "snapshot");
    let name = region.to_string();
    let report = image.json(&["inspect", "--region", &name, "--json"]);
    assert_eq!(report["snapshot"]["pieces"], directory.pieces.len());
    let lines = text(&image.run(&["inspect", "--region", &name]).stdout);
    for part in ["state                  snapshot", "snapshot parts         1", "\nHSSSSS"] {
        assert!(lines.contains(part), "{part} in\n{lines}");
    }
    image.corrupt(start + directory.pieces[7].offset);
    let output = image.run(&["check"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).contains(COST), "{output:?}");
    let output = image.run(&["inspect", "--region", &name]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).contains("\nHSSS!S"), "{output:?}");
}

#[tokio::test]
async fn every_damaged_part_of_a_snapshot_is_named_with_what_it_costs() {
    let filled = filled(false).await;
    let (region, _, start, directory) = part(&filled);
    let at = start + DIRECTORY;
    let end = SNAPSHOT_DIRECTORY_LEN as u64 - 1;
    for (offset, damage) in
        [(3, "no magic number"), (13, "checksum"), (30, "checksum"), (end, "checksum")]
    {
        let found = findings_of(&filled, region, at + offset).await;
        let what = format!("index snapshot, directory: {damage}");
        expect_one(&found, region, at, &what);
        assert!(found[0].ends_with(COST), "{found:?}");
    }
    for piece in directory.pieces.iter().step_by(16) {
        let at = start + piece.offset;
        for offset in [0, u64::from(piece.len) - 1] {
            let found = findings_of(&filled, region, at + offset).await;
            expect_one(&found, region, at, "index snapshot, piece: checksum mismatch; nothing");
        }
    }
    let last = directory.pieces.last().unwrap();
    assert_eq!(last.of, SnapshotPart::Regions);
    let table = findings_of(&filled, region, start + last.offset + 5).await;
    expect_one(&table, region, start + last.offset, "index snapshot, piece: checksum mismatch");
    let header = findings_of(&filled, region, start + 13).await;
    expect_one(&header, region, start, "region header: checksum mismatch");
    filled.device.corrupt(at + 13, 1);
    assert_eq!(check(&filled).await.0.snapshot, SnapshotState::Damaged);
    let inspection = inspection(&filled).await;
    assert_eq!(inspection.survey(region).await.unwrap().condition, State::Damaged);
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_is_damaged() {
    let filled = filled(false).await;
    let (region, _, start, directory) = part(&filled);
    for offset in [DIRECTORY, directory.pieces[9].offset] {
        let at = start + offset;
        let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
        filled.device.inject(fault.within(at..at + 1).always());
        let (summary, findings) = check(&filled).await;
        assert_eq!(summary.snapshot, SnapshotState::Damaged);
        // Several pieces may stand in one block.
        assert!(!findings.is_empty());
        for found in &findings {
            assert_eq!(found.region, Some(region));
            assert!(found.what.contains("Input/output error") && found.what.ends_with(COST));
        }
        filled.device.clear_faults();
    }
}

#[tokio::test]
async fn a_snapshot_that_a_change_ended_is_left_over_and_cannot_be_damaged() {
    let filled = filled(false).await;
    let (region, _, start, directory) = part(&filled);
    let cache = open(&filled.device, &filled.clock).await;
    // Writes superblocks only: the region is not used again.
    cache.purge_all(rawcached::Purge::Hard).await.unwrap();
    filled.device.kill();
    for offset in [None, Some(DIRECTORY + 30), Some(directory.pieces[3].offset)] {
        if let Some(offset) = offset {
            filled.device.corrupt(start + offset, 1);
        }
        let (summary, findings) = check(&filled).await;
        assert_eq!((summary.snapshot, findings), (SnapshotState::Outdated, vec![]));
        assert_eq!(summary.regions_snapshot, 0);
        let survey = inspection(&filled).await.survey(region).await.unwrap();
        assert_eq!((survey.condition, survey.damage), (State::OldSnapshot, vec![]));
    }
    let image = Image::of(&filled);
    assert_eq!(image.json(&["check", "--json"])["snapshot"], "outdated");
    assert_eq!(image.json(&["inspect", "--json"])["regions"]["old_snapshot"], 1);
    let lines = text(&image.run(&["inspect", "-v"]).stdout);
    assert!(lines.contains(&format!("{region:>8} old snapshot ")), "{lines}");
}

/// Writes other bytes over the longest piece of a kind, with the checksums they should have.
fn forge(filled: &Filled, of: SnapshotPart, change: impl Fn(&mut [u8])) {
    let (_, seed, start, mut directory) = part(filled);
    let same_kind = |piece: &&mut SnapshotPiece| discriminant(&piece.of) == discriminant(&of);
    let pieces = directory.pieces.iter_mut().filter(same_kind);
    let piece = pieces.max_by_key(|piece| piece.len).unwrap();
    let at = start + piece.offset;
    let mut bytes = filled.device.contents(at..at + u64::from(piece.len));
    change(&mut bytes);
    filled.device.overwrite(at, &bytes);
    *piece = SnapshotPiece::new(piece.of, seed, piece.offset, &bytes);
    filled.device.overwrite(start + DIRECTORY, &directory.encode(seed));
}

#[tokio::test]
async fn a_snapshot_that_contradicts_the_regions_or_itself_is_named() {
    type Change = fn(&mut [u8]);
    let rows = SnapshotPart::Regions;
    let wrong: [(SnapshotPart, Change, &str); 7] = [
        (rows, |rows| rows[32 + 28] = 0, "region table: region 1 is not what it was"),
        (rows, |rows| rows[0] ^= 1, "region table: region 0 is not what it was"),
        (rows, |rows| rows[32 + 29] ^= 1, "region table: region 1 is not what it was"),
        (rows, |rows| rows[28] = 7, "region table: impossible row"),
        (rows, |rows| rows[8] ^= 16, "region table: it and the index differ in the bytes alive"),
        (SnapshotPart::Shards(0), |shard| shard[0] += 1, "shards of group "),
        (
            SnapshotPart::Shards(0),
            |dumps| point_behind_the_end(dumps),
            "an index entry points into",
        ),
    ];
    for (of, change, what) in wrong {
        let filled = filled(false).await;
        forge(&filled, of, change);
        let (summary, findings) = check(&filled).await;
        let named = findings.iter().any(|found| found.what.contains(what));
        assert!(named && summary.snapshot == SnapshotState::Damaged, "{what}: {findings:#?}");
        assert!(findings.iter().all(|found| found.what.ends_with(COST)), "{findings:#?}");
        let cache = open(&filled.device, &filled.clock).await;
        assert_eq!(cache.stats().store.counters.snapshots_refused, 1, "{what}");
        cache.shutdown().await.unwrap();
    }
}

/// Makes the first entry in the dumps of a group point to a region that the device does not have.
fn point_behind_the_end(mut dumps: &mut [u8]) {
    loop {
        let count = u32::from_le_bytes(dumps[..4].try_into().unwrap()) as usize;
        if count > 0 {
            // 40 bits of place.
            dumps[4 + 3] = 0xff;
            return;
        }
        dumps = &mut dumps[4..];
    }
}

const MANY: u64 = 30_000;

/// A device whose index takes more than one region, with a last change that is durable.
async fn large() -> Filled {
    let clock = Clock::manual(Timestamp(1_000_000));
    let device = SimDevice::new((40 << 18) + (128 << 10), 4096);
    let fill = Fill {
        entries: MANY,
        body_len: 8,
        region_size: Some(256 << 10),
        alignment: 4096,
        time: clock.pair(),
        keep_until: clock.now().plus(Duration::from_secs(1000)),
    };
    fill.write(&device.open()).await.unwrap();
    Filled { device, clock, expected: Default::default() }
}

async fn state_of(filled: &Filled) -> (SnapshotState, u64) {
    let inspection = Inspection::open(filled.device.open()).await.unwrap();
    let summary = inspection.check(|_: CheckEvent<'_>| std::ops::ControlFlow::Continue(())).await;
    (summary.snapshot, summary.snapshot_entries)
}

#[tokio::test]
async fn what_check_says_of_a_stop_that_was_cut_off_is_what_the_next_start_does() {
    let mut seen = Vec::new();
    for flush in 1..4 {
        for seed in 0..8 {
            let filled = large().await;
            let cache = open(&filled.device, &filled.clock).await;
            let flushed = options!(StoreOptions { ack: Some(Ack::Flushed), ..with_ttl(60) });
            let body = Bytes::from_static(b"1");
            cache.put(b"new", body, Condition::Always, &flushed).await.unwrap();
            let lost = Fault::new(Effect::Lost).on(OperationKind::Flush);
            filled.device.inject(lost.after(flush).always());
            cache.shutdown().await.unwrap();
            filled.device.power_cut(seed);
            filled.device.clear_faults();
            let (state, words) = state_of(&filled).await;
            let (loaded, refused) = starts(&filled).await;
            let expected = u64::from(state == SnapshotState::Sound);
            assert_eq!(loaded, expected, "flush {flush}, seed {seed}: {state:?}");
            // A start ignores a snapshot without a whole directory.
            assert!(state != SnapshotState::Unfinished || refused == 1, "seed {seed}");
            assert!(state != SnapshotState::None || refused == 0, "seed {seed}");
            assert!(state != SnapshotState::Sound || words == MANY + 1);
            seen.push(state);
        }
    }
    println!("{seen:?}");
    for state in [SnapshotState::Sound, SnapshotState::Damaged, SnapshotState::Unfinished] {
        assert!(seen.contains(&state), "{state:?} never came: {seen:?}");
    }
}

/// Snapshots loaded and refused by the next start.
async fn starts(filled: &Filled) -> (u64, u64) {
    let store = open(&filled.device, &filled.clock).await;
    let counters = store.stats().store.counters;
    (counters.snapshots_loaded, counters.snapshots_refused)
}
