//! Where the offline commands meet the library. Owns nothing but the conversion of the library's
//! answers into reports.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::report::{
    CheckReport, Damaged, FormatOptions, FormatReport, IncompleteObject, InspectReport, ListEntry,
    RegionCounts, RegionRow, Survey,
};
use crate::clock::{Clock, Timestamp};
use crate::daemon::explain_denied;
use crate::device::{Device, DeviceError, OpenOptions};
use crate::inspect::{
    CheckEvent, Condition, Finding, Incomplete, Inspection, Listed, ListedState, ListingSummary,
    RegionSurvey, SnapshotState,
};
use crate::store::{self, OpenError, Store, Superblocks, read_superblocks};

/// A device claimed to be formatted: nobody else can claim it until this is dropped.
pub struct Claimed {
    path: PathBuf,
    device: Device,
}

/// Claims a device. One in use is an error.
pub fn claim(path: &Path) -> anyhow::Result<Claimed> {
    let device = Device::open(&OpenOptions::new(path)).map_err(explain_denied)?;
    Ok(Claimed { path: path.to_owned(), device })
}

/// Tells what `format` would erase, without writing.
pub fn survey(Claimed { device, .. }: &Claimed) -> anyhow::Result<Survey> {
    let size_bytes = device.geometry().size;
    on_runtime(async {
        if let Some(signature) = device.foreign_signature().await? {
            let contents = Some(signature.to_owned());
            return Ok(Survey { size_bytes, contents, needs_force: true });
        }
        let (contents, needs_force) = match read_superblocks(device).await {
            Ok(found) => (Some(format!("the rawcached store {}", found.best.uuid)), false),
            Err(OpenError::NotFormatted(_)) => (None, false),
            // A saved superblock copy, or the other version, could still open the store.
            Err(OpenError::Damaged(damage)) => {
                let damaged = "a rawcached store with both superblock copies damaged";
                (Some(format!("{damaged} ({damage})")), true)
            }
            Err(OpenError::Newer(damage)) => {
                (Some(format!("a store of another version of rawcached ({damage})")), true)
            }
            Err(error) => (Some(format!("a rawcached store that does not open: {error}")), false),
        };
        Ok(Survey { size_bytes, contents, needs_force })
    })
}

/// Formats a device, whatever it holds.
pub fn format(claimed: &Claimed, options: FormatOptions) -> anyhow::Result<FormatReport> {
    let clock = Clock::system();
    let options = store::FormatOptions {
        size: options.size,
        alignment: options.alignment,
        ..store::FormatOptions::default()
    };
    let formatted =
        on_runtime(async { Ok(Store::format(&claimed.device, &options, &clock).await?) })?;
    Ok(FormatReport {
        path: claimed.path.display().to_string(),
        uuid: formatted.uuid.to_string(),
        size_bytes: formatted.layout.device_size,
        region_size_bytes: formatted.layout.region_size,
        regions: formatted.layout.region_count,
        alignment_bytes: formatted.layout.alignment,
    })
}

/// Reads superblock copies, region headers and footers; a row for each region if `table`.
pub fn inspect(path: &Path, table: bool) -> anyhow::Result<InspectReport> {
    on_runtime(async {
        let inspection = open(path).await?;
        let mut report = superblock_report(path, inspection.superblocks());
        let mut rows = Vec::new();
        for region in 0..inspection.layout().region_count {
            let survey = inspection.survey(region).await;
            let row = region_row(&mut report, &inspection, (region, survey));
            rows.extend(table.then_some(row));
        }
        report.region_table = table.then_some(rows);
        Ok(report)
    })
}

