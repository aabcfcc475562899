//! What the log hands out to be written, and how a change is told that it is durable. Owns no bytes of
//! its own and does no I/O.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::device::{AlignedBuf, WriteSlice};
use crate::format::{Footer, Layout, LogKind, Seed, Sequence};

/// Counts appends; a waiter knows from it whether its append is on the device.
pub type Ticket = u64;

/// What is to be written now.
pub struct Due {
    /// Bytes at their places.
    pub writes: Vec<PendingWrite>,
    /// Regions that get their footers behind them.
    pub sealed: Vec<SealedRegion>,
    /// All changes up to this ticket are on the device once this and all that was taken before is.
    pub complete: Ticket,
}

/// Bytes for the device.
#[derive(Debug)]
pub struct PendingWrite {
    /// Region they belong to.
    pub region: u32,
    /// Byte offset in the region.
    pub offset: u64,
    /// The bytes.
    pub slice: WriteSlice,
    /// What to do when they are written.
    pub after: AfterWrite,
}

/// What a finished write means to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterWrite {
    /// The header of a region is there whose footer comes later.
    Header,
    /// The frozen chunk with this number can be dropped from memory.
    DropChunk(u64),
    /// Tombstones of the log of purges are there.
    Purges,
    /// The region is as complete on the device as it will be.
    Sealed,
}

/// What can be written now.
#[derive(Default)]
pub struct Ready {
    /// Bytes at their places.
    pub writes: Vec<PendingWrite>,
    /// Regions that get their footers behind them.
    pub sealed: Vec<SealedRegion>,
    /// Appends up to this ticket are in `writes`; 0 if no chunk is.
    pub ticket: Ticket,
}

/// A region that takes no more appends, and its footer.
pub struct SealedRegion {
    /// The region.
    pub region: u32,
    /// Its life.
    pub generation: Sequence,
    /// Which log that is of.
    pub log: LogKind,
    /// The seed of that life.
    pub seed: Seed,
    /// What is in it.
    pub footer: Footer,
    /// When it was sealed.
    pub stamp: Timestamp,
}

impl SealedRegion {
    /// The write of the footer, in a buffer at a multiple of `memory_alignment`. Takes its time, about a
    /// millisecond for 100 000 entries: not for the append lock.
    pub fn encode(self, layout: &Layout, memory_alignment: usize) -> PendingWrite {
        let SealedRegion { region, generation, log, seed, footer, stamp } = self;
        let len = Footer::len_for(footer.records.len(), footer.kills.len(), layout.alignment);
        let buf_len = usize::try_from(len).unwrap_or(usize::MAX);
        let mut block = AlignedBuf::zeroed(buf_len, memory_alignment);
        footer.encode_into(&mut block, (generation, log), seed, stamp);
        PendingWrite {
            region,
            offset: layout.region_size - len,
            slice: WriteSlice::whole(Arc::new(block)),
            after: AfterWrite::Sealed,
        }
    }
}

/// Waits for a ticket to be durable.
pub(in crate::store) struct Waiter {
    pub(in crate::store) ticket: Ticket,
    pub(in crate::store) done: oneshot::Sender<bool>,
}
