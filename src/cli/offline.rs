//! Where the offline commands meet the library. Owns nothing but the conversion of the library's
//! answers into reports.

use std::path::Path;

use anyhow::bail;

use super::report::{
    CheckReport, FormatOptions, FormatReport, InspectReport, ListEntry, ProbeReport, Survey,
};

/// Examines a device without writing to it.
pub fn probe(_path: &Path) -> anyhow::Result<ProbeReport> {
    bail!("this version cannot probe devices yet")
}

/// Tells what `format` would erase, without writing.
pub fn survey(_path: &Path) -> anyhow::Result<Survey> {
    bail!("this version cannot format devices yet")
}

/// Formats a device.
pub fn format(_path: &Path, options: FormatOptions) -> anyhow::Result<FormatReport> {
    let FormatOptions { alignment, force } = options;
    bail!("this version cannot format devices yet (alignment {alignment:?}, force {force})")
}

/// Reads superblock and region headers.
pub fn inspect(_path: &Path) -> anyhow::Result<InspectReport> {
    bail!("this version cannot inspect devices yet")
}

/// Calls `each` with every live entry until it gives false.
pub fn list(
    _path: &Path,
    _each: &mut dyn FnMut(ListEntry) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    bail!("this version cannot list entries yet")
}

/// Verifies every checksum.
pub fn check(_path: &Path) -> anyhow::Result<CheckReport> {
    bail!("this version cannot check devices yet")
}
