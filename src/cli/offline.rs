//! Where the offline commands meet the library. Owns nothing but the conversion of the library's
//! answers into reports.

use std::path::Path;

use anyhow::{Context as _, bail};

use super::report::{CheckReport, FormatOptions, FormatReport, InspectReport, ListEntry, Survey};
use crate::clock::Clock;
use crate::daemon;
use crate::device::{self, Device, OpenOptions, ProbeReport};
use crate::store::{OpenError, Superblocks, read_superblocks};

/// Examines a device without writing to it.
pub fn probe(path: &Path) -> anyhow::Result<ProbeReport> {
    Ok(device::probe(path)?)
}

/// Tells what `format` would erase, without writing. A device in use is an error.
pub fn survey(path: &Path) -> anyhow::Result<Survey> {
    let device = Device::open(&OpenOptions::new(path))?;
    let size_bytes = device.geometry().size;
    on_runtime(async {
        if let Some(signature) = device.foreign_signature().await? {
            let contents = Some(signature.to_owned());
            return Ok(Survey { size_bytes, contents, is_foreign: true });
        }
        let contents = match read_superblocks(&device).await {
            Ok(found) => Some(format!("the rawcached store {}", found.best.uuid)),
            Err(OpenError::NotFormatted(_)) => None,
            Err(damaged) => Some(format!("a rawcached store: {damaged}")),
        };
        Ok(Survey { size_bytes, contents, is_foreign: false })
    })
}

/// Formats a device, whatever it holds.
pub fn format(path: &Path, options: FormatOptions) -> anyhow::Result<FormatReport> {
    let open = OpenOptions { alignment: options.alignment, ..OpenOptions::new(path) };
    let formatted = on_runtime(daemon::format(&open, None, &Clock::system()))?;
    Ok(FormatReport {
        path: path.display().to_string(),
        uuid: formatted.uuid.to_string(),
        size_bytes: formatted.layout.device_size,
        region_size_bytes: formatted.layout.region_size,
        regions: formatted.layout.region_count,
        alignment_bytes: formatted.layout.alignment,
    })
}

/// Reads the superblock copies.
pub fn inspect(path: &Path) -> anyhow::Result<InspectReport> {
    let device = Device::open(&OpenOptions { read_only: true, ..OpenOptions::new(path) })?;
    let Superblocks { best, damage, .. } =
        on_runtime(async { Ok(read_superblocks(&device).await?) })?;
    let state = |damage: &Option<_>| match damage {
        None => "good".to_owned(),
        Some(damage) => format!("{damage}"),
    };
    Ok(InspectReport {
        path: path.display().to_string(),
        uuid: best.uuid.to_string(),
        epoch: best.epoch,
        formatted_at: best.formatted_at.0,
        superblocks: damage.iter().map(state).collect(),
        size_bytes: best.layout.device_size,
        region_size_bytes: best.layout.region_size,
        alignment_bytes: best.layout.alignment,
        regions: best.layout.region_count,
        object_max_bytes: best.layout.object_len_max(),
    })
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

fn on_runtime<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(work)
}
