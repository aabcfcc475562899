//! One row of the table: the way to transfer, the offset of each transfer, the results.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::cells::Cell;
use crate::cli::bench::draws::mix;
use crate::cli::bench::latencies::Latencies;
use crate::cli::bench::process::ProcessorTime;
use crate::clock::Stopwatch;
use crate::device::{EngineKind, IoMode};

/// An engine and whether it goes through the page cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) name: &'static str,
    pub(super) kind: EngineKind,
    pub(super) io: IoMode,
}

/// Where the transfers of all slots go.
#[derive(Clone)]
pub(super) struct Offsets {
    next: Arc<AtomicU64>,
    is_sequential: bool,
    /// Offsets are multiples of `step` bytes; `steps` of them fit.
    step: u64,
    steps: u64,
}

impl Offsets {
    /// For a cell's transfers on a device of `size` bytes. Each `row` begins elsewhere, as the
    /// device may have cached what the previous row read.
    pub(super) fn new(cell: &Cell, step: u64, size: u64, row: u64) -> Offsets {
        let steps = (size - cell.block.next_multiple_of(step).min(size)) / step + 1;
        let next = Arc::new(AtomicU64::new(mix(row)));
        Offsets { next, is_sequential: cell.kind.is_sequential(), step, steps }
    }

    pub(super) fn next(&self) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let drawn = if self.is_sequential { number } else { mix(number) };
        drawn % self.steps * self.step
    }
}

/// Results of a row.
pub(super) struct Measured {
    pub(super) latencies: Latencies,
    pub(super) elapsed: Duration,
    /// Of this process, the measuring included.
    pub(super) cpu: Duration,
    /// Alignment of the transfers.
    pub(super) alignment: u32,
    pub(super) is_direct: bool,
}

/// Measures what `work` does; it gives the latencies of its transfers.
pub(super) fn measured(
    (alignment, is_direct): (u32, bool),
    work: impl FnOnce() -> anyhow::Result<Latencies>,
) -> anyhow::Result<Measured> {
    let (watch, before) = (Stopwatch::start(), ProcessorTime::own()?);
    let latencies = work()?;
    let cpu = (ProcessorTime::own()? - before).total();
    Ok(Measured { latencies, elapsed: watch.elapsed(), cpu, alignment, is_direct })
}

#[cfg(test)]
mod tests {
    use super::super::cells::Kind;
    use super::*;

    const SIZE: u64 = 1 << 20;

    fn offsets(kind: Kind, (block, step): (u64, u64), row: u64) -> Offsets {
        let (group, depth, alignment) = ("", 1, None);
        let cell = Cell { group, kind, block, depth, alignment, also_buffered: false };
        Offsets::new(&cell, step, SIZE, row)
    }

    #[test]
    fn random_transfers_stay_on_the_device_and_reach_its_ends() {
        for (block, step) in [(4096, 4096), (3000, 1), (512 << 10, 512 << 10)] {
            let offsets = offsets(Kind::RandomRead, (block, step), 0);
            let drawn: Vec<_> = (0..100_000).map(|_| offsets.next()).collect();
            let last = SIZE - block;
            assert!(drawn.iter().all(|at| at % step == 0 && *at <= last), "{block}");
            assert!(drawn.iter().any(|at| *at < 1 << 14), "{block}");
            assert!(drawn.iter().any(|at| *at > last - (1 << 14)), "{block}");
        }
    }

    #[test]
    fn sequential_transfers_follow_one_another_and_begin_anew() {
        const BLOCK: u64 = 256 << 10;
        let offsets = offsets(Kind::SequentialRead, (BLOCK, BLOCK), 3);
        let drawn: Vec<_> = (0..5).map(|_| offsets.next()).collect();
        assert!(drawn.windows(2).all(|two| two[1] == (two[0] + BLOCK) % SIZE), "{drawn:?}");
    }

    #[test]
    fn each_row_transfers_other_blocks_in_the_same_way_every_time() {
        for kind in [Kind::RandomRead, Kind::SequentialRead] {
            for (block, step) in [(512, 512), (4096, 4096), (3000, 1)] {
                let drawn = |row| -> Vec<_> {
                    let offsets = offsets(kind, (block, step), row);
                    (0..16).map(|_| offsets.next()).collect()
                };
                for row in 0..50 {
                    let (row, after) = (drawn(row), (drawn(row), drawn(row + 1)));
                    assert_eq!(row, after.0, "drawn from the row's number alone");
                    assert_ne!(row, after.1, "{kind:?} of {block} bytes");
                    let both = || row.iter().chain(&after.1);
                    assert!(both().all(|at| at % step == 0 && at + block <= SIZE), "{block}");
                    let same = row.iter().filter(|at| after.1.contains(at)).count();
                    let is_sequential = kind == Kind::SequentialRead;
                    assert!(is_sequential || same < 8, "{same} of 16 are of the row before");
                }
            }
        }
    }
}
