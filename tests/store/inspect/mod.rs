//! Goal: `inspect`, `ls` and `check` tell what is on a device, find what is damaged, and write
//! nothing. Method: fill a store on a simulated device, end it by a stop or a crash, look at it
//! through the library and, copied to an image file, through the command line; then damage single
//! bytes.

mod explain;
mod filled;
mod snapshot;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use rawcached::cache::Condition;
use rawcached::device::{Device, OpenOptions};
use rawcached::format::{
    Footer, Kind, RegionHeader, Seed, Sequence, Superblock, Tombstone, Trailer, Uuid,
};
use rawcached::inspect::{Condition as State, Inspection, ListedState};
use rawcached::store::{FormatOptions, OpenError, Store};

use filled::*;

#[tokio::test]
async fn a_listing_is_what_lookups_would_find() {
    for crash in [false, true] {
        let filled = filled(crash).await;
        let before = contents(&filled);
        let listed = list(&filled).await;
        assert!(contents(&filled) == before, "a listing writes nothing");
        let found: BTreeMap<_, _> = listed
            .iter()
            .map(|entry| (entry.key.clone(), (entry.len, entry.fresh_until.0)))
            .collect();
        assert_eq!(found, filled.expected, "crash: {crash}");
        assert_eq!(listed.len(), found.len(), "no key twice");
        for entry in &listed {
            let state =
                if entry.key == b"short" { ListedState::Expired } else { ListedState::Fresh };
            assert_eq!(entry.state, state, "{}", entry.key.escape_ascii());
        }
        let large = listed.iter().find(|entry| entry.key == b"large").unwrap();
        assert_eq!(large.slices, u32::try_from(LARGE).unwrap().div_ceil(layout().slice_size));
        let cache = open(&filled.device, &filled.clock).await;
        for entry in &listed {
            let hit = cache.lookup(&entry.key).await.map(|hit| hit.len());
            let expected = (entry.state == ListedState::Fresh).then_some(entry.len);
            assert_eq!(hit, expected, "{}", entry.key.escape_ascii());
        }
    }
}

#[tokio::test]
async fn a_listing_ends_when_it_is_told_to() {
    let filled = filled(false).await;
    let mut left = 3;
    let each = |_| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let summary = inspection(&filled).await.list(&filled.clock, None, each).await.unwrap();
    assert_eq!(summary.listed, 3);
}

#[tokio::test]
async fn nothing_is_listed_after_a_purge_of_everything() {
    let filled = filled(false).await;
    let cache = open(&filled.device, &filled.clock).await;
    cache.purge_all(rawcached::Purge::Hard).await.unwrap();
    cache.shutdown().await.unwrap();
    assert_eq!(list(&filled).await, []);
    assert_eq!(check(&filled).await.1, []);
}

#[tokio::test]
async fn a_sound_device_passes_the_check_after_a_stop_a_crash_and_a_recovery() {
    for crash in [false, true] {
        let filled = filled(crash).await;
        let before = contents(&filled);
        let (summary, findings) = check(&filled).await;
        assert!(contents(&filled) == before, "a check writes nothing");
        assert_eq!(findings, [], "crash: {crash}");
        assert!(summary.entries > 300 && summary.tombstones >= 20, "{summary:?}");
        assert_eq!(summary.slices, 16, "{summary:?}");
        assert_eq!(summary.incomplete_objects, 0);
        // A change seals what the crash left open.
        let cache = open(&filled.device, &filled.clock).await;
        cache.remove(b"last").await.unwrap();
        cache.shutdown().await.unwrap();
        assert_eq!(check(&filled).await.1, [], "recovered, crash: {crash}");
    }
}

