//! The log: open region, free regions, sequence numbers and purge floor. Owns the order of all
//! mutations (it is used under one lock, the append lock); does no I/O itself but hands out what to
//! write. Its bytes in memory are in `chunks`.

#[cfg(test)]
mod tests;
mod tombstones;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::chunks::{AfterWrite, COPY_LEN_MAX, Chunks, Found, InMemory, PendingWrite, Ready};
use super::footers::SealedRegion;
use super::place::{Life, Place};
use super::purges::PurgeLog;
use super::regions::{RegionState, RegionTable};
use super::removals::{Removal, Removals};
use super::request::Lifetime;
use super::sequences::Sequences;
use super::slot::Slot;
use super::slots;
use crate::clock::{TimePair, Timestamp};
use crate::device::{AlignedBuf, Part, WriteSlice};
use crate::format::{
    ENTRY_HEADER_LEN, EntryHeader, Footer, FooterRecord, KILL_LEN, Kill, Kind, Layout, LogKind,
    RegionHeader, RegionUse, Seed, Sequence, Superblock, round_up,
};
use crate::planted::{self, Bug};

/// Bytes that may wait to be written before stores have to wait.
const BACKLOG_MAX: u64 = 64 << 20;
/// Bytes that may wait beyond it before removals have to.
const REMOVALS_BACKLOG_MAX: u64 = 4 << 20;
/// Free regions that stores may not use: reclaim needs room to make room.
const FREE_RESERVE: usize = 1;
/// Where no region is free, removals may use one part in this many of the last one; the rest is
/// reclaim's.
const REMOVALS_SHARE: u64 = 2;

/// Counts appends; a waiter knows from it whether its append is on the device.
pub type Ticket = u64;

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appender {
    /// A client's change: must leave room for reclaim and must not outrun the device.
    Client,
    /// A removal, which is small: is not held up by stores that wait, and may use a part of the last
    /// free region.
    Removal,
    /// What reclaim carries on, less than a region for each that it frees: may use the last free
    /// region.
    Reclaim,
}

/// Why nothing can be appended right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// No free region; reclaim is on its way.
    Regions,
    /// No free region for the second copy of a purge's tombstone.
    Purges,
    /// Too many bytes wait to be written.
    Backlog,
    /// The epoch's sequence numbers run out, and the next epoch is not durable yet.
    Epoch,
}

/// Where a slot will be. Valid until the append lock is released.
#[derive(Clone, Copy, Debug)]
pub struct Reservation {
    /// Region of the slot.
    pub region: u32,
    /// Byte offset of the slot in the region.
    pub offset: u64,
    /// Both, in the life in which the slot is written.
    pub place: Place,
}

/// An append whose bytes are to be copied when the append lock is released; then
/// [`Log::end_fill`] is due.
pub struct Unfilled {
    region: u32,
    offset: u64,
    seed: Seed,
    header: EntryHeader,
    part: Part,
}

impl Unfilled {
    /// Copies the slot that was appended to its place.
    pub fn fill(&mut self, slot: &Slot<'_>) {
        slot.write_into(&mut self.part, &self.header, self.seed, self.offset);
    }
}

/// What is to be written now.
pub struct Due {
    /// Bytes at their places.
    pub writes: Vec<PendingWrite>,
    /// Regions that get their footers behind them.
    pub sealed: Vec<SealedRegion>,
    /// All changes up to this ticket are on the device once this and all that was taken before is.
    pub complete: Ticket,
}

/// What a touch found where the entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TouchPlace {
    /// Only in memory; changed there.
    Memory,
    /// On the device; must be changed there. True: the region's header must say so.
    Device {
        /// No footer will be written any more that has the new time.
        mark_region: bool,
    },
    /// On its way to the device; wait.
    InFlight,
    /// In memory, where it is just being copied; look again.
    InUse,
}

struct OpenRegion {
    region: u32,
    generation: Sequence,
    seed: Seed,
    footer: Footer,
    /// A write to it failed: use it no more.
    broken: bool,
}

