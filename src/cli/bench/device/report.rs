//! What `rawcached bench device` prints. Owns the layout of table and JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::arguments::DeviceArgs;
use super::cells::Cell;
use super::row::{Measured, Way};
use crate::device::ProbeReport;
use crate::units::ByteSize;

/// Everything that was measured.
#[derive(Serialize)]
pub(super) struct Report {
    path: String,
    size_bytes: u64,
    seconds_per_row: f64,
    notes: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    group: &'static str,
    operation: &'static str,
    block_bytes: u64,
    depth: usize,
    /// `raw`, or the engine.
    engine: &'static str,
    direct: bool,
    alignment_bytes: u32,
    operations: u64,
    operations_per_s: f64,
    megabytes_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us_per_operation: f64,
    /// Operations a second over those of the raw row.
    rate_to_raw: f64,
    /// Processor time over that of the raw row.
    cpu_to_raw: f64,
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

fn rate(measured: &Measured) -> f64 {
    number(measured.latencies.count()) / measured.elapsed.as_secs_f64()
}

fn cpu_us(measured: &Measured) -> f64 {
    measured.cpu.as_secs_f64() * 1e6 / number(measured.latencies.count().max(1))
}

impl Report {
    pub(super) fn new(arguments: &DeviceArgs, probed: &ProbeReport, notes: Vec<String>) -> Report {
        Report {
            path: arguments.path.display().to_string(),
            size_bytes: probed.size,
            seconds_per_row: arguments.row().as_secs_f64(),
            notes,
            rows: Vec::new(),
        }
    }

    /// Adds a row; the raw one if there is no `way`.
    pub(super) fn add(
        &mut self,
        cell: &Cell,
        way: Option<&Way>,
        measured: &Measured,
        raw: &Measured,
    ) {
        let found = measured.latencies.percentiles();
        self.rows.push(Row {
            group: cell.group,
            operation: cell.kind.as_str(),
            block_bytes: cell.block,
            depth: cell.depth,
            engine: way.map_or("raw", |way| way.name),
            direct: measured.is_direct,
            alignment_bytes: measured.alignment,
            operations: found.count,
            operations_per_s: rate(measured),
            megabytes_per_s: rate(measured) * number(cell.block) / 1e6,
            p50_us: found.p50_us,
            p99_us: found.p99_us,
            cpu_us_per_operation: cpu_us(measured),
            rate_to_raw: rate(measured) / rate(raw).max(f64::MIN_POSITIVE),
            cpu_to_raw: cpu_us(measured) / cpu_us(raw).max(f64::MIN_POSITIVE),
        });
    }

    pub(super) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{}, {}, {} s a row; raw: a thread for each transfer under way, pread in a loop\n",
            self.path,
            ByteSize(self.size_bytes),
            self.seconds_per_row
        );
        let mut group = "";
        for row in &self.rows {
            if row.group != group {
                group = row.group;
                // Writing to a string cannot fail.
                let _ = writeln!(
                    text,
                    "\n{group:<17} {:>8} {:>5} {:<9} {:<8} {:>6} {:>9} {:>8} {:>8} {:>8} {:>9} {:>7} {:>7}",
                    "block",
                    "depth",
                    "engine",
                    "I/O",
                    "align",
                    "IOPS",
                    "MB/s",
                    "p50 us",
                    "p99 us",
                    "CPU us/op",
                    "to raw",
                    "CPU to"
                );
            }
            let _ = writeln!(
                text,
                "{:<17} {:>8} {:>5} {:<9} {:<8} {:>6} {:>9.0} {:>8.0} {:>8.0} {:>8.0} {:>9.2} {:>7.2} {:>7.2}",
                row.operation,
                ByteSize(row.block_bytes).to_string(),
                row.depth,
                row.engine,
                if row.direct { "direct" } else { "buffered" },
                row.alignment_bytes,
                row.operations_per_s,
                row.megabytes_per_s,
                row.p50_us,
                row.p99_us,
                row.cpu_us_per_operation,
                row.rate_to_raw,
                row.cpu_to_raw
            );
        }
        for note in &self.notes {
            let _ = writeln!(text, "\n{note}");
        }
        text
    }
}