fn superblock_report(path: &Path, superblocks: &Superblocks) -> InspectReport {
    let Superblocks { best, damage, needs_repair } = superblocks;
    InspectReport {
        path: path.display().to_string(),
        uuid: best.uuid.to_string(),
        epoch: best.epoch,
        purge_floor: best.purge_floor.0,
        formatted_at: best.formatted_at,
        newest_stamp: best.time.wall,
        superblocks: superblocks.states().into(),
        superblock_outdated: *needs_repair && damage.iter().all(Option::is_none),
        size_bytes: best.layout.device_size,
        region_size_bytes: best.layout.region_size,
        slice_size_bytes: best.layout.slice_size,
        alignment_bytes: best.layout.alignment,
        object_max_bytes: best.layout.object_len_max(),
        entries: 0,
        tombstones: 0,
        regions: RegionCounts { all: best.layout.region_count, ..RegionCounts::default() },
        damaged: Vec::new(),
        region_table: None,
    }
}

/// Adds a region to the sums of a report and gives its row.
fn region_row(
    report: &mut InspectReport,
    inspection: &Inspection,
    (region, survey): (u32, Result<RegionSurvey, DeviceError>),
) -> RegionRow {
    let offset_bytes = inspection.layout().region_offset(region);
    let mut row = RegionRow {
        region,
        offset_bytes,
        state: "unreadable",
        generation: 0,
        entries: 0,
        tombstones: 0,
        entry_bytes: 0,
        stamp: None,
        touched: false,
    };
    let survey = match survey {
        Ok(survey) => survey,
        Err(error) => {
            report.regions.unreadable += 1;
            let what = format!("{:#}", anyhow::Error::from(error));
            report.damaged.push(Damaged { region: Some(region), offset_bytes, what });
            return row;
        }
    };
    let counts = &mut report.regions;
    *match survey.condition {
        Condition::Sealed => &mut counts.sealed,
        Condition::Unsealed => &mut counts.unsealed,
        Condition::Purges => &mut counts.purges,
        Condition::Free => &mut counts.free,
        Condition::Blank => &mut counts.blank,
        Condition::Leftover => &mut counts.leftover,
        Condition::Snapshot => &mut counts.snapshot,
        Condition::OldSnapshot => &mut counts.old_snapshot,
        Condition::Damaged => &mut counts.damaged,
    } += 1;
    row.state = condition(survey.condition);
    row.generation = survey.generation.0;
    row.entries = survey.entries;
    row.tombstones = survey.tombstones;
    row.entry_bytes = survey.entry_bytes;
    row.stamp = (survey.stamp > Timestamp(0)).then(|| inspection.wall_at(survey.stamp));
    row.touched = survey.touched;
    report.entries += survey.entries;
    report.tombstones += survey.tombstones;
    report.newest_stamp = report.newest_stamp.max(row.stamp.unwrap_or(i64::MIN));
    report.damaged.extend(survey.damage.iter().map(damaged));
    row
}

/// The name of a region's state.
pub fn condition(condition: Condition) -> &'static str {
    match condition {
        Condition::Sealed => "sealed",
        Condition::Unsealed => "unsealed",
        Condition::Purges => "purges",
        Condition::Free => "free",
        Condition::Blank => "blank",
        Condition::Leftover => "leftover",
        Condition::Snapshot => "snapshot",
        Condition::OldSnapshot => "old snapshot",
        Condition::Damaged => "damaged",
    }
}

