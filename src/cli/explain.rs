//! `inspect --key` and `inspect --region`: an entry or a region, explained. Owns the wording and the
//! field names of `--json`.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::report::Damaged;
use super::{offline, output};
use crate::clock::{Clock, TimePair, Timestamp, date};
use crate::format::{EntryHeader, Kind, Layout, SnapshotDirectory};
use crate::inspect::{
    Condition, Explained, ExplainedKey, ExplainedRegion, Fate, Filling, Inspection, Share,
};

/// Pages of the map in one line.
const MAP_LINE: usize = 64;

/// What the device holds of a key.
#[derive(Debug, Serialize)]
struct KeyReport {
    /// The key as `ls` writes it.
    key: String,
    /// Its hash on this device.
    key_hash: String,
    /// What a lookup would answer now: `hit`, `stale` or `miss`.
    answer: &'static str,
    /// Why, in a sentence.
    why: String,
    /// Every version, the newest first.
    versions: Vec<VersionReport>,
    /// Tombstones of the key in regions.
    tombstones: Vec<TombstoneReport>,
    /// Entries of other keys with the same hash.
    collisions: u64,
    /// Regions that could not be read.
    unreadable_regions: u64,
}

/// One version of a key.
#[derive(Debug, Serialize)]
struct VersionReport {
    state: &'static str,
    why: String,
    region: u32,
    offset_bytes: u64,
    slot_bytes: u64,
    sequence: u64,
    epoch: u32,
    /// This and the rest are null if the slot is damaged.
    kind: Option<&'static str>,
    size_bytes: Option<u64>,
    slices: Option<u32>,
    metadata_bytes: Option<u32>,
    stored_at: Option<String>,
    fresh_until: Option<String>,
    keep_until: Option<String>,
    ttl_left_seconds: Option<u64>,
    keep_left_seconds: Option<u64>,
    checksums: String,
    supersedes: Option<bool>,
}

/// One tombstone.
#[derive(Debug, Serialize)]
struct TombstoneReport {
    region: u32,
    sequence: u64,
}

/// A region in full.
#[derive(Debug, Serialize)]
struct RegionReport {
    region: u32,
    state: &'static str,
    offset_bytes: u64,
    size_bytes: u64,
    generation: u64,
    epoch: u32,
    /// Null if no time is stored in the region.
    newest_time: Option<String>,
    last_expiry: Option<String>,
    touched: bool,
    footer_offset_bytes: Option<u64>,
    tombstones: u64,
    /// Null if the region is no part of the index snapshot that the next start reads.
    snapshot: Option<SnapshotReport>,
    objects: ShareReport,
    heads: ShareReport,
    slices: ShareReport,
    tombstone_slots: ShareReport,
    live: ShareReport,
    dead: ShareReport,
    expired: ShareReport,
    unused_bytes: u64,
    damaged: Vec<Damaged>,
    page_bytes: u64,
    /// One letter a page; see [`LEGEND`].
    map: Vec<String>,
}

/// A region's part of the index snapshot.
#[derive(Debug, Serialize)]
struct SnapshotReport {
    part: u32,
    parts: u32,
    pieces: usize,
    pieces_bytes: u64,
    written: String,
}

/// How many, and their bytes.
#[derive(Debug, Serialize)]
struct ShareReport {
    count: u64,
    bytes: u64,
}

const LEGEND: &str =
    "H header  # live  - dead or expired  t tombstones  S snapshot  ! damaged  F footer  . unused";

/// Explains a key; false if a lookup would miss.
pub fn key(path: &Path, text: &str, json: bool) -> anyhow::Result<bool> {
    let key = unescaped(text).context("--key: write \\xNN for a byte and \\\\ for a backslash")?;
    ensure!(!key.is_empty(), "--key: a key has at least one byte");
    let clock = Clock::system();
    let (explained, time) = offline::on_runtime(async {
        let inspection: Inspection = offline::open(path).await?;
        let explained = inspection.explain_key(&clock, &key).await;
        Ok((explained, inspection.superblocks().best.time))
    })?;
    let report = key_report(offline::escaped(&key), &explained, time.at(clock.now()));
    if json {
        output::print_json(&report)?;
    } else {
        output::print(&key_text(&report)?)?;
    }
    Ok(explained.is_hit())
}

/// Explains a region; false if it is damaged.
pub fn region(path: &Path, region: u32, json: bool) -> anyhow::Result<bool> {
    let clock = Clock::system();
    let (explained, layout, time) = offline::on_runtime(async {
        let inspection: Inspection = offline::open(path).await?;
        let last = inspection.layout().region_count - 1;
        ensure!(region <= last, "--region {region}: the device has regions 0 to {last}");
        let explained = inspection.explain_region(&clock, region).await?;
        Ok((explained, *inspection.layout(), inspection.superblocks().best.time))
    })?;
    let report = region_report(&explained, &layout, time);
    if json {
        output::print_json(&report)?;
    } else {
        output::print(&region_text(&report)?)?;
    }
    Ok(report.damaged.is_empty())
}