#[tokio::test]
async fn a_full_device_that_evicts_passes_the_check() {
    let filled = filled(false).await;
    let cache = open(&filled.device, &filled.clock).await;
    for n in 0..400 {
        let body = Bytes::from(vec![1; 60_000]);
        let key = format!("more-{n}");
        cache.put(key.as_bytes(), body, Condition::Always, &with_ttl(3600)).await.unwrap();
        if n % 7 == 0 {
            cache.lookup(b"large").await;
            cache.lookup(b"key-100").await;
        }
    }
    cache.shutdown().await.unwrap();
    assert!(cache.stats().store.counters.regions_freed > 0);
    let (summary, findings) = check(&filled).await;
    assert_eq!(findings, [], "{summary:?}");
    let listed = list(&filled).await;
    let cache = open(&filled.device, &filled.clock).await;
    for entry in &listed {
        let hit = cache.lookup(&entry.key).await.is_some();
        assert_eq!(hit, entry.state == ListedState::Fresh, "{}", entry.key.escape_ascii());
    }
}

#[tokio::test]
async fn a_survey_counts_regions_and_entries() {
    let filled = filled(true).await;
    let inspection = inspection(&filled).await;
    let mut states = Vec::new();
    let mut entries = 0;
    for region in 0..layout().region_count {
        let survey = inspection.survey(region).await.unwrap();
        assert_eq!(survey.damage, []);
        entries += survey.entries;
        states.push(survey.condition);
    }
    let count = |state| states.iter().filter(|found| **found == state).count();
    assert!(count(State::Sealed) >= 3, "{states:?}");
    assert_eq!(count(State::Unsealed), 1, "{states:?}");
    // A removed key: its tombstone is in the log of purges too.
    assert_eq!(count(State::Purges), 1, "{states:?}");
    assert_eq!(count(State::Sealed) + 2 + count(State::Blank), states.len(), "{states:?}");
    // 300 + 20 overwritten + odd, short, last + the large one's head and slices.
    assert_eq!(entries, 300 + 20 + 3 + 1 + 16);
}

#[tokio::test]
async fn a_device_formatted_again_passes_the_check() {
    let filled = filled(false).await;
    filled.clock.advance(Duration::from_secs(100));
    let options = options!(FormatOptions {
        alignment: Some(512),
        ..FormatOptions::default().with_uuid(Uuid([8; 16]))
    });
    Store::format(&filled.device.open(), &options, &filled.clock).await.unwrap();
    let (summary, findings) = check(&filled).await;
    assert_eq!((summary.entries, findings), (0, vec![]));
    let cache = open(&filled.device, &filled.clock).await;
    cache.put(b"new", Bytes::from_static(b"1"), Condition::Always, &with_ttl(60)).await.unwrap();
    cache.shutdown().await.unwrap();
    let (summary, findings) = check(&filled).await;
    assert_eq!((summary.entries, findings), (1, vec![]));
}

#[tokio::test]
async fn a_damaged_entry_is_named() {
    let filled = filled(true).await;
    let listed = list(&filled).await;
    // The first is in a sealed region, the second in the open one.
    for key in ["key-100", "key-1"] {
        let entry = listed.iter().find(|entry| entry.key == key.as_bytes()).unwrap();
        let (region, at) = (entry.region, entry.offset);
        let body = findings_of(&filled, region, at + 48 + key.len() as u64 + 3).await;
        expect_one(&body, region, at, &format!("body of entry \"{key}\": checksum mismatch"));
        let header = findings_of(&filled, region, at + 34).await;
        expect_one(&header, region, at, "entry header: checksum mismatch");
        let name = findings_of(&filled, region, at + 48).await;
        expect_one(&name, region, at, "key or metadata of an entry: checksum mismatch");
    }
    assert_eq!(check(&filled).await.1, []);
}

