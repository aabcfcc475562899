//! `format`, `probe`, `inspect`, `ls` and `check`: commands on a device that no daemon is using.

use std::io::{self, IsTerminal as _};

use anyhow::ensure;

use super::confirm::{Asker, confirm};
use super::report::{FormatOptions, ListEntry};
use super::{DeviceArgs, FormatArgs, ListArgs, offline, output};
use crate::daemon::create_sparse;

/// Formats a device, after asking; with a size, makes the image file first.
pub fn format(arguments: &FormatArgs) -> anyhow::Result<bool> {
    let path = arguments.device.as_path();
    match arguments.size {
        // A file that is made here holds nothing that could be lost: nobody is asked.
        Some(size) => create_sparse(path, size)?,
        None => allow_erasing(arguments)?,
    }
    let options = FormatOptions { alignment: arguments.alignment };
    let formatted = offline::format(path, options);
    if formatted.is_err() && arguments.size.is_some() {
        // Nothing but the empty file of a moment ago is lost.
        let _ = std::fs::remove_file(path);
    }
    output::print_report(&formatted?, false)?;
    Ok(true)
}

fn allow_erasing(arguments: &FormatArgs) -> anyhow::Result<()> {
    let path = arguments.device.as_path();
    let survey = offline::survey(path)?;
    ensure!(
        arguments.force || !survey.is_foreign,
        "{} holds {}; nothing was changed. If it may be erased, add --force",
        path.display(),
        survey.contents.unwrap_or_default()
    );
    if arguments.yes {
        return Ok(());
    }
    let (input, output) = (&mut io::stdin().lock(), &mut io::stderr().lock());
    let is_terminal = io::stdin().is_terminal();
    confirm(path, &survey, Asker { input, output, is_terminal })
}

/// Prints what a device can do.
pub fn probe(arguments: &DeviceArgs) -> anyhow::Result<bool> {
    output::print_report(&offline::probe(&arguments.device)?, arguments.json)?;
    Ok(true)
}

/// Prints what a formatted device holds.
pub fn inspect(arguments: &DeviceArgs) -> anyhow::Result<bool> {
    output::print_report(&offline::inspect(&arguments.device)?, arguments.json)?;
    Ok(true)
}

/// Prints entries, one a line.
pub fn list(arguments: &ListArgs) -> anyhow::Result<bool> {
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    offline::list(&arguments.device, &mut |entry| {
        if left == 0 {
            return Ok(false);
        }
        left -= 1;
        output::print(&line(&entry, arguments.json)?)?;
        Ok(left > 0)
    })?;
    Ok(true)
}

/// Verifies a device; false if something is damaged.
pub fn check(arguments: &DeviceArgs) -> anyhow::Result<bool> {
    let report = offline::check(&arguments.device)?;
    output::print_report(&report, arguments.json)?;
    Ok(report.damaged.is_empty())
}

fn line(entry: &ListEntry, json: bool) -> anyhow::Result<String> {
    if json {
        return Ok(serde_json::to_string(entry)? + "\n");
    }
    let ListEntry { key, size_bytes, fresh_until, .. } = entry;
    Ok(format!("{size_bytes:>12}  {fresh_until:>10}  {key}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_listed_one_a_line() {
        let entry = ListEntry {
            key: "k".into(),
            size_bytes: 5,
            stored_at: 1,
            fresh_until: 2,
            keep_until: 3,
            region: 4,
            offset_bytes: 6,
        };
        assert_eq!(line(&entry, false).unwrap(), "           5           2  k\n");
        assert_eq!(
            line(&entry, true).unwrap(),
            "{\"key\":\"k\",\"size_bytes\":5,\"stored_at\":1,\"fresh_until\":2,\"keep_until\":3,\
             \"region\":4,\"offset_bytes\":6}\n"
        );
    }
}
