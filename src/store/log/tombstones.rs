//! Tombstones in the log: of removals that wait, and of purges in their own log. Owns when they are
//! appended and what is known of each; which removals there are, `removals` remembers.

use super::{Appender, KILLS_PER_SLOT_MAX, Log, NoRoom, Ticket};
use crate::clock::Timestamp;
use crate::format::{KILL_LEN, Kill, LogKind, Sequence};
use crate::store::chunks::AfterWrite;
use crate::store::place::Life;
use crate::store::removals::Removal;
use crate::store::slot::Slot;

impl Log {
    /// A key has no word any more, and no kill record could be written. `asked` if somebody waits to
    /// hear that one is.
    pub fn removal_waits(&mut self, key_hash: u64, asked: bool) {
        if !self.removals.wait(key_hash, asked) {
            // Which region may have what of it, nobody remembers.
            self.note_all_unindexed();
        }
    }

    /// The kill record of a key was appended with this ticket.
    pub fn removal_logged(&mut self, key_hash: u64, ticket: Ticket) {
        self.removals.log(key_hash, ticket);
    }

    /// An entry that supersedes all older versions of a key was appended.
    pub fn removal_superseded(&mut self, key_hash: u64) {
        self.removals.supersede(key_hash);
    }

    /// All appends up to this ticket are durable.
    pub fn removals_flushed(&mut self, ticket: Ticket) {
        self.removals.flushed(ticket);
    }

    /// What is known of the removal of a key.
    pub fn removal(&self, key_hash: u64) -> Removal {
        self.removals.of(key_hash)
    }

    /// Removals whose kill records could not be written yet.
    pub fn removals_waiting(&self) -> usize {
        self.removals.waiting_count()
    }

    /// Whether a purge waits for the first epoch of this start.
    pub fn is_epoch_wanted(&self) -> bool {
        !self.has_epoch() && self.removals.is_asked_for()
    }

    /// Appends the kill records of removals that wait, as far as there is room.
    pub fn record_removals(&mut self, now: Timestamp) {
        while self.removals.waiting_count() > 0 {
            let waiting: Vec<_> = self.removals.next_waiting(KILLS_PER_SLOT_MAX).collect();
            let asked = waiting.iter().filter(|(_, asked)| *asked).count();
            let blank = vec![0; waiting.len() * KILL_LEN];
            let blank = Slot::of_kills(&blank, now);
            let Ok(at) = self.reserve(&blank, Appender::Removal, now) else { return };
            if asked > 0 && self.reserve_purges(asked, now).is_err() {
                return;
            }
            let sequence = self.draw();
            let kill = |(key_hash, _): &(u64, bool)| Kill { key_hash: *key_hash, sequence };
            let kills: Vec<Kill> = waiting.iter().map(kill).collect();
            // Those that somebody asked for are purges, whose records are in two logs.
            let purges: Vec<Kill> = waiting.iter().filter(|(_, asked)| *asked).map(kill).collect();
            let encoded = Slot::encode_kills(&kills);
            let slot = Slot::of_kills(&encoded, now);
            let (mut ticket, unfilled) = self.append(at, &slot, 0, (sequence, false));
            assert!(unfilled.is_none(), "a slot of kill records is short");
            if asked > 0 {
                ticket = self.append_purges(&purges);
            }
            for (key_hash, _) in waiting {
                self.removals.log(key_hash, ticket);
            }
        }
    }

    /// Makes room for `count` more tombstones in the log of purges, until the append lock is released or
    /// something else is reserved. As for reclaim, the last free
    /// region will do: with what it removes, room will be made.
    ///
    /// # Errors
    /// There is no free region.
    pub fn reserve_purges(&mut self, count: usize, now: Timestamp) -> Result<(), NoRoom> {
        if self.purges.has_room(count) {
            return Ok(());
        }
        if self.free.is_empty() {
            return Err(NoRoom::Purges);
        }
        self.seal_purges(now);
        let (region, generation) = self.begin_region(LogKind::Purges, now).ok_or(NoRoom::Purges)?;
        let seed = self.regions.seed_of(Life::new(region, generation));
        self.purges.begin(region, generation, seed);
        Ok(())
    }

    /// Has tombstones, for which there is room, written to the log of purges with the next group
    /// commit; gives the ticket with which they are durable.
    pub fn append_purges(&mut self, kills: &[Kill]) -> Ticket {
        self.purges.queue(kills);
        if let Some(region) = self.purges.region() {
            let row = self.regions.on_device(region);
            row.add_kills(kills.len());
            row.raise_purges_end(self.sequences.next().unwrap_or(Sequence(u64::MAX)));
        }
        self.appended += 1;
        self.appended
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
