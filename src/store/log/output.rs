//! Decides what of the log is written when. Owns the writes under way.

use crate::clock::Timestamp;
use crate::device::AlignedBuf;
use crate::format::FooterRecord;
use crate::store::log::chunks::COPY_LEN_MAX;
use crate::store::log::core::Log;
use crate::store::log::write::{AfterWrite, Due, PendingWrite, Ready, Ticket};
use crate::store::region::state::RegionState;

impl Log {
    /// Whether appended bytes wait in memory for the device.
    pub fn is_dirty(&self) -> bool {
        self.chunks.has_waiting() || self.has_tail()
    }

    /// Whether to wake the flusher: something can be written, or there is a tail that it does not know
    /// of.
    pub fn wants_flusher(&self) -> bool {
        self.chunks.has_ready() || (!self.tail_is_due && self.has_tail())
    }

    /// The length of a buffer to pass to [`Log::add_spare`] after the append lock is released.
    pub fn wants_spare(&self) -> Option<u64> {
        self.chunks.wants_spare()
    }

    /// Keeps a zeroed buffer for the next chunk.
    pub fn add_spare(&mut self, buf: AlignedBuf) {
        self.chunks.add_spare(buf);
    }

    /// Notes whether the flusher has a deadline for the tail.
    pub fn set_tail_due(&mut self, is_due: bool) {
        self.tail_is_due = is_due;
    }

    pub(super) fn has_tail(&self) -> bool {
        self.chunks.has_tail() || self.purges.is_waiting()
    }

    /// Takes what is to be written now. With `tail` that is everything appended so far; if an append
    /// ahead of it is still being filled, the next call takes the tail.
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

    /// Whether the next write is still being filled: the flusher is woken when it is filled.
    pub fn is_blocked(&self) -> bool {
        self.chunks.has_waiting() && !self.chunks.has_ready()
    }

    /// A write ended, well or not: drops its memory.
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

    /// A write or flush failed: gives up the open regions, so that later ones do not depend on them.
    /// Lost tombstones may have hidden entries in any region.
    pub fn fail(&mut self) {
        self.regions.note_all_unindexed();
        self.removals.failed();
        self.owed_records.failed();
        if let Some(open) = self.open.as_mut() {
            open.broken = true;
        }
        self.purges.fail();
    }

    /// Some of the entries from `offset` on of an unsealed region, up to the last that is on the
    /// device.
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

    /// Seals the open regions for a clean stop; gives the ticket with which everything is durable.
    pub fn seal_for_stop(&mut self, now: Timestamp) -> Ticket {
        while self.record_removals(now) {}
        while self.record_purges(now) {}
        self.seal(now);
        self.seal_purges(now);
        self.appended += 1;
        self.appended
    }
}
