//! The state of the log. Owns the order of all changes: it is used under one lock, the append lock.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::format::{Footer, Layout, Seed, Sequence, Superblock};
use crate::store::log::chunks::{Chunks, InMemory};
use crate::store::log::limits::LogLimits;
use crate::store::log::owed_records::OwedRecords;
use crate::store::log::purges::PurgeLog;
use crate::store::log::removals::Removals;
use crate::store::log::sequences::Sequences;
use crate::store::log::write::Ticket;
use crate::store::purges::Floors;
use crate::store::region::table::RegionTable;

pub struct OpenRegion {
    pub(super) region: u32,
    pub(super) generation: Sequence,
    pub(super) seed: Seed,
    pub(super) footer: Footer,
    /// A write to the region failed: it takes no more.
    pub(super) broken: bool,
}

/// Regions whose entries recovery found although a header or footer is missing.
#[derive(Default)]
pub struct Incomplete {
    /// Regions without a footer after a crash, and the footer that each should have.
    pub unsealed: HashMap<u32, Footer>,
    /// Regions whose header is damaged, or of an earlier generation than their footer.
    pub headerless: Vec<u32>,
}

/// The log of one device.
pub struct Log {
    pub(super) layout: Layout,
    pub(super) limits: LogLimits,
    pub(super) regions: Arc<RegionTable>,
    pub(super) sequences: Sequences,
    pub(super) open: Option<OpenRegion>,
    pub(super) chunks: Chunks,
    pub(super) purges: PurgeLog,
    /// Appends up to this ticket were taken to be written.
    pub(super) taken: Ticket,
    /// The tail was due, but an append ahead of it was not filled.
    pub(super) tail_is_late: bool,
    /// Entries in the last sealed region: as many are expected in the next.
    pub(super) records_expected: usize,
    pub(super) free: VecDeque<u32>,
    pub(super) appended: Ticket,
    /// Headers and footers that recovery found missing, to be written once the epoch is raised.
    pub(super) incomplete: Incomplete,
    pub(super) recovering: bool,
    pub(super) superblock: Superblock,
    pub(super) superblock_dirty: bool,
    /// Entries were changed in place on the device since the last round of the flusher.
    pub(super) modified: bool,
    /// A region's entries were dropped from the index, and it is not durably free yet.
    pub(super) freeing: bool,
    /// Removals whose tombstones are not durable yet.
    pub(super) removals: Removals,
    /// Purge records that are not durable yet.
    pub(super) owed_records: OwedRecords,
    /// The floors of purge records that the device has.
    pub(super) durable_floors: Floors,
    pub(super) reinsert_credit: u64,
    /// Bytes that clients stored since the device was opened.
    pub(super) stored: u64,
    /// The flusher has a deadline for the tail.
    pub(super) tail_is_due: bool,
}

impl Log {
    /// The log of a device just opened, with no region known to be free yet.
    pub fn new(
        superblock: Superblock,
        regions: Arc<RegionTable>,
        (memory_alignment, sequences, limits): (usize, Sequences, LogLimits),
    ) -> Log {
        Log {
            layout: superblock.layout,
            limits,
            regions,
            sequences,
            open: None,
            chunks: Chunks::new(superblock.layout, memory_alignment),
            purges: PurgeLog::new(superblock.layout, limits.footer),
            taken: 0,
            tail_is_late: false,
            records_expected: 0,
            free: VecDeque::new(),
            appended: 0,
            incomplete: Incomplete::default(),
            recovering: true,
            superblock,
            superblock_dirty: false,
            modified: false,
            freeing: false,
            removals: Removals::default(),
            owed_records: OwedRecords::default(),
            durable_floors: Floors { hard: superblock.record_floor, soft: superblock.soft_floor },
            reinsert_credit: 0,
            stored: 0,
            tail_is_due: false,
        }
    }

    /// The superblock as it should be, and whether it is still to be written.
    pub fn superblock(&self) -> (Superblock, bool) {
        (self.superblock, self.superblock_dirty)
    }

    /// The memory alignment of write buffers, in bytes.
    pub fn memory_alignment(&self) -> usize {
        self.chunks.memory_alignment()
    }

    /// The last ticket given.
    pub fn appended(&self) -> Ticket {
        self.appended
    }

    /// Notes a change in place on the device, which needs a flush like an append. Gives the ticket with
    /// which it is durable.
    pub fn note_modified(&mut self) -> Ticket {
        self.modified = true;
        self.appended += 1;
        self.appended
    }

    /// Whether anything was changed in place since the last call.
    pub fn take_modified(&mut self) -> bool {
        std::mem::take(&mut self.modified)
    }

    /// Whether the index has every entry that a start would find on the device.
    pub fn is_indexed(&self) -> bool {
        !self.lacks_entries() && self.removals.waiting_count() == 0
    }

    pub(super) fn lacks_entries(&self) -> bool {
        self.recovering || self.freeing || self.regions.unindexed_count() > 0
    }

    /// The bytes `range` of a region, if all of them are in memory.
    pub fn in_memory(&mut self, region: u32, range: Range<u64>) -> InMemory<'_> {
        self.chunks.get(region, range)
    }
}