fn key_report(key: String, explained: &ExplainedKey, now: TimePair) -> KeyReport {
    let best = explained.versions.iter().find(|version| is_answer(&version.fate));
    let newest = explained.versions.first();
    let (answer, why) = match (best, newest) {
        (Some(version), _) if version.fate == Fate::Fresh => ("hit", why(version, now)),
        (Some(version), _) => ("stale", why(version, now)),
        (None, Some(version)) => ("miss", format!("the newest version {}", why(version, now))),
        (None, None) if !explained.tombstones.is_empty() => {
            ("miss", "it was removed, and no version of it is left".to_owned())
        }
        (None, None) => ("miss", "no version of it is on the device".to_owned()),
    };
    KeyReport {
        key,
        key_hash: format!("{:016x}", explained.key_hash),
        answer,
        why,
        versions: explained.versions.iter().map(|v| version_report(v, now)).collect(),
        tombstones: explained
            .tombstones
            .iter()
            .map(|(region, tombstone)| TombstoneReport {
                region: *region,
                sequence: tombstone.sequence.0,
            })
            .collect(),
        collisions: explained.collisions,
        unreadable_regions: explained.unreadable_regions,
    }
}

fn is_answer(fate: &Fate) -> bool {
    matches!(fate, Fate::Fresh | Fate::Stale | Fate::SoftlyPurged | Fate::AgeUnknown)
}

fn state(fate: &Fate) -> &'static str {
    match fate {
        Fate::Fresh => "fresh",
        Fate::Stale | Fate::SoftlyPurged | Fate::AgeUnknown => "stale",
        Fate::Expired => "expired",
        Fate::Purged { .. } | Fate::PurgedBySelection => "purged",
        Fate::Hidden { by_version: true, .. } => "superseded",
        Fate::Hidden { by_version: false, .. } => "removed",
        Fate::Damaged(_) => "damaged",
        Fate::Unreadable => "unreadable",
        Fate::Incomplete { .. } => "incomplete",
        Fate::Partial { .. } => "partial",
    }
}

fn why(version: &Explained, now: TimePair) -> String {
    let left = |until: Timestamp| until.since(now.cache).as_secs();
    let ends = version.header.map_or(Timestamp(0), |header| header.keep_until);
    match &version.fate {
        Fate::Fresh => {
            let until = version.header.map_or(ends, |header| header.fresh_until);
            format!("is fresh for {} s", left(until))
        }
        Fate::Stale => format!("is past its freshness and kept for {} s", left(ends)),
        Fate::SoftlyPurged => "was purged softly: only an update makes it fresh".to_owned(),
        Fate::PurgedBySelection => "came before a purge of a tag or a prefix".to_owned(),
        Fate::AgeUnknown => "is of unknown age: the wall clock was wrong".to_owned(),
        Fate::Expired if version.header.is_some() => {
            format!("expired at {}", date(now.wall_at(ends)))
        }
        Fate::Expired => "has expired".to_owned(),
        Fate::Purged { floor } => {
            format!("came before the last purge of everything, sequence {}", floor.0)
        }
        Fate::Hidden { by, region, by_version: true } => {
            format!("was replaced by sequence {} in region {region}", by.0)
        }
        Fate::Hidden { by, region, by_version: false } => {
            format!("was removed by sequence {} in region {region}", by.0)
        }
        Fate::Damaged(damage) => format!("is damaged: {damage}"),
        Fate::Unreadable => "cannot be read from the device".to_owned(),
        Fate::Incomplete { missing } => {
            let slices = version.head.map_or(0, |head| head.slice_count());
            format!("lacks {missing} of its {slices} slices, which were evicted")
        }
        Fate::Partial { missing } => {
            let slices = version.head.map_or(0, |head| head.slice_count());
            format!("comes part by part: {missing} of its {slices} slices are not there whole")
        }
    }
}

fn version_report(version: &Explained, now: TimePair) -> VersionReport {
    let header = version.header.as_ref();
    let time =
        |of: fn(&EntryHeader) -> Timestamp| header.map(|header| date(now.wall_at(of(header))));
    let left = |of: fn(&EntryHeader) -> Timestamp| {
        header.map(|header| of(header).since(now.cache).as_secs())
    };
    VersionReport {
        state: state(&version.fate),
        why: why(version, now),
        region: version.region,
        offset_bytes: version.offset,
        slot_bytes: version.slot_len,
        sequence: version.sequence.0,
        epoch: version.sequence.epoch(),
        kind: header.map(|header| match header.kind {
            Kind::Object => "object",
            Kind::Head => "head",
            Kind::Slice => "slice",
            Kind::Tombstones => "tombstones",
            Kind::PurgeRecords => "purge records",
        }),
        size_bytes: header
            .map(|header| version.head.map_or(u64::from(header.body_len), |head| head.len)),
        slices: header.map(|_| version.head.map_or(0, |head| head.slice_count())),
        metadata_bytes: header.map(|header| header.metadata_len),
        stored_at: time(|header| header.stored_at),
        fresh_until: time(|header| header.fresh_until),
        keep_until: time(|header| header.keep_until),
        ttl_left_seconds: left(|header| header.fresh_until),
        keep_left_seconds: left(|header| header.keep_until),
        checksums: match &version.sound {
            Ok(()) => "good".to_owned(),
            Err(Fate::Damaged(damage)) => damage.to_string(),
            Err(_) => "unreadable".to_owned(),
        },
        supersedes: header.map(|header| header.supersedes),
    }
}

