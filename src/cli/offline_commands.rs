//! `format`, `inspect`, `ls` and `check`: commands on a device that no daemon is using.

use std::io::{self, IsTerminal as _};
use std::os::unix::fs::FileTypeExt as _;

use anyhow::ensure;
use indicatif::{ProgressBar, ProgressStyle};

use super::arguments::{DeviceArgs, FormatArgs, InspectArgs, ListArgs};
use super::confirm::{Asker, confirm};
use super::offline::{self, Claimed, Progress};
use super::report::{DAMAGES_MAX, FormatOptions, FormatReport, ListEntry, RegionRow};
use super::{explain, output};
use crate::daemon::{create_sparse, is_in_memory, shortage};
use crate::inspect::ListingSummary;

/// Formats a device, after asking; with a size and no device, makes the image file first.
pub fn format(arguments: &FormatArgs) -> anyhow::Result<bool> {
    let path = arguments.device.as_path();
    let is_device = path.metadata().is_ok_and(|found| found.file_type().is_block_device());
    let new_image = arguments.size.filter(|_| !is_device);
    if let Some(size) = new_image {
        ensure!(
            arguments.force || path.exists() || !is_in_memory(path),
            "{} would be a file in memory: name a device that is there (lsblk lists them) or a file on \
             a disk. If it is to be in memory, add --force",
            path.display()
        );
        let shortage = shortage(path, size);
        create_sparse(path, size)?;
        if let Some(shortage) = shortage {
            eprintln!("rawcached: {shortage}");
        }
    }
    let formatted = format_claimed(arguments, new_image.is_some());
    if formatted.is_err() && new_image.is_some() {
        // Only the empty file made above is lost.
        let _ = std::fs::remove_file(path);
    }
    output::print_lines(&formatted?)?;
    Ok(true)
}

/// Holds the claim from the first look to the last write: nobody makes a file system in between.
fn format_claimed(arguments: &FormatArgs, is_new: bool) -> anyhow::Result<FormatReport> {
    let claimed = offline::claim(&arguments.device)?;
    // A new file holds nothing to lose: do not ask.
    if !is_new {
        allow_erasing(arguments, &claimed)?;
    }
    let size = arguments.size.map(|size| size.0);
    offline::format(&claimed, FormatOptions { size, alignment: arguments.alignment })
}

fn allow_erasing(arguments: &FormatArgs, claimed: &Claimed) -> anyhow::Result<()> {
    let path = arguments.device.as_path();
    let survey = offline::survey(claimed)?;
    ensure!(
        arguments.force || !survey.needs_force,
        "{} holds {}; nothing was changed. If it may be erased, add --force",
        path.display(),
        survey.contents.unwrap_or_default()
    );
    if arguments.yes {
        return Ok(());
    }
    let (input, output) = (&mut io::stdin().lock(), &mut io::stderr().lock());
    let is_terminal = io::stdin().is_terminal();
    confirm(path, &survey, Asker { input, output, is_terminal })?;
    // Some programs ignore the claim on a device, and all do for an image file.
    ensure!(
        offline::survey(claimed)? == survey,
        "what {} holds has changed since the question was asked; nothing was changed by this command",
        path.display()
    );
    Ok(())
}

/// Prints what a formatted device holds.
pub fn inspect(arguments: &InspectArgs) -> anyhow::Result<bool> {
    if let Some(key) = &arguments.key {
        return explain::key(&arguments.device, key, arguments.json);
    }
    if let Some(region) = arguments.region {
        return explain::region(&arguments.device, region, arguments.json);
    }
    let mut report = offline::inspect(&arguments.device, arguments.verbose)?;
    if arguments.json {
        output::print_json(&report)?;
        return Ok(true);
    }
    let damaged = std::mem::take(&mut report.damaged);
    let table = report.region_table.take();
    let mut fields = serde_json::to_value(&report)?;
    fields["damaged"] = damaged.iter().map(ToString::to_string).collect();
    output::print_lines(&fields)?;
    if let Some(table) = table {
        output::print(&region_table(&table))?;
    }
    Ok(true)
}