/// Regions whose entries recovery found although something on the device is missing.
#[derive(Default)]
pub struct Incomplete {
    /// Those that a crash left without a footer, and the footer that they should have.
    pub unsealed: HashMap<u32, Footer>,
    /// Those whose header is damaged, or of an earlier life than their footer.
    pub headerless: Vec<u32>,
}

/// The log of one device.
pub struct Log {
    layout: Layout,
    regions: Arc<RegionTable>,
    sequences: Sequences,
    open: Option<OpenRegion>,
    chunks: Chunks,
    purges: PurgeLog,
    /// What was taken to be written has all appends up to this ticket.
    taken: Ticket,
    /// The tail was to be written when something ahead of it was not filled.
    tail_is_late: bool,
    /// Entries in the last region that was sealed.
    records_expected: usize,
    free: VecDeque<u32>,
    appended: Ticket,
    /// What recovery found incomplete, to be written once the epoch is raised.
    incomplete: Incomplete,
    recovering: bool,
    superblock: Superblock,
    superblock_dirty: bool,
    /// Entries were changed in place on the device since the last round of the flusher.
    modified: bool,
    /// Entries of a region were dropped from the index, and the region is not durably free yet.
    freeing: bool,
    /// Removals whose kill records are not durable yet.
    removals: Removals,
    reinsert_credit: u64,
    /// Bytes that clients stored since the device was opened.
    stored: u64,
    ram_places: u64,
    /// The flusher will come for the tail by itself.
    tail_is_due: bool,
}

impl Log {
    /// The log of a device just opened, of which no region is known to be free yet.
    pub fn new(
        superblock: Superblock,
        regions: Arc<RegionTable>,
        (memory_alignment, sequences): (usize, Sequences),
    ) -> Log {
        Log {
            layout: superblock.layout,
            regions,
            sequences,
            open: None,
            chunks: Chunks::new(superblock.layout, memory_alignment),
            purges: PurgeLog::new(superblock.layout),
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
            reinsert_credit: 0,
            stored: 0,
            ram_places: 0,
            tail_is_due: false,
        }
    }

    // Order of mutations.

    /// Has the first epoch of this life written; no sequence may be drawn before it is durable with the
    /// ticket given. However often it is asked for, the epoch is one higher than at the open. `None`
    /// if it began already.
    pub fn raise_epoch(&mut self, now: TimePair) -> Option<Ticket> {
        if self.has_epoch() {
            return None;
        }
        self.put_epoch();
        Some(self.renew_superblock(now))
    }

    /// Has the next epoch written if it is due.
    pub fn raise_epoch_if_due(&mut self, now: TimePair) {
        if self.sequences.wants_epoch() && self.superblock.epoch < Sequence::EPOCH_MAX {
            self.put_epoch();
            self.renew_superblock(now);
        }
    }