/// Calls `each` with every entry until it gives false or fails.
pub fn list(
    path: &Path,
    tag: Option<&str>,
    each: &mut dyn FnMut(ListEntry) -> anyhow::Result<bool>,
) -> anyhow::Result<ListingSummary> {
    let clock = Clock::system();
    let mut failed = None;
    let summary = on_runtime(async {
        let inspection = open(path).await?;
        let listed = inspection.list(&clock, tag.map(str::as_bytes), |listed| {
            match each(list_entry(&inspection, listed, clock.now())) {
                Ok(true) => ControlFlow::Continue(()),
                Ok(false) => ControlFlow::Break(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        Ok(listed.await?)
    })?;
    failed.map_or(Ok(summary), Err)
}

fn list_entry(inspection: &Inspection, listed: Listed, now: Timestamp) -> ListEntry {
    ListEntry {
        key: escaped(&listed.key),
        size_bytes: listed.len,
        slices: listed.slices,
        state: match listed.state {
            ListedState::Fresh => "fresh",
            ListedState::Stale => "stale",
            ListedState::Expired => "expired",
            ListedState::Incomplete => "incomplete",
            ListedState::Partial => "partial",
        },
        ttl_left_seconds: listed.fresh_until.since(now).as_secs(),
        stored_at: inspection.wall_at(listed.stored_at),
        fresh_until: inspection.wall_at(listed.fresh_until),
        keep_until: inspection.wall_at(listed.keep_until),
        region: listed.region,
        offset_bytes: listed.offset,
    }
}

/// Printable ASCII as it is, a backslash doubled, everything else as `\xNN`: loses nothing.
pub fn escaped(key: &[u8]) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

/// What `check` tells while it works.
pub enum Progress {
    /// It begins with this region, of so many.
    Region(u32, u32),
    /// Something is damaged.
    Damaged(Damaged),
    /// A live object lacks pieces.
    Incomplete(IncompleteObject),
}

/// Verifies every checksum; `tell` gets progress and damage; an error from it ends the check.
pub fn check(
    path: &Path,
    tell: &mut dyn FnMut(Progress) -> anyhow::Result<()>,
) -> anyhow::Result<CheckReport> {
    let mut failed = None;
    let summary = on_runtime(async {
        let inspection = open(path).await?;
        let regions = inspection.layout().region_count;
        let checked = inspection.check(|event| {
            let progress = match event {
                CheckEvent::Region(region) => Progress::Region(region, regions),
                CheckEvent::Damage(finding) => Progress::Damaged(damaged(finding)),
                CheckEvent::Incomplete(object) => Progress::Incomplete(incomplete(object)),
            };
            match tell(progress) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        Ok(checked.await)
    })?;
    let report = CheckReport {
        path: path.display().to_string(),
        regions_used: summary.regions_used,
        regions_unused: summary.regions_unused,
        regions_snapshot: summary.regions_snapshot,
        snapshot: match summary.snapshot {
            SnapshotState::None => "none",
            SnapshotState::Sound => "sound",
            SnapshotState::Outdated => "outdated",
            SnapshotState::Unfinished => "unfinished",
            SnapshotState::Damaged => "damaged",
        },
        snapshot_entries: summary.snapshot_entries,
        entries: summary.entries,
        slices: summary.slices,
        tombstones: summary.tombstones,
        incomplete_objects: summary.incomplete_objects,
        verified_bytes: summary.verified_bytes,
        superblocks_outdated: summary.superblocks_outdated,
        damaged: summary.damaged,
        damages: None,
        incomplete: None,
    };
    failed.map_or(Ok(report), Err)
}

fn incomplete(object: &Incomplete) -> IncompleteObject {
    IncompleteObject {
        region: object.region,
        offset_bytes: object.offset,
        key: escaped(&object.key),
        slices: object.slices,
        missing: object.missing,
    }
}

/// Converts a finding of the library for a report.
pub fn damaged(finding: &Finding) -> Damaged {
    let Finding { region, offset, what } = finding.clone();
    Damaged { region, offset_bytes: offset, what }
}

/// Opens a formatted device that nobody uses, for reading only.
pub async fn open(path: &Path) -> anyhow::Result<Inspection> {
    let options = OpenOptions { read_only: true, ..OpenOptions::new(path) };
    let device = Device::open(&options).map_err(explain_denied)?;
    Inspection::open(device).await.with_context(|| path.display().to_string())
}

/// Runs `work` to its end on a runtime of its own.
pub fn on_runtime<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_keys_can_be_told_apart() {
        assert_eq!(escaped(b"/a b?c=\"d\""), "/a b?c=\"d\"");
        assert_eq!(escaped(b"\\x00"), "\\\\x00");
        assert_eq!(escaped(b"\0\xff\n"), "\\x00\\xff\\x0a");
    }
}
