//! Epochs and the superblock that announces them. Owns that no sequence is drawn in an epoch that is
//! not durable.

use crate::clock::TimePair;
use crate::format::Sequence;
use crate::planted::{self, Bug};
use crate::store::log::appender::{Appender, NoRoom};
use crate::store::log::core::Log;
use crate::store::log::write::Ticket;

impl Log {
    /// Has the first epoch of this run written. No sequence may be drawn before it is durable, with the
    /// ticket returned. Repeated calls raise it only once. `None` if it has begun already.
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

    pub(super) fn put_epoch(&mut self) {
        if self.sequences.begin_raising() && !planted::is(Bug::ReuseSequences) {
            self.superblock.epoch += 1;
        }
        // Durable with the epoch, and so before anything that uses them.
        self.superblock.features = self.superblock.features.with_known();
    }

    /// Whether only a free region is missing for the next epoch to begin.
    pub fn is_epoch_held_up(&self) -> bool {
        self.sequences.may_begin()
    }

    /// Whether sequences can be drawn.
    pub fn has_epoch(&self) -> bool {
        self.sequences.has_epoch()
    }

    /// Whether `appender` may draw sequences.
    ///
    /// # Errors
    /// The next epoch must be durable first.
    pub fn check_epoch(&self, appender: Appender) -> Result<(), NoRoom> {
        if self.sequences.has_room(appender) { Ok(()) } else { Err(NoRoom::Epoch) }
    }

    /// A bound above all sequences of present entries and not above later ones.
    pub fn sequences_end(&self) -> Sequence {
        self.sequences.next().unwrap_or(Sequence::first_of(self.coming_epoch()))
    }

    /// The epoch that begins next.
    pub(super) fn coming_epoch(&self) -> u32 {
        let epoch = self.superblock.epoch;
        if self.sequences.is_raising() { epoch } else { epoch.saturating_add(1) }
    }

    /// Draws a unique name for a large object.
    ///
    /// # Errors
    /// The next epoch must be durable first.
    pub fn draw_name(&mut self) -> Result<Sequence, NoRoom> {
        self.check_epoch(Appender::Client)?;
        Ok(self.draw())
    }

    /// Draws the next sequence. Call it under the append lock, and for a publication under the bucket
    /// lock too.
    ///
    /// # Panics
    /// Panics if the epoch is used up: call [`Log::reserve`] or [`Log::check_epoch`] first.
    pub fn draw(&mut self) -> Sequence {
        self.sequences.draw()
    }

    /// Has the superblock rewritten with this time; gives the ticket with which it is durable.
    pub fn renew_superblock(&mut self, now: TimePair) -> Ticket {
        self.superblock.time = now;
        self.superblock_dirty = true;
        self.appended += 1;
        self.appended
    }

    /// Whether the present purge floor is on the device.
    pub fn is_floor_durable(&self) -> bool {
        self.regions.dead_below() >= self.superblock.purge_floor
    }

    /// Records, with the next superblock write, up to which epoch entries are of unknown age.
    pub fn set_unknown_age(&mut self, epoch: u32) {
        self.superblock.unknown_age = epoch;
    }

    /// Makes every entry with a sequence below `floor` dead; the open region may hold none of them.
    /// Gives the floor that holds from now on, and the ticket with which it is durable.
    pub fn raise_purge_floor_to(&mut self, floor: Sequence, now: TimePair) -> (Sequence, Ticket) {
        self.superblock.purge_floor = self.superblock.purge_floor.max(floor);
        (self.superblock.purge_floor, self.renew_superblock(now))
    }
}
