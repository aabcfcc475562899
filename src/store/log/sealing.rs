//! Beginnings and ends of regions, and of epochs, which end them. Owns headers and footers.

use std::sync::Arc;

use crate::clock::{TimePair, Timestamp};
use crate::device::WriteSlice;
use crate::format::{Footer, LogKind, RegionHeader, RegionUse, Sequence, Superblock};
use crate::store::log::appender::Appender;
use crate::store::log::core::{Incomplete, Log};
use crate::store::log::write::{AfterWrite, SealedRegion, Ticket};
use crate::store::region::state::RegionState;

impl Log {
    /// Begins a life of a free region.
    pub(super) fn begin_region(&mut self, log: LogKind, now: Timestamp) -> Option<(u32, Sequence)> {
        let region = self.free.pop_front()?;
        let generation = self.draw();
        self.regions.begin_life(region, generation, RegionState::Open);
        self.regions.on_device(region).set_log(log, generation);
        let region_use = RegionUse::Log;
        let header = RegionHeader { generation, region_use, stamp: now, touched: false, log };
        let block = self.region_header_block(region, &header);
        self.chunks.push(region, 0, block, AfterWrite::Header);
        Some((region, generation))
    }

    /// Hands the open chunk to the device, and before it the tombstones of purges: with its ticket
    /// they count as written.
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
        // As many again and an eighth more; what is not used costs no memory.
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
        let seed = self.regions.seed_of(self.regions.life_of(region, generation));
        let log = self.regions.on_device(region).log();
        self.chunks.push_footer(SealedRegion { region, generation, log, seed, footer, stamp });
    }

    /// Writes the footers and headers that recovery missed, once there is an epoch to write in.
    pub(super) fn complete_recovered(&mut self, now: Timestamp) {
        if !self.has_epoch() || self.recovering {
            return;
        }
        let Incomplete { unsealed, mut headerless } = std::mem::take(&mut self.incomplete);
        let mut unsealed: Vec<_> = unsealed.into_iter().collect();
        // The order in which they were found differs from run to run; a simulated one must not.
        unsealed.sort_unstable_by_key(|(region, _)| *region);
        headerless.sort_unstable();
        for region in headerless {
            let row = self.regions.on_device(region);
            // It must not be freed before this write is done, which would land on the header of the
            // free region.
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

    /// Recovery is complete, but for what is still to be written of some regions.
    pub fn recovered(&mut self, incomplete: Incomplete, now: Timestamp) {
        self.recovering = false;
        // Blank regions were found in the order of the reads; a new device is filled from its start.
        self.free.make_contiguous().sort_unstable();
        self.incomplete = incomplete;
        self.complete_recovered(now);
    }

    /// Begins the epoch that is durable, if one waits to begin; true if it did. What is open is sealed,
    /// since the sequences of a region are all of one epoch: so not while reclaim may need the rest of
    /// the last region to make room.
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

    /// The superblock that was read from the log's state is durable. True if an epoch began with it.
    pub fn superblock_written(&mut self, written: &Superblock, now: Timestamp) -> bool {
        if *written == self.superblock {
            self.superblock_dirty = false;
        }
        self.regions.forget_below(written.purge_floor);
        if self.sequences.is_raising() && written.epoch == self.superblock.epoch {
            self.sequences.note_durable();
        }
        self.begin_epoch_if_due(now)
    }

    /// Makes every present entry dead and seals the open region, so that older regions are wholly dead.
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
