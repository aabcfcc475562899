//! The limit that engines are compared with, a plain loop: a thread for each transfer in flight
//! does one `pread` or `pwrite` after another on a file opened with `O_DIRECT` and keeps its
//! buffer.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use super::arguments::DeviceArgs;
use super::cells::Cell;
use super::row::{Measured, Offsets, measured};
use crate::cli::bench::draws::mix;
use crate::cli::bench::latencies::Latencies;
use crate::clock::Stopwatch;
use crate::device::{ALIGNMENT_MAX, AlignedBuf, DeviceKind, probe};

/// Measures a cell. A device without direct I/O is read through the page cache.
pub(super) fn run(arguments: &DeviceArgs, cell: &Cell, row: u64) -> anyhow::Result<Measured> {
    let probed = probe(&arguments.path)?;
    let direct = if probed.direct_reads { libc::O_DIRECT } else { 0 };
    // Claims the device for writes, as `Device` does for the other rows.
    let is_block = probed.kind == DeviceKind::Block;
    let exclusive = if is_block && cell.kind.is_write() { libc::O_EXCL } else { 0 };
    let file = OpenOptions::new()
        .read(true)
        .write(cell.kind.is_write())
        .custom_flags(direct | exclusive)
        .open(&arguments.path)?;
    if !is_block && cell.kind.is_write() {
        file.try_lock()?;
    }
    let file = Arc::new(file);
    let offsets = Offsets::new(cell, cell.block, probed.size, row);
    measured((probed.alignment.unwrap_or(1), probed.direct_reads), || {
        let mut slots = Vec::new();
        let (watch, time) = (Stopwatch::start(), arguments.row());
        for number in 0..cell.depth {
            let (cell, file, offsets) = (*cell, Arc::clone(&file), offsets.clone());
            let slot = move || slot(&file, (&cell, number), &offsets, (watch, time));
            slots.push(thread::Builder::new().spawn(slot)?);
        }
        let mut all = Latencies::new();
        for slot in slots {
            all.merge(&slot.join().ok().context("a thread panicked")??);
        }
        Ok(all)
    })
}

fn slot(
    file: &File,
    (cell, number): (&Cell, usize),
    offsets: &Offsets,
    (watch, time): (Stopwatch, Duration),
) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::new();
    let mut buf = AlignedBuf::zeroed(usize::try_from(cell.block)?, ALIGNMENT_MAX as usize);
    fill(&mut buf, number);
    loop {
        let begun = watch.elapsed();
        if cell.kind.is_write() {
            file.write_all_at(&buf, offsets.next())?;
        } else {
            file.read_exact_at(&mut buf, offsets.next())?;
        }
        let ended = watch.elapsed();
        latencies.record(ended - begun);
        // At the end, so that every slot has made a transfer.
        if ended >= time {
            return Ok(latencies);
        }
    }
}

/// Fills `bytes` with random ones, which a device must write: zeros may cost nothing.
pub(super) fn fill(bytes: &mut [u8], number: usize) {
    for (word, bytes) in (0u64..).zip(bytes.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&mix(word ^ (number as u64) << 32).to_le_bytes());
    }
}
