//! What one row of the table is: a way to transfer, where each transfer goes, what came of them.

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
    /// Offsets are multiples of this many bytes, and so many fit.
    step: u64,
    steps: u64,
}

impl Offsets {
    /// For transfers of `len` bytes on a device of `size` bytes.
    pub(super) fn new(cell: &Cell, step: u64, size: u64) -> Offsets {
        let steps = (size - cell.block.next_multiple_of(step).min(size)) / step + 1;
        let next = Arc::new(AtomicU64::new(0));
        Offsets { next, is_sequential: cell.kind.is_sequential(), step, steps }
    }

    pub(super) fn next(&self) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let drawn = if self.is_sequential { number } else { mix(number) };
        drawn % self.steps * self.step
    }
}

/// What came of a row.
pub(super) struct Measured {
    pub(super) latencies: Latencies,
    pub(super) elapsed: Duration,
    /// Of this process: what measures is in it.
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

    fn offsets(kind: Kind, block: u64, step: u64) -> Offsets {
        let (group, depth, alignment) = ("", 1, None);
        let cell = Cell { group, kind, block, depth, alignment, also_buffered: false };
        Offsets::new(&cell, step, 1 << 20)
    }

    #[test]
    fn random_transfers_stay_on_the_device_and_reach_its_ends() {
        for (block, step) in [(4096, 4096), (3000, 1), (512 << 10, 512 << 10)] {
            let offsets = offsets(Kind::RandomRead, block, step);
            let drawn: Vec<_> = (0..100_000).map(|_| offsets.next()).collect();
            let last = (1 << 20) - block;
            assert!(drawn.iter().all(|at| at % step == 0 && *at <= last), "{block}");
            assert!(drawn.iter().any(|at| *at < 1 << 14), "{block}");
            assert!(drawn.iter().any(|at| *at > last - (1 << 14)), "{block}");
        }
    }

    #[test]
    fn sequential_transfers_follow_one_another_and_begin_anew() {
        let offsets = offsets(Kind::SequentialRead, 256 << 10, 256 << 10);
        let drawn: Vec<_> = (0..5).map(|_| offsets.next() >> 10).collect();
        assert_eq!(drawn, [0, 256, 512, 768, 0]);
    }
}