fn region_table(rows: &[RegionRow]) -> String {
    let mut text = format!(
        "\n{:>8} {:<12} {:>20} {:>10} {:>10} {:>14} {:>10}\n",
        "region", "state", "generation", "entries", "tombstones", "entry bytes", "stamp"
    );
    for row in rows {
        let RegionRow { region, state, generation, entries, .. } = row;
        let RegionRow { tombstones, entry_bytes, .. } = row;
        let stamp = row.stamp.map_or("-".to_owned(), |stamp| stamp.to_string());
        text += &format!(
            "{region:>8} {state:<12} {generation:>20} {entries:>10} {tombstones:>10} \
             {entry_bytes:>14} {stamp:>10}\n"
        );
    }
    text
}

/// Prints entries, one a line.
pub fn list(arguments: &ListArgs) -> anyhow::Result<bool> {
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    if !arguments.json && left > 0 {
        output::print(LIST_HEADING)?;
    }
    let summary = offline::list(&arguments.device, arguments.tag.as_deref(), &mut |entry| {
        if left == 0 {
            return Ok(false);
        }
        left -= 1;
        output::print(&line(&entry, arguments.json)?)?;
        Ok(left > 0)
    })?;
    let ListingSummary { damaged, unreadable_regions, .. } = summary;
    if damaged + unreadable_regions > 0 {
        eprintln!(
            "rawcached: left out {damaged} damaged entries and {unreadable_regions} unreadable \
             regions; `rawcached check` names them"
        );
    }
    Ok(true)
}

/// Verifies a device; false if something is damaged.
pub fn check(arguments: &DeviceArgs) -> anyhow::Result<bool> {
    let (mut damages, mut incomplete) = (Vec::new(), Vec::new());
    // Draws nothing where standard error is no terminal.
    let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template(BAR)?);
    let mut report = offline::check(&arguments.device, &mut |progress| {
        let line = match progress {
            Progress::Region(region, regions) => {
                bar.set_length(u64::from(regions));
                bar.set_position(u64::from(region));
                return Ok(());
            }
            Progress::Damaged(damaged) => {
                let line = format!("{damaged}\n");
                push_limited(&mut damages, damaged);
                line
            }
            Progress::Incomplete(object) => {
                let line = format!("{object}\n");
                push_limited(&mut incomplete, object);
                line
            }
        };
        if arguments.json { Ok(()) } else { bar.suspend(|| output::print(&line)) }
    })?;
    bar.finish_and_clear();
    let sound = report.damaged == 0;
    if arguments.json {
        report.damages = Some(damages);
        report.incomplete = Some(incomplete);
    }
    output::print_report(&report, arguments.json)?;
    Ok(sound)
}

/// Region by region, with the time that is left.
const BAR: &str = "checking {wide_bar} region {pos} of {len}, {eta} left";

fn push_limited<T>(list: &mut Vec<T>, item: T) {
    if list.len() < DAMAGES_MAX {
        list.push(item);
    }
}

const LIST_HEADING: &str =
    "        size    ttl left  state       stored at  region        offset  key\n";

fn line(entry: &ListEntry, json: bool) -> anyhow::Result<String> {
    if json {
        return Ok(serde_json::to_string(entry)? + "\n");
    }
    let ListEntry { key, size_bytes, state, ttl_left_seconds, stored_at, .. } = entry;
    let ListEntry { region, offset_bytes, .. } = entry;
    Ok(format!(
        "{size_bytes:>12} {ttl_left_seconds:>10}s  {state:<10} {stored_at:>10} {region:>7} \
         {offset_bytes:>13}  {key}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_listed_one_a_line() {
        let entry = ListEntry {
            key: "k".into(),
            size_bytes: 5,
            slices: 0,
            state: "fresh",
            ttl_left_seconds: 7,
            stored_at: 1,
            fresh_until: 2,
            keep_until: 3,
            region: 4,
            offset_bytes: 6,
        };
        let text = line(&entry, false).unwrap();
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>(),
            ["5", "7s", "fresh", "1", "4", "6", "k"]
        );
        let columns = LIST_HEADING.find("key");
        assert_eq!(text.find('k'), columns);
        assert_eq!(
            line(&entry, true).unwrap(),
            "{\"key\":\"k\",\"size_bytes\":5,\"slices\":0,\"state\":\"fresh\",\
             \"ttl_left_seconds\":7,\"stored_at\":1,\"fresh_until\":2,\"keep_until\":3,\
             \"region\":4,\"offset_bytes\":6}\n"
        );
    }
}
