//! Which transfers are measured: sizes, depths, alignments, ranges. Owns the grid; transfers
//! nothing.

use super::arguments::DeviceArgs;
use crate::device::{ALIGNMENT_MAX, ALIGNMENT_MIN, ProbeReport};
use crate::store::RangeOptions;

/// Bytes of an exact read, at any offset.
pub(super) const EXACT_LEN: u64 = 3000;
const BLOCK: u64 = 4096;
const DEPTH: usize = 16;

const SIZES: [u64; 8] = [512, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 2 << 20, 4 << 20];
const SIZES_QUICK: [u64; 3] = [4 << 10, 64 << 10, 1 << 20];
const DEPTHS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
const DEPTHS_QUICK: [usize; 2] = [1, 32];

/// What each transfer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reads a block anywhere.
    RandomRead,
    /// Reads the block after that of the previous transfer.
    SequentialRead,
    /// Reads exactly so many bytes from any offset on; the device rounds out to its alignment.
    ExactRead,
    /// Writes a block anywhere.
    RandomWrite,
    /// Writes the block after that of the previous transfer.
    SequentialWrite,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::RandomRead => "random read",
            Kind::SequentialRead => "sequential read",
            Kind::ExactRead => "exact read",
            Kind::RandomWrite => "random write",
            Kind::SequentialWrite => "sequential write",
        }
    }

    pub(super) fn is_write(self) -> bool {
        matches!(self, Kind::RandomWrite | Kind::SequentialWrite)
    }

    pub(super) fn is_sequential(self) -> bool {
        matches!(self, Kind::SequentialRead | Kind::SequentialWrite)
    }
}

/// One kind of transfer, measured raw and with every engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// The part of the table that it is compared within.
    pub(super) group: &'static str,
    pub(super) kind: Kind,
    /// Bytes of a transfer.
    pub(super) block: u64,
    /// Transfers in flight.
    pub(super) depth: usize,
    /// Alignment that the device is opened with; `None` takes its own.
    pub(super) alignment: Option<u32>,
    /// Measured through the page cache too.
    pub(super) also_buffered: bool,
}

impl Cell {
    /// The cell that the plain loop does instead: it cannot do exact reads, so it reads whole
    /// blocks. The device's smallest transfer is `least` bytes.
    pub(super) fn raw(&self, least: u64) -> Cell {
        match self.kind {
            Kind::ExactRead => {
                Cell { kind: Kind::RandomRead, block: BLOCK.max(least), alignment: None, ..*self }
            }
            _ => *self,
        }
    }

    pub(super) fn name(&self) -> String {
        format!("{} of {} bytes at depth {}", self.kind.as_str(), self.block, self.depth)
    }
}

/// The cells that the device allows.
pub(super) fn plan(arguments: &DeviceArgs, probed: &ProbeReport) -> Vec<Cell> {
    let quick = arguments.quick;
    let cell = |group, kind, block, depth| Cell {
        group,
        kind,
        block,
        depth,
        alignment: None,
        also_buffered: false,
    };
    let sizes: &[u64] = if quick { &SIZES_QUICK } else { &SIZES };
    let depths: &[usize] = if quick { &DEPTHS_QUICK } else { &DEPTHS };
    let mut cells = Vec::new();
    for size in sizes {
        let cell = cell("sizes", Kind::RandomRead, *size, DEPTH);
        cells.push(Cell { also_buffered: true, ..cell });
    }
    for depth in depths {
        cells.push(cell("depths", Kind::RandomRead, BLOCK, *depth));
    }
    let range = RangeOptions::default();
    let piece = range.chunk_size as u64;
    for (group, depth) in [("range engine off", 1), ("range engine on", range.concurrency)] {
        let cell = cell(group, Kind::SequentialRead, piece, depth);
        cells.push(Cell { also_buffered: true, ..cell });
    }
    let mut alignment = ALIGNMENT_MIN;
    while alignment <= ALIGNMENT_MAX {
        let is_wanted = !quick || [512, 4096, 65536].contains(&alignment);
        if probed.alignment.is_none_or(|least| alignment >= least) && is_wanted {
            let cell = cell("alignments", Kind::ExactRead, EXACT_LEN, DEPTH);
            cells.push(Cell { alignment: Some(alignment), ..cell });
        }
        alignment *= 2;
    }
    if arguments.write {
        for size in sizes {
            cells.push(cell("writes", Kind::RandomWrite, *size, DEPTH));
        }
        for depth in [1, DEPTH] {
            cells.push(cell("writes", Kind::SequentialWrite, 1 << 20, depth));
        }
    }
    let least = u64::from(probed.alignment.unwrap_or(ALIGNMENT_MIN));
    // Transfers of whole blocks, each at most a quarter of the device.
    cells.retain(|cell| {
        let is_whole = cell.kind == Kind::ExactRead || cell.block.is_multiple_of(least);
        let len = cell.block.max(u64::from(cell.alignment.unwrap_or(0)));
        is_whole && len <= probed.size / 4
    });
    cells
}