    fn put_epoch(&mut self) {
        if self.sequences.begin_raising() && !planted::is(Bug::ReuseSequences) {
            self.superblock.epoch += 1;
        }
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

    /// Whether an epoch could begin but for want of a free region.
    pub fn is_epoch_held_up(&self) -> bool {
        self.sequences.may_begin()
    }

    fn begin_epoch(&mut self, now: Timestamp) {
        self.seal(now);
        self.seal_purges(now);
        self.sequences.begin(self.superblock.epoch);
        self.complete_recovered(now);
    }

    /// Whether sequences can be drawn.
    pub fn has_epoch(&self) -> bool {
        self.sequences.has_epoch()
    }

    /// Whether `appender` may draw sequences.
    ///
    /// # Errors
    /// The next epoch has to be durable first.
    pub fn check_epoch(&self, appender: Appender) -> Result<(), NoRoom> {
        if self.sequences.has_room(appender) { Ok(()) } else { Err(NoRoom::Epoch) }
    }

    /// Above all sequences of entries that there are, and not above those that will be drawn.
    pub fn sequences_end(&self) -> Sequence {
        self.sequences.next().unwrap_or(Sequence::first_of(self.coming_epoch()))
    }

    /// The epoch that begins next.
    fn coming_epoch(&self) -> u32 {
        let epoch = self.superblock.epoch;
        if self.sequences.is_raising() { epoch } else { epoch.saturating_add(1) }
    }

    /// Draws a name that nothing else has.
    ///
    /// # Errors
    /// The next epoch has to be durable first.
    pub fn draw_name(&mut self) -> Result<Sequence, NoRoom> {
        self.check_epoch(Appender::Client)?;
        Ok(self.draw())
    }

    /// Draws the next sequence. Called under the append lock, and for a publication under the bucket lock too.
    ///
    /// # Panics
    /// Panics when the epoch's counter is used up: [`Log::reserve`] and [`Log::check_epoch`] tell before.
    pub fn draw(&mut self) -> Sequence {
        self.sequences.draw()
    }

    /// The superblock as it should be, and whether it still has to be written.
    pub fn superblock(&self) -> (Superblock, bool) {
        (self.superblock, self.superblock_dirty)
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

    /// Has the superblock written again with this time; gives the ticket with which it is durable.
    pub fn renew_superblock(&mut self, now: TimePair) -> Ticket {
        self.superblock.time = now;
        self.superblock_dirty = true;
        self.appended += 1;
        self.appended
    }

    /// Makes every present entry dead and seals the open region, so that older regions are wholly dead.
    /// Gives the floor and the ticket with which it is durable. Needs no epoch.
    pub fn raise_purge_floor(&mut self, now: TimePair) -> (Sequence, Ticket) {
        let floor = self.sequences_end();
        self.seal(now.cache);
        self.superblock.purge_floor = floor;
        (floor, self.renew_superblock(now))
    }

    /// Whether the purge floor that holds is on the device.
    pub fn is_floor_durable(&self) -> bool {
        self.regions.dead_below() >= self.superblock.purge_floor
    }

    /// Has it on record, with the next superblock that is written, which entries are of unknown age.
    pub fn set_unknown_age(&mut self, epoch: u32) {
        self.superblock.unknown_age = epoch;
    }

    /// Makes every entry with a sequence below `floor` dead, none of which is in the open region. Gives
    /// the floor that holds from now on and the ticket with which it is durable.
    pub fn raise_purge_floor_to(&mut self, floor: Sequence, now: TimePair) -> (Sequence, Ticket) {
        self.superblock.purge_floor = self.superblock.purge_floor.max(floor);
        (self.superblock.purge_floor, self.renew_superblock(now))
    }

    /// Whether older versions may be on the device of keys that the index does not have:
    /// recovery is still going on, a region is being freed, or one may hold entries that the index
    /// does not have, or the kill record of this very key is not written yet. Changes then count as
    /// kill records whether the key matched or not.
    pub fn may_hide_older(&self, key_hash: u64) -> bool {
        self.lacks_words() || self.removals.of(key_hash) == Removal::Waiting
    }

    /// Whether the index has all that the device would show after a start.
    pub fn is_indexed(&self) -> bool {
        !self.lacks_words() && self.removals.waiting_count() == 0
    }

    fn lacks_words(&self) -> bool {
        self.recovering || self.freeing || self.regions.unindexed_count() > 0
    }

    /// Entries of a region will be dropped from the index before it is durably free.
    pub fn begin_freeing(&mut self) {
        self.freeing = true;
    }

    /// Whether the index may lack entries of a region that is not durably free yet.
    pub fn is_freeing(&self) -> bool {
        self.freeing
    }

    /// The region is durably free, or what it holds will come back with a restart.
    pub fn end_freeing(&mut self, region: u32, freed: bool) {
        if self.freeing && !freed {
            self.regions.note_unindexed(region);
        }
        self.freeing = false;
    }

    /// A region may hold entries that have no index word although their deaths are not on record.
    pub fn note_unindexed(&mut self, region: u32) {
        self.regions.note_unindexed(region);
    }

    /// As [`Log::note_unindexed`], of a life that may have ended meanwhile.
    pub fn note_unindexed_in(&mut self, life: Life) {
        self.regions.note_unindexed_in(life);
    }

    /// Kill records were lost, or may not be durable although an earlier life wrote them: what they
    /// hid, in whatever region, may turn up after the next start.
    pub fn note_all_unindexed(&mut self) {
        self.regions.note_all_unindexed();
    }

    /// Something was changed in place on the device: it needs a flush like an append. Gives the
    /// ticket with which it is durable.
    pub fn note_modified(&mut self) -> Ticket {
        self.modified = true;
        self.appended += 1;
        self.appended
    }

    /// Whether anything was changed in place since this was last asked.
    pub fn take_modified(&mut self) -> bool {
        std::mem::take(&mut self.modified)
    }

    /// Recovery is complete, but for what is still to be written of some regions.
    pub fn recovered(&mut self, incomplete: Incomplete, now: Timestamp) {
        self.recovering = false;
        // Blank regions were found in the order of the reads; a new device is filled from its start.
        self.free.make_contiguous().sort_unstable();
        self.incomplete = incomplete;
        self.complete_recovered(now);
    }

    /// A number that names the next entry kept in the RAM tier only.
    pub fn next_ram_place(&mut self) -> u64 {
        self.ram_places += 1;
        self.ram_places
    }

    // Appending.

    /// Finds the place of a slot of `slot_len` bytes, opening a region or a chunk where needed.
    ///
    /// # Errors
    /// There is no room right now.
    pub fn reserve(
        &mut self,
        slot: &Slot<'_>,
        appender: Appender,
        now: Timestamp,
    ) -> Result<Reservation, NoRoom> {
        let slot_len = slot.len();
        self.check_epoch(appender)?;
        let backlog_max = match appender {
            Appender::Client => BACKLOG_MAX,
            Appender::Removal => BACKLOG_MAX + REMOVALS_BACKLOG_MAX,
            Appender::Reclaim => u64::MAX,
        };
        if self.chunks.backlog() > backlog_max {
            return Err(NoRoom::Backlog);
        }
        // Also where the open region has room: the last one is not for stores.
        if appender == Appender::Client && self.free.len() < FREE_RESERVE {
            return Err(NoRoom::Regions);
        }
        loop {
            let Some(open) = &self.open else {
                self.open_region(appender, now)?;
                continue;
            };
            let offset = slots::place(self.chunks.cursor(), slot_len, self.layout.granule);
            let is_share_used = offset + slot_len > self.layout.region_size / REMOVALS_SHARE;
            if appender == Appender::Removal && self.free.is_empty() && is_share_used {
                return Err(NoRoom::Regions);
            }
            if open.broken || !self.fits(open, slot, offset + slot_len) {
                self.seal(now);
                continue;
            }
            match self.chunks.room_until() {
                Some(end) if offset + slot_len <= end => {
                    let life = Life::new(open.region, open.generation);
                    let place = life.place(offset, &self.layout);
                    return Ok(Reservation { region: open.region, offset, place });
                }
                Some(_) => self.freeze(now),
                None => self.chunks.open(slot_len),
            }
        }
    }

    fn fits(&self, open: &OpenRegion, slot: &Slot<'_>, end: u64) -> bool {
        let kills = open.footer.kills.len() + slot.kill_count();
        let alignment = self.layout.alignment;
        let footer = Footer::len_for(open.footer.records.len() + 1, kills, alignment);
        round_up(end, u64::from(alignment)) + footer <= self.layout.region_size
    }

    fn open_region(&mut self, appender: Appender, now: Timestamp) -> Result<(), NoRoom> {
        let reserve = if appender == Appender::Client { FREE_RESERVE } else { 0 };
        if self.free.len() <= reserve {
            return Err(NoRoom::Regions);
        }
        let (region, generation) = self.begin_region(LogKind::Data, now).ok_or(NoRoom::Regions)?;
        self.regions.on_device(region).set_in_memory(true);
        self.chunks.begin(region);
        self.open = Some(OpenRegion {
            region,
            generation,
            seed: self.regions.seed_of(Life::new(region, generation)),
            // Growing it later would be a copy under the append lock.
            footer: Footer {
                records: Vec::with_capacity(self.records_expected),
                kills: Vec::new(),
            },
            broken: false,
        });
        Ok(())
    }

    /// Begins a life of a free region.
    fn begin_region(&mut self, log: LogKind, now: Timestamp) -> Option<(u32, Sequence)> {
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
    fn freeze(&mut self, now: Timestamp) {
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

    /// Appends the slot at its reservation and gives the append's ticket. What is given with it
    /// must be filled at once, without waiting for anything but the append lock.
    pub fn append(
        &mut self,
        at: Reservation,
        slot: &Slot<'_>,
        key_hash: u64,
        (sequence, supersedes): (Sequence, bool),
    ) -> (Ticket, Option<Unfilled>) {
        let header = slot.header(sequence, supersedes);
        let Some(open) = self.open.as_mut().filter(|open| open.region == at.region) else {
            panic!("a reservation is filled before the append lock is released");
        };
        let range = at.offset..at.offset + slot.len();
        let mut unfilled = None;
        if slot.len() > COPY_LEN_MAX as u64 {
            let (region, offset, seed) = (at.region, at.offset, open.seed);
            let part = self.chunks.append_part(range);
            unfilled = Some(Unfilled { region, offset, seed, header, part });
        } else {
            let target = self.chunks.append(range);
            slot.write_into(target, &header, open.seed, at.offset);
        }
        if slot.kind() == Kind::Kills {
            open.footer.kills.extend(Kill::decode_all(slot.metadata()));
            self.regions.on_device(at.region).add_kills(slot.kill_count());
        } else {
            let epoch = open.generation.epoch();
            assert_eq!(sequence.epoch(), epoch, "a region has entries of one epoch");
            open.footer.records.push(FooterRecord {
                key_hash,
                sequence,
                offset: at.offset,
                slot_len: slot.len(),
                kind: slot.kind(),
                supersedes,
                keep_until: slot.lifetime().keep_until,
            });
            let row = self.regions.on_device(at.region);
            row.raise_keep_until(slot.lifetime().keep_until);
            row.add_kills(usize::from(supersedes));
        }
        self.appended += 1;
        (self.appended, unfilled)
    }

    /// All bytes of an append were copied.
    pub fn end_fill(&mut self, unfilled: Unfilled) {
        self.chunks.end_part(unfilled.region, unfilled.offset, unfilled.part);
    }

    /// The last ticket given.
    pub fn appended(&self) -> Ticket {
        self.appended
    }

    // Towards the device.

    /// Ends the open regions for a clean stop; gives the ticket with which all is durable.
    pub fn seal_for_stop(&mut self, now: Timestamp) -> Ticket {
        while self.record_removals(now) {}
        self.seal(now);
        self.seal_purges(now);
        self.appended += 1;
        self.appended
    }

    /// Ends the open region with its footer.
    pub fn seal(&mut self, now: Timestamp) {
        self.freeze(now);
        let Some(open) = self.open.take() else { return };
        // As many again and an eighth more; what is not used costs no memory.
        self.records_expected = open.footer.records.len() / 8 * 9;
        self.write_footer(open.region, open.generation, open.footer, now);
    }

    fn write_footer(
        &mut self,
        region: u32,
        generation: Sequence,
        footer: Footer,
        stamp: Timestamp,
    ) {
        let seed = self.regions.seed_of(Life::new(region, generation));
        let log = self.regions.on_device(region).log();
        self.chunks.push_footer(SealedRegion { region, generation, log, seed, footer, stamp });
    }

    /// Writes the footers and headers that recovery missed, once there is an epoch to write in.
    fn complete_recovered(&mut self, now: Timestamp) {
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

    /// Whether bytes wait in memory for the device.
    pub fn is_dirty(&self) -> bool {
        self.chunks.has_waiting() || self.has_tail()
    }

    /// Whether the flusher has to be woken: something can be written, or a tail waits that it does not
    /// know of.
    pub fn wants_flusher(&self) -> bool {
        self.chunks.has_ready() || (!self.tail_is_due && self.has_tail())
    }

    /// The length of a buffer to be given to [`Log::add_spare`] once the append lock is released.
    pub fn wants_spare(&self) -> Option<u64> {
        self.chunks.wants_spare()
    }

    /// Keeps a buffer of zeros for the next chunk.
    pub fn add_spare(&mut self, buf: AlignedBuf) {
        self.chunks.add_spare(buf);
    }

    /// The alignment in memory of what is written, in bytes.
    pub fn memory_alignment(&self) -> usize {
        self.chunks.memory_alignment()
    }

    /// Notes whether the flusher has a deadline for the tail.
    pub fn set_tail_due(&mut self, is_due: bool) {
        self.tail_is_due = is_due;
    }

    fn has_tail(&self) -> bool {
        self.chunks.has_tail() || self.purges.is_waiting()
    }

    /// Takes what is to be written now; with `tail` everything appended so far, unless an append
    /// ahead of it is not filled yet: then the next time.
    pub fn take_due(&mut self, tail: bool, now: Timestamp) -> Due {
        let mut ready = Ready::default();
        self.chunks.take_ready(&mut ready);
        let wants_tail = tail || self.tail_is_late;
        if wants_tail && !self.chunks.has_waiting() {
            self.freeze(now);
            self.chunks.take_ready(&mut ready);
        }
        self.tail_is_late = wants_tail && self.has_tail();
        let Ready { writes, sealed, ticket } = ready;
        let has_all = !self.chunks.has_waiting() && !self.has_tail();
        self.taken = if has_all { self.appended } else { self.taken.max(ticket) };
        Due { writes, sealed, complete: self.taken }
    }

    /// Whether what is next to be written is still being filled: the flusher is woken when it is.
    pub fn is_blocked(&self) -> bool {
        self.chunks.has_waiting() && !self.chunks.has_ready()
    }

    /// One write is done, well or not: what it held in memory goes.
    pub fn write_done(&mut self, write: PendingWrite) {
        let (region, is_last) = (write.region, write.after == AfterWrite::Sealed);
        self.chunks.written(write);
        let row = self.regions.on_device(region);
        let is_open = self.open.as_ref().is_some_and(|open| open.region == region);
        if !is_open && self.chunks.first_offset(region).is_none() {
            row.set_in_memory(false);
        }
        if is_last {
            row.set_state(RegionState::Sealed);
        }
    }

    /// A write or flush failed: what is open is used no more, and the region that follows does
    /// not depend on it. The kill records among what was lost may have hidden anything.
    pub fn fail(&mut self) {
        self.regions.note_all_unindexed();
        self.removals.failed();
        if let Some(open) = self.open.as_mut() {
            open.broken = true;
        }
        self.purges.fail();
    }

    // Reading and changing what is in memory.

    /// The bytes `range` of a region, if all of them are in memory.
    pub fn in_memory(&mut self, region: u32, range: Range<u64>) -> InMemory<'_> {
        self.chunks.get(region, range)
    }

    /// The next entries on the device of a region that has no footer yet, from `offset` on: not all of
    /// them at once, and none behind the last.
    pub fn written_records(&self, region: u32, offset: u64) -> Vec<FooterRecord> {
        let open = self.open.as_ref().filter(|open| open.region == region);
        let in_memory = self.chunks.first_offset(region).unwrap_or(u64::MAX);
        let footer =
            open.map(|open| &open.footer).or_else(|| self.incomplete.unsealed.get(&region));
        let records = footer.map_or(&[][..], |footer| &footer.records);
        let from = records.partition_point(|record| record.offset < offset);
        let written = records[from..].iter().take_while(|record| record.offset < in_memory);
        written.take(COPY_LEN_MAX / size_of::<FooterRecord>()).copied().collect()
    }

    /// Gives the entry at `offset` of `region` a new lifetime, as far as it is in memory.
    pub fn touch(&mut self, region: u32, offset: u64, lifetime: Lifetime) -> TouchPlace {
        let header = offset..offset + ENTRY_HEADER_LEN as u64;
        if self.chunks.is_frozen(region, offset) {
            return TouchPlace::InFlight;
        }
        let Some(open) = self.open.as_mut().filter(|open| open.region == region) else {
            let mark_region = !self.regions.on_device(region).is_touched();
            return TouchPlace::Device { mark_region };
        };
        let place = match self.chunks.find(header) {
            Found::InUse => return TouchPlace::InUse,
            Found::Written => TouchPlace::Device { mark_region: false },
            Found::Memory(header) => {
                rewrite_lifetime(header, open.seed, offset, lifetime);
                TouchPlace::Memory
            }
        };
        set_keep_until(&mut open.footer, offset, lifetime.keep_until);
        place
    }

    // Free regions and reclaim's share.

    fn has_open_room(&self) -> bool {
        self.free.len() >= FREE_RESERVE && self.open.as_ref().is_some_and(|open| !open.broken)
    }

    /// Whether the reason to wait has gone.
    pub fn has_room(&self, why: NoRoom) -> bool {
        match why {
            NoRoom::Regions => self.free.len() > FREE_RESERVE || self.has_open_room(),
            NoRoom::Purges => {
                self.purges.has_room(1) || self.has_region_for_purges(Appender::Removal)
            }
            NoRoom::Backlog => self.chunks.backlog() <= BACKLOG_MAX,
            NoRoom::Epoch => self.sequences.has_room(Appender::Client),
        }
    }

    /// The numbers of the free regions.
    pub fn free_regions(&self) -> impl Iterator<Item = u32> + '_ {
        self.free.iter().copied()
    }

    /// Whether any entry was kept in the RAM tier only since the device was opened.
    pub fn has_ram_places(&self) -> bool {
        self.ram_places > 0
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

    /// Regions were found to be free at the start.
    pub fn add_vacant(&mut self, regions: Vec<u32>) {
        for region in regions {
            self.add_free(region);
        }
    }

    /// A client stored bytes: they earn reclaim the right to re-insert a share of them.
    pub fn count_stored(&mut self, bytes: u64) {
        self.stored += bytes;
        let limit = self.layout.region_size / 2;
        self.reinsert_credit = (self.reinsert_credit + bytes / REINSERT_SHARE).min(limit);
    }

    /// Bytes of slots that clients stored since the device was opened.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// Takes `bytes` from what reclaim may re-insert; false if there is not enough.
    pub fn spend_reinsert(&mut self, bytes: u64) -> bool {
        let enough = self.reinsert_credit >= bytes;
        if enough {
            self.reinsert_credit -= bytes;
        }
        enough
    }

    /// Bytes that reclaim may re-insert now.
    pub fn reinsert_credit(&self) -> u64 {
        self.reinsert_credit
    }

    /// Bytes that wait to be written.
    pub fn backlog(&self) -> u64 {
        self.chunks.backlog()
    }
}

/// One re-inserted byte for this many stored ones: it bounds write amplification by re-insertion to 1/16.
const REINSERT_SHARE: u64 = 16;
/// Most kill records in one slot, which is copied under the append lock.
pub const KILLS_PER_SLOT_MAX: usize = 500;
const _: () = assert!(KILLS_PER_SLOT_MAX * KILL_LEN + ENTRY_HEADER_LEN < COPY_LEN_MAX);

/// Replaces the lifetime in an encoded header in place; false if the header is not sound.
pub fn rewrite_lifetime(header: &mut [u8], seed: Seed, offset: u64, lifetime: Lifetime) -> bool {
    let Ok(mut decoded) = EntryHeader::decode(header, seed, offset) else { return false };
    decoded.fresh_until = lifetime.fresh_until;
    decoded.keep_until = lifetime.keep_until;
    header[..ENTRY_HEADER_LEN].copy_from_slice(&decoded.encode(seed, offset));
    true
}

fn set_keep_until(footer: &mut Footer, offset: u64, keep_until: Timestamp) {
    if let Ok(n) = footer.records.binary_search_by_key(&offset, |record| record.offset) {
        footer.records[n].keep_until = keep_until;
    }
}