#[tokio::test]
async fn a_damaged_region_header_or_footer_is_named() {
    let filled = filled(true).await;
    for region in 0..layout().region_count {
        let survey = inspection(&filled).await.survey(region).await.unwrap();
        let at = layout().region_offset(region);
        let end = at + layout().region_size;
        if matches!(survey.condition, State::Sealed | State::Unsealed) {
            let header = findings_of_header(&filled, region).await;
            expect_one(&header, region, at, "region header: checksum mismatch");
        }
        if survey.condition == State::Sealed {
            let trailer = findings_of(&filled, region, end - 64 + 13).await;
            expect_one(&trailer, region, end - 64, "footer trailer: checksum mismatch");
            let len = (survey.entries * 24 + survey.tombstones * 16 + 64).next_multiple_of(512);
            let records = findings_of(&filled, region, end - len + 1).await;
            expect_one(&records, region, end - len, "footer records: checksum mismatch");
        }
    }
}

async fn findings_of_header(filled: &Filled, region: u32) -> Vec<String> {
    findings_of(filled, region, layout().region_offset(region) + 13).await
}

#[tokio::test]
async fn one_damaged_superblock_is_named_and_two_are_an_error() {
    let filled = filled(false).await;
    let second = layout().superblock_offsets()[1];
    filled.device.corrupt(second + 30, 1);
    let (summary, findings) = check(&filled).await;
    assert_eq!(
        findings[0].to_string(),
        format!("offset {second}: second superblock copy: checksum mismatch")
    );
    assert!(findings.len() == 1 && summary.entries > 300, "{summary:?}");
    filled.device.corrupt(20, 1);
    let error = Inspection::open(filled.device.open()).await.err().unwrap();
    assert!(matches!(error, OpenError::Damaged(_)), "{error}");
}

#[tokio::test]
async fn the_command_line_lists_inspects_and_checks() {
    let filled = filled(true).await;
    let image = Image::of(&filled);

    let lines = text(&image.run(&["ls"]).stdout);
    assert_eq!(lines.lines().count(), filled.expected.len() + 1, "{lines}");
    assert!(lines.lines().any(|line| line.ends_with("  odd\\\\ \\x00\\xff")), "{lines}");
    let limited = text(&image.run(&["ls", "--limit", "2", "--json"]).stdout);
    assert_eq!(limited.lines().count(), 2, "{limited}");
    let entries = text(&image.run(&["ls", "--json"]).stdout);
    let entries: Vec<serde_json::Value> =
        entries.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let large = entries.iter().find(|entry| entry["key"] == "large").unwrap();
    assert_eq!((&large["size_bytes"], &large["slices"]), (&LARGE.into(), &16.into()));
    assert_eq!((&large["state"], entries.len()), (&"fresh".into(), filled.expected.len()));

    let report = image.json(&["inspect", "--json", "-v"]);
    assert_eq!(report["superblocks"], serde_json::json!(["good", "good"]));
    assert_eq!((&report["entries"], &report["regions"]["unsealed"]), (&340.into(), &1.into()));
    assert_eq!(report["region_table"].as_array().unwrap().len(), layout().region_count as usize);
    let report = text(&image.run(&["inspect", "-v"]).stdout);
    for part in ["uuid ", "purge floor ", "regions unsealed ", "\n  region state "] {
        assert!(report.contains(part), "{part} in\n{report}");
    }

    let output = image.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let report = image.json(&["check", "--json"]);
    assert_eq!(report["entries"], 340);
    // The document of `check --json`: names may be added, never removed.
    let names = report.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(
        names,
        [
            "path",
            "regions_used",
            "regions_unused",
            "regions_snapshot",
            "snapshot",
            "snapshot_entries",
            "entries",
            "slices",
            "tombstones",
            "incomplete_objects",
            "verified_bytes",
            "superblocks_outdated",
            "damaged",
            "damages",
            "incomplete"
        ]
    );
}

