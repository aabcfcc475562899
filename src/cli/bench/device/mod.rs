//! `rawcached bench device`: what a device gives by itself and through each engine, in one run.
//! Owns the order of the rows; writes only where flags allow it.

mod arguments;
mod cells;
mod consent;
mod engines;
mod raw;
mod report;
mod row;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;

use anyhow::Context as _;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

pub(in crate::cli) use arguments::DeviceArgs;

use crate::cli::bench::progress::Bar;
use crate::cli::output;
use crate::device::{IoMode, ProbeReport, probe};
use cells::Cell;
use engines::Engine;
use report::Report;
use row::{Measured, Way};

/// Measures a device and prints a table.
pub(in crate::cli) fn run(arguments: &DeviceArgs) -> anyhow::Result<()> {
    let report = measure(arguments)?;
    output::print(&if arguments.json { report.json()? } else { report.text() })
}

fn measure(arguments: &DeviceArgs) -> anyhow::Result<Report> {
    if arguments.write {
        consent::ask(arguments)?;
    }
    let (engines, mut notes) = engines::working(arguments)?;
    let probed = probe(&arguments.path)?;
    notes.extend(cautions(arguments, &probed)?);
    let cells = cells::plan(arguments, &probed);
    let rows = cells.iter().map(|cell| 1 + cell.ways(&engines).count()).sum::<usize>();
    let bar = Bar::of("device", Some(rows as u64));
    let mut report = Report::new(arguments, &probed, notes);
    let mut row = 0;
    let mut next = |cell: &Cell, way: Option<&Way>| {
        row += 1;
        let measured = one(arguments, (cell, way), row)?;
        bar.step();
        anyhow::Ok(measured)
    };
    for cell in &cells {
        let plain = cell.raw(probed.alignment.map_or(1, u64::from));
        let raw = next(&plain, None)?;
        report.add(&plain, None, &raw, &raw);
        for way in cell.ways(&engines) {
            let measured = next(cell, Some(&way))?;
            report.add(cell, Some(&way), &measured, &raw);
        }
    }
    bar.end();
    Ok(report)
}

/// Measures row number `row`: the plain loop if there is no `way`, else an engine.
fn one(
    arguments: &DeviceArgs,
    (cell, way): (&Cell, Option<&Way>),
    row: u64,
) -> anyhow::Result<Measured> {
    if way.is_some_and(|way| way.io == IoMode::Buffered) {
        // Drops what earlier rows left in the page cache.
        let file = File::open(&arguments.path)?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    }
    let measured = match way {
        None => raw::run(arguments, cell, row),
        Some(way) => engines::run(arguments, (cell, way), row),
    };
    measured.with_context(|| format!("{} with {}", cell.name(), way.map_or("raw", |way| way.name)))
}

/// What a reader of the table should know.
fn cautions(arguments: &DeviceArgs, probed: &ProbeReport) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    let metadata = fs::metadata(&arguments.path)?;
    if metadata.is_file() {
        let percent = 100 * (512 * metadata.blocks()).min(probed.size) / probed.size.max(1);
        notes.push(format!(
            "only what was ever written to an image file reaches the disk when it is read: {percent} % \
             of this one is allocated"
        ));
    }
    if let Some(reason) = &probed.direct_unavailable {
        notes.push(format!("no direct I/O: {reason}; all rows are buffered, the raw ones too"));
    }
    Ok(notes)
}

impl Cell {
    /// The engines and modes that a cell is measured with.
    fn ways(&self, engines: &[Engine]) -> impl Iterator<Item = Way> {
        let modes: &[IoMode] =
            if self.also_buffered { &[IoMode::Auto, IoMode::Buffered] } else { &[IoMode::Auto] };
        let ways = engines.iter().flat_map(move |engine| {
            modes.iter().map(move |io| Way { name: engine.name, kind: engine.kind, io: *io })
        });
        ways.collect::<Vec<_>>().into_iter()
    }
}
