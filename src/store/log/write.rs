//! What the log hands to the flusher, and how a change learns that it is durable. Does no I/O.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::device::{AlignedBuf, WriteSlice};
use crate::format::{Footer, Layout, LogKind, Seed, Sequence};

/// Number of an append; when this ticket is durable, so is the append.
pub type Ticket = u64;

/// What is to be written now.
pub struct Due {
    /// Bytes at their places.
    pub writes: Vec<PendingWrite>,
    /// Sealed regions whose footers are written after `writes`.
    pub sealed: Vec<SealedRegion>,
    /// All changes up to this ticket are on the device once this and everything taken earlier is.
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
    /// What to do once they are written.
    pub after: AfterWrite,
}

/// What a finished write means to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterWrite {
    /// The header of a region was written; its footer comes later.
    Header,
    /// The frozen chunk with this number can be dropped from memory.
    DropChunk(u64),
    /// Tombstones of the log of purges were written.
    Purges,
    /// Everything of the region was written, its footer if it has one.
    Sealed,
}

/// What can be written now.
#[derive(Default)]
pub struct Ready {
    /// Bytes at their places.
    pub writes: Vec<PendingWrite>,
    /// Sealed regions whose footers are written after `writes`.
    pub sealed: Vec<SealedRegion>,
    /// Appends up to this ticket are in `writes`; 0 if no chunk is ready.
    pub ticket: Ticket,
}

/// A region that takes no more appends, and its footer.
pub struct SealedRegion {
    /// The region.
    pub region: u32,
    /// Its generation.
    pub generation: Sequence,
    /// The log it belongs to.
    pub log: LogKind,
    /// The checksum seed of the generation.
    pub seed: Seed,
    /// What is in it.
    pub footer: Footer,
    /// When it was sealed.
    pub stamp: Timestamp,
}

impl SealedRegion {
    /// The write of the footer, in a buffer aligned to `memory_alignment`. Takes about a millisecond
    /// for 100 000 entries: do not call it under the append lock.
    pub fn encode(self, layout: &Layout, memory_alignment: usize) -> PendingWrite {
        let SealedRegion { region, generation, log, seed, footer, stamp } = self;
        let len = footer.len(layout.alignment);
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

/// A change that waits for its ticket to be durable.
pub(in crate::store) struct Waiter {
    pub(in crate::store) ticket: Ticket,
    pub(in crate::store) done: oneshot::Sender<bool>,
}
