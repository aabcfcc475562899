//! Begins and ends regions, and epochs, which end regions too. Owns headers and footers.

use std::sync::Arc;

use crate::clock::{TimePair, Timestamp};
use crate::device::WriteSlice;
use crate::format::{Footer, LogKind, RegionHeader, RegionUse, Sequence, Superblock};
use crate::store::log::appender::Appender;
use crate::store::log::core::{Incomplete, Log};
use crate::store::log::write::{AfterWrite, SealedRegion, Ticket};
use crate::store::purges::Floors;
use crate::store::region::state::RegionState;

impl Log {
    /// Opens a free region with a new generation.
    pub(super) fn begin_region(&mut self, log: LogKind, now: Timestamp) -> Option<(u32, Sequence)> {
        let region = self.free.pop_front()?;
        let generation = self.draw();
        self.regions.begin_generation(region, generation, RegionState::Open);
        self.regions.on_device(region).set_log(log, generation);
        let region_use = RegionUse::Log;
        let header = RegionHeader { generation, region_use, stamp: now, touched: false, log };
        let block = self.region_header_block(region, &header);
        self.chunks.push(region, 0, block, AfterWrite::Header);
        Some((region, generation))
    }

    /// Hands the open chunk to the device, after the queued tombstones of purges: its ticket covers
    /// them too.
    pub(super) fn freeze(&mut self, now: Timestamp) {
        self.push_purges(now);
        self.chunks.freeze(self.appended);
    }

    /// A block with a region header, ready to be written.
    pub fn region_header_block(&self, region: u32, header: &RegionHeader) -> WriteSlice {
        let mut block = self.chunks.buffer(u64::from(self.layout.alignment));
        let encoded = header.encode(self.superblock.uuid, region);
        block[..encoded.len()].copy_from_slice(&encoded);
        WriteSlice::whole(Arc::new(block))
    }

    /// Ends the open region with its footer.
    pub fn seal(&mut self, now: Timestamp) {
        self.freeze(now);
        let Some(open) = self.open.take() else { return };
        // An eighth more than the last region had; unused capacity costs no memory.
        self.records_expected = open.footer.records.len() / 8 * 9;
        self.write_footer(open.region, open.generation, open.footer, now);
    }

    pub(super) fn write_footer(
        &mut self,
        region: u32,
        generation: Sequence,
        footer: Footer,
        stamp: Timestamp,
    ) {
        let seed = self.regions.seed_of(self.regions.generation_at(region, generation));
        let log = self.regions.on_device(region).log();
        self.chunks.push_footer(SealedRegion { region, generation, log, seed, footer, stamp });
    }

    /// Writes the footers and headers that recovery found missing, once an epoch has begun.
    pub(super) fn complete_recovered(&mut self, now: Timestamp) {
        if !self.has_epoch() || self.recovering {
            return;
        }
        let Incomplete { unsealed, mut headerless } = std::mem::take(&mut self.incomplete);
        let mut unsealed: Vec<_> = unsealed.into_iter().collect();
        // They were found in random order; a simulation must not vary.
        unsealed.sort_unstable_by_key(|(region, _)| *region);
        headerless.sort_unstable();
        for region in headerless {
            let row = self.regions.on_device(region);
            // Open: it must not be freed before this write is done, which would overwrite the header of
            // the free region.
            row.set_state(RegionState::Open);
            let header = RegionHeader {
                generation: row.generation(),
                region_use: RegionUse::Log,
                stamp: now,
                touched: row.is_touched(),
                log: row.log(),
            };
            let slice = self.region_header_block(region, &header);
            let is_last = unsealed.binary_search_by_key(&region, |(region, _)| *region).is_err();
            let after = if is_last { AfterWrite::Sealed } else { AfterWrite::Header };
            self.chunks.push(region, 0, slice, after);
        }
        for (region, footer) in unsealed {
            let generation = self.regions.on_device(region).generation();
            self.write_footer(region, generation, footer, now);
        }
    }

    /// Recovery is complete; `incomplete` are the regions with headers or footers still to be written.
    pub fn recovered(&mut self, incomplete: Incomplete, now: Timestamp) {
        self.recovering = false;
        // Blank regions were found in the order of reads; fill a new device from its start.
        self.free.make_contiguous().sort_unstable();
        self.incomplete = incomplete;
        self.complete_recovered(now);
    }

    /// Begins the next epoch if it is durable; true if it did. Seals the open region, as all sequences
    /// of a region are of one epoch. Waits while reclaim may need the rest of the last region to make
    /// room.
    pub fn begin_epoch_if_due(&mut self, now: Timestamp) -> bool {
        let is_last_needed = self.free.is_empty()
            && self.open.is_some()
            && self.sequences.has_room(Appender::Reclaim);
        let begins = self.sequences.may_begin() && !is_last_needed;
        if begins {
            self.begin_epoch(now);
        }
        begins
    }

    pub(super) fn begin_epoch(&mut self, now: Timestamp) {
        self.seal(now);
        self.seal_purges(now);
        self.sequences.begin(self.superblock.epoch);
        self.complete_recovered(now);
    }

    /// The superblock `written` is durable. True if an epoch began with it.
    pub fn superblock_written(&mut self, written: &Superblock, now: Timestamp) -> bool {
        if *written == self.superblock {
            self.superblock_dirty = false;
        }
        self.regions.forget_below(written.purge_floor);
        self.durable_floors = Floors { hard: written.record_floor, soft: written.soft_floor };
        self.owed_records.floors_durable(self.durable_floors);
        if self.sequences.is_raising() && written.epoch == self.superblock.epoch {
            self.sequences.note_durable();
        }
        self.begin_epoch_if_due(now)
    }

    /// Makes every present entry dead and seals the open region, so that all older regions are dead.
    /// Gives the floor and the ticket with which it is durable. Needs no epoch.
    pub fn raise_purge_floor(&mut self, now: TimePair) -> (Sequence, Ticket) {
        let floor = self.sequences_end();
        self.seal(now.cache);
        self.superblock.purge_floor = floor;
        (floor, self.renew_superblock(now))
    }

    pub(super) fn push_purges(&mut self, now: Timestamp) {
        if let Some(blocks) = self.purges.take_blocks(self.chunks.memory_alignment(), now) {
            self.chunks.push(blocks.region, blocks.offset, blocks.slice, AfterWrite::Purges);
        }
    }

    /// Ends the open region of the log of purges with its footer.
    pub(super) fn seal_purges(&mut self, now: Timestamp) {
        self.push_purges(now);
        if let Some(sealed) = self.purges.end(now) {
            self.chunks.push_footer(sealed);
        }
    }
}
