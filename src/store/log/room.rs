//! Room in the log: what is free, and how much each kind of appender may take. Owns the limits.

use crate::format::{Footer, FooterCounts, Layout, round_up};
use crate::store::log::appender::{Appender, NoRoom};
use crate::store::log::core::{Log, OpenRegion};
use crate::store::log::slot::SlotSize;

/// Bytes beyond [`LogLimits::backlog`](super::limits::LogLimits) from which on removals have to wait.
pub const REMOVALS_BACKLOG_MAX: u64 = 4 << 20;

/// Free regions that stores may not use: reclaim needs room to move entries to.
pub const FREE_RESERVE: usize = 1;

/// Without a free region, removals may use one part in this many of the open region; the rest is for
/// reclaim.
pub const REMOVALS_SHARE: u64 = 2;

/// One byte may be re-inserted for this many stored ones: write amplification by re-insertion is at
/// most 1/16.
pub const REINSERT_SHARE: u64 = 16;

/// Free regions that reclaim keeps ahead: a 32nd of the device, at least 2 and at most 64.
pub fn free_target(layout: &Layout) -> usize {
    (layout.region_count as usize / 32).clamp(2, 64)
}

impl Log {
    /// Whether reclaim has regions to free.
    pub fn is_short_of_regions(&self) -> bool {
        self.free.len() < free_target(&self.layout)
    }

    pub(super) fn fits(&self, open: &OpenRegion, slot: SlotSize, offset: u64) -> bool {
        let counts = FooterCounts {
            records: open.footer.records.len() + 1,
            tombstones: open.footer.tombstones.len() + slot.tombstones,
            purge_records: open.footer.purge_records.len() + slot.purge_records,
        };
        // A start with the same memory can read it whole then.
        let is_full = counts.memory() > self.limits.footer
            || open.footer.records.len() >= self.limits.records;
        if is_full && open.footer != Footer::default() {
            return false;
        }
        let alignment = self.layout.alignment;
        round_up(offset + slot.len, u64::from(alignment)) + counts.len(alignment)
            <= self.layout.region_size
    }

    pub(super) fn has_open_room(&self) -> bool {
        self.free.len() >= FREE_RESERVE && self.open.as_ref().is_some_and(|open| !open.broken)
    }

    /// Whether the reason to wait is gone.
    pub fn has_room(&self, why: NoRoom) -> bool {
        match why {
            NoRoom::Regions => self.free.len() > FREE_RESERVE || self.has_open_room(),
            NoRoom::Purges => {
                self.purges.has_room(1, 1) || self.has_region_for_purges(Appender::Removal)
            }
            NoRoom::Backlog => self.chunks.backlog() <= self.limits.backlog,
            // Not the log's to say.
            NoRoom::Index => true,
            NoRoom::Epoch => self.sequences.has_room(Appender::Client),
        }
    }

    /// The numbers of the free regions.
    pub fn free_regions(&self) -> impl Iterator<Item = u32> + '_ {
        self.free.iter().copied()
    }

    /// Free regions.
    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// A region is durably free.
    pub fn add_free(&mut self, region: u32) {
        self.regions.set_free(region);
        self.free.push_back(region);
    }

    /// Adds regions that were found free at the start.
    pub fn add_vacant(&mut self, regions: Vec<u32>) {
        for region in regions {
            self.add_free(region);
        }
    }

    /// Counts bytes that a client stored: they earn reclaim credit to re-insert a share of them.
    pub fn count_stored(&mut self, bytes: u64) {
        self.stored += bytes;
        let limit = self.layout.region_size / 2;
        self.reinsert_credit = (self.reinsert_credit + bytes / REINSERT_SHARE).min(limit);
    }

    /// Bytes of slots that clients stored since the device was opened.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// Spends `bytes` of the credit to re-insert; false if it does not suffice.
    pub fn spend_reinsert(&mut self, bytes: u64) -> bool {
        let enough = self.reinsert_credit >= bytes;
        if enough {
            self.reinsert_credit -= bytes;
        }
        enough
    }

    /// The credit to re-insert, in bytes.
    pub fn reinsert_credit(&self) -> u64 {
        self.reinsert_credit
    }

    /// Memory of what the footers of the open regions will be made of, in bytes.
    pub fn footer_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.footer.memory()) + self.purges.footer_bytes()
    }

    /// Bytes that wait to be written.
    pub fn backlog(&self) -> u64 {
        self.chunks.backlog()
    }

    /// Whether the log of purges may begin a region. Removals must leave reclaim the last free region,
    /// or its share of the open one: without room to move entries to, reclaim frees nothing.
    pub(super) fn has_region_for_purges(&self, appender: Appender) -> bool {
        let share = self.layout.region_size / REMOVALS_SHARE;
        let has_share =
            self.open.as_ref().is_some_and(|open| !open.broken) && self.chunks.cursor() <= share;
        match self.free.len() {
            0 => false,
            1 => appender == Appender::Reclaim || has_share,
            _ => true,
        }
    }
}