fn region_report(explained: &ExplainedRegion, layout: &Layout, time: TimePair) -> RegionReport {
    let survey = &explained.survey;
    let share = |share: &Share| ShareReport { count: share.count, bytes: share.bytes };
    let letters: String = explained.map.iter().map(|filling| letter(*filling)).collect();
    let lines = letters.as_bytes().chunks(MAP_LINE).map(|line| String::from_utf8_lossy(line));
    let filled =
        [&explained.objects, &explained.heads, &explained.slices, &explained.tombstone_slots];
    let directory = SnapshotDirectory::space(layout.alignment);
    let snapshot = explained.snapshot.map_or(0, |part| directory + part.bytes);
    let filled: u64 = filled.iter().map(|share| share.bytes).sum::<u64>() + snapshot;
    let slots = explained.footer_start - u64::from(layout.alignment);
    let start = layout.region_offset(survey.region);
    let has_footer = explained.footer_start < layout.region_size;
    let shown = |stamp| (stamp > Timestamp(0)).then(|| date(time.wall_at(stamp)));
    RegionReport {
        region: survey.region,
        state: offline::condition(survey.condition),
        offset_bytes: start,
        size_bytes: layout.region_size,
        generation: survey.generation.0,
        epoch: survey.generation.epoch(),
        newest_time: shown(survey.stamp),
        last_expiry: shown(explained.keep_until),
        touched: survey.touched,
        footer_offset_bytes: has_footer.then_some(start + explained.footer_start),
        tombstones: survey.tombstones,
        snapshot: explained.snapshot.as_ref().map(|part| SnapshotReport {
            part: part.part,
            parts: part.part_count,
            pieces: part.pieces,
            pieces_bytes: part.bytes,
            written: date(time.wall_at(part.stamp)),
        }),
        objects: share(&explained.objects),
        heads: share(&explained.heads),
        slices: share(&explained.slices),
        tombstone_slots: share(&explained.tombstone_slots),
        live: share(&explained.live),
        dead: share(&explained.dead),
        expired: share(&explained.expired),
        unused_bytes: slots.saturating_sub(filled),
        damaged: survey.damage.iter().map(offline::damaged).collect(),
        page_bytes: explained.page,
        map: match survey.condition {
            Condition::Free | Condition::Blank | Condition::Leftover | Condition::OldSnapshot => {
                Vec::new()
            }
            _ => lines.map(|line| line.into_owned()).collect(),
        },
    }
}

fn letter(filling: Filling) -> char {
    match filling {
        Filling::Nothing => '.',
        Filling::Header => 'H',
        Filling::Live => '#',
        Filling::Dead => '-',
        Filling::Tombstones => 't',
        Filling::Damaged => '!',
        Filling::Footer => 'F',
        Filling::Snapshot => 'S',
    }
}

fn key_text(report: &KeyReport) -> anyhow::Result<String> {
    let mut text = format!("{}: {}: {}\n", report.key, report.answer, report.why);
    for version in &report.versions {
        text += &format!("\nversion {} ({})\n", version.sequence, version.state);
        text += &indented(&output::lines(&serde_json::to_value(version)?));
    }
    for tombstone in &report.tombstones {
        text += &format!("\ntombstone {} in region {}\n", tombstone.sequence, tombstone.region);
    }
    if report.collisions > 0 {
        text += &format!("\n{} entries of other keys with this hash\n", report.collisions);
    }
    if report.unreadable_regions > 0 {
        text += &format!("\n{} regions cannot be read\n", report.unreadable_regions);
    }
    Ok(text)
}

fn region_text(report: &RegionReport) -> anyhow::Result<String> {
    let mut fields = serde_json::to_value(report)?;
    fields["damaged"] = report.damaged.iter().map(ToString::to_string).collect();
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("map");
    }
    let mut text = output::lines(&fields);
    if !report.map.is_empty() {
        text += &format!("\n{LEGEND}\n");
        for line in &report.map {
            text += &format!("{line}\n");
        }
    }
    Ok(text)
}

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}\n")).collect()
}

/// The inverse of [`offline::escaped`]; `None` if that cannot have made `text`.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            key.push(byte);
            continue;
        }
        match rest.next()? {
            b'\\' => key.push(b'\\'),
            b'x' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
                key.push(u8::try_from(value).ok()?);
            }
            _ => return None,
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescaped(&offline::escaped(&all)), Some(all));
        for wrong in ["\\", "\\x", "\\x1", "\\xgg", "\\n"] {
            assert_eq!(unescaped(wrong), None, "{wrong}");
        }
    }
}