#[tokio::test]
async fn the_command_line_names_damage_with_exit_code_1() {
    let filled = filled(false).await;
    let image = Image::of(&filled);
    let listed = list(&filled).await;
    let entry = listed.iter().find(|entry| entry.key == b"key-100").unwrap();
    image.corrupt(entry.offset + 60);
    let output = image.run(&["check"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let place =
        format!("region {}, offset {}: body of entry \"key-100\"", entry.region, entry.offset);
    assert!(text(&output.stdout).starts_with(&place), "{output:?}");
    let report = image.json(&["check", "--json"]);
    assert_eq!(report["damages"][0]["offset_bytes"], entry.offset, "{report}");

    image.corrupt(20);
    let report = image.json(&["inspect", "--json"]);
    assert_eq!(report["superblocks"], serde_json::json!(["checksum mismatch", "good"]));
    image.corrupt(layout().superblock_offsets()[1] + 20);
    for name in ["inspect", "ls", "check"] {
        let output = image.run(&[name]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let message = text(&output.stderr);
        assert!(message.contains("both superblock copies are damaged"), "{message}");
    }
}

#[tokio::test]
async fn a_device_in_use_is_refused() {
    let image = Image::of(&filled(false).await);
    let held = Device::open(&OpenOptions::new(image.path())).unwrap();
    for name in ["inspect", "ls", "check"] {
        let output = image.run(&[name]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let message = text(&output.stderr);
        assert!(message.contains(" is in use: open in process "), "{message}");
    }
    drop(held);
}

/// Writes a footer of other contents, with the checksums it should have, over a region's own.
fn forge_footer(filled: &Filled, region: u32, change: impl FnOnce(&mut Footer)) {
    let start = layout().region_offset(region);
    let bytes = filled.device.contents(start..start + layout().region_size);
    let header = RegionHeader::decode(&bytes, Uuid([9; 16]), region).unwrap();
    let seed = Seed::new(Uuid([9; 16]), region, header.generation);
    let trailer = Trailer::decode(&bytes, |_| seed).unwrap();
    let len = trailer.footer_len(512);
    let at = layout().region_size - len;
    let mut footer = Footer::decode(&bytes[usize::try_from(at).unwrap()..], &trailer).unwrap();
    change(&mut footer);
    let len = footer.len(512);
    let mut block = vec![0; usize::try_from(len).unwrap()];
    footer.encode_into(&mut block, (header.generation, header.log), seed, trailer.stamp);
    filled.device.overwrite(start + layout().region_size - len, &block);
}

/// What `check` says of a store with one forged footer.
async fn findings_with(region: u32, change: impl FnOnce(&mut Footer)) -> Vec<String> {
    let filled = filled(false).await;
    forge_footer(&filled, region, change);
    let (_, findings) = check(&filled).await;
    findings.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_footer_that_contradicts_the_slots_or_itself_is_named() {
    let expect = |findings: Vec<String>, what: &str| {
        assert!(findings.iter().any(|found| found.contains(what)), "{what}: {findings:#?}");
    };
    type Change = Box<dyn FnOnce(&mut Footer)>;
    let changes: [(&str, Change); 10] = [
        (
            "an entry that the footer does not name",
            Box::new(|f| {
                f.records.remove(3);
            }),
        ),
        ("differ in kind", Box::new(|f| f.records[3].kind = Kind::Head)),
        ("differ in key", Box::new(|f| f.records[3].key_hash ^= 1)),
        ("differ in whether it supersedes", Box::new(|f| f.records[3].supersedes ^= true)),
        ("differ in length", Box::new(|f| f.records[3].slot_len += 16)),
        ("differ in lifetime", Box::new(|f| f.records[3].keep_until.0 -= 1)),
        ("entries that overlap", Box::new(|f| f.records[3].slot_len += 4096)),
        ("sequences that do not rise", Box::new(|f| f.records[4].sequence = f.records[3].sequence)),
        ("tombstones, sound slots have", Box::new(|f| f.tombstones.push(TOMBSTONE))),
        ("a tombstone of a later epoch", Box::new(|f| f.tombstones.push(TOMBSTONE))),
    ];
    for (what, change) in changes {
        // A touch leaves region 0's footer behind the truth on purpose.
        let region = u32::from(what == "differ in lifetime");
        expect(findings_with(region, change).await, what);
    }
}

const TOMBSTONE: Tombstone = Tombstone { key_hash: 1, sequence: Sequence(u64::MAX) };

#[tokio::test]
async fn superblock_copies_that_disagree_are_told_apart() {
    let filled = filled(false).await;
    let second = layout().superblock_offsets()[1];
    let mut copy = Superblock::decode(&filled.device.contents(second..second + 512)).unwrap();
    copy.epoch -= 1;
    filled.device.overwrite(second, &copy.encode());
    let (summary, findings) = check(&filled).await;
    assert_eq!((summary.superblocks_outdated, findings), (1, vec![]), "no damage");
    copy.uuid = Uuid([1; 16]);
    filled.device.overwrite(second, &copy.encode());
    let (_, findings) = check(&filled).await;
    assert!(findings[0].to_string().contains("second superblock copy: of another store"));
    assert_eq!(findings.len(), 1);
}

#[tokio::test]
async fn an_object_that_lacks_slices_is_listed_and_is_no_damage() {
    let filled = filled(false).await;
    let cache = open(&filled.device, &filled.clock).await;
    // The region of its first slices goes, the head stays because it is hit.
    let mut rounds = 0;
    while cache.lookup(b"large").await.is_some() && rounds < 300 {
        let body = Bytes::from(vec![1; 60_000]);
        let key = format!("more-{rounds}");
        cache.put(key.as_bytes(), body, Condition::Always, &with_ttl(3600)).await.unwrap();
        rounds += 1;
    }
    cache.shutdown().await.unwrap();
    let (summary, findings) = check(&filled).await;
    assert_eq!(findings, []);
    let image = Image::of(&filled);
    let report = image.json(&["check", "--json"]);
    let listed = report["incomplete"].as_array().unwrap();
    assert_eq!((listed.len() as u64, summary.incomplete_objects), (1, 1), "{report}");
    assert_eq!((&listed[0]["key"], &listed[0]["slices"]), (&"large".into(), &16.into()));
    let output = image.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("object \"large\" lacks "), "{output:?}");
    let explained = image.json(&["inspect", "--key", "large", "--json"]);
    assert_eq!(
        (&explained["answer"], &explained["versions"][0]["state"]),
        (&"miss".into(), &"incomplete".into())
    );
}

#[tokio::test]
async fn objects_that_come_part_by_part_are_told_from_those_that_lost_some() {
    let filled = filled(false).await;
    let cache = open(&filled.device, &filled.clock).await;
    let validator = rawcached::Validator::etag(b"\"v\"").unwrap();
    let (len, options) = (200_000, with_ttl(3600));
    let parts = cache.declare(b"part", len, &validator, &options).await.unwrap().unwrap();
    parts.fill(0, &[7; 100_000]).await.unwrap();
    let whole = cache.declare(b"all", len, &validator, &options).await.unwrap().unwrap();
    whole.fill(0, &[7; 200_000]).await.unwrap();
    cache.shutdown().await.unwrap();
    drop((parts, whole, cache));
    let state_of = |listed: &[rawcached::inspect::Listed], key: &[u8]| {
        let entry = listed.iter().find(|entry| entry.key == key).unwrap();
        (entry.state, entry.len, entry.slices)
    };
    let listed = list(&filled).await;
    assert_eq!(state_of(&listed, b"part"), (ListedState::Partial, len, 4));
    assert_eq!(state_of(&listed, b"all"), (ListedState::Fresh, len, 4));
    let (summary, findings) = check(&filled).await;
    assert_eq!((findings, summary.incomplete_objects), (vec![], 0));
    let explained = inspection(&filled).await.explain_key(&filled.clock, b"part").await;
    assert_eq!(explained.versions[0].fate, rawcached::inspect::Fate::Partial { missing: 3 });
    let image = Image::of(&filled);
    let report = image.json(&["inspect", "--json", "--key", "part"]);
    assert_eq!(report["versions"][0]["state"], "partial");
    assert_eq!(
        report["why"],
        "the newest version comes part by part: 3 of its 4 slices are not there whole"
    );
}
