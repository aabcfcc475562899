//! Tombstones in the log: waiting removals, and purges in their own log. Owns when they are appended;
//! `removals` remembers which there are.

use crate::clock::Timestamp;
use crate::format::{LogKind, PurgeRecord, Sequence, Tombstone};
use crate::planted::{self, Bug};
use crate::store::log::append::Reservation;
use crate::store::log::appender::{Appender, NoRoom};
use crate::store::log::core::Log;
use crate::store::log::removals::{OwedTombstone, Removal};
use crate::store::log::slot::{Slot, SlotSize, TOMBSTONES_PER_SLOT_MAX};
use crate::store::log::write::Ticket;

/// Slots of tombstones appended in one go, under the append lock: some ten microseconds.
const SLOTS_AT_ONCE: usize = 4;

impl Log {
    /// Draws a tombstone that kills all present versions of a key hash and none that comes later. Needs
    /// no epoch. Call it before anything newer of the key can be published.
    pub fn draw_tombstone(&mut self, key_hash: u64) -> Tombstone {
        Tombstone { key_hash, sequence: self.draw_removal() }
    }

    /// Draws a sequence that is higher than those of all present entries and not higher than those of later
    /// ones. Needs no epoch.
    pub fn draw_removal(&mut self) -> Sequence {
        match self.check_epoch(Appender::Removal) {
            Ok(()) => self.draw(),
            // Later versions are of the next epoch, whose first sequence is given to nothing else.
            Err(_) => Sequence::first_of(self.coming_epoch()),
        }
    }

    /// Appends a tombstone; if it is `for_purge`, to the log of purges too. Gives the ticket with which it is
    /// durable.
    ///
    /// # Errors
    /// There is no room right now.
    pub fn append_tombstone(
        &mut self,
        owed: OwedTombstone,
        now: Timestamp,
    ) -> Result<Ticket, NoRoom> {
        self.append_tombstones(&[owed], now)
    }

    /// Reserves room for a slot of `count` tombstones, at most [`TOMBSTONES_PER_SLOT_MAX`].
    ///
    /// # Errors
    /// There is no room for `appender` right now.
    pub fn reserve_tombstones(
        &mut self,
        count: usize,
        appender: Appender,
        now: Timestamp,
    ) -> Result<Reservation, NoRoom> {
        self.reserve(SlotSize::of_tombstones(count), appender, now)
    }

    /// Fills a reserved slot with its tombstones; gives its ticket.
    pub fn fill_tombstones(
        &mut self,
        at: Reservation,
        tombstones: &[Tombstone],
        now: Timestamp,
    ) -> Ticket {
        let encoded = Slot::encode_tombstones(tombstones);
        let slot = Slot::of_tombstones(&encoded, now);
        let last = tombstones.iter().map(|tombstone| tombstone.sequence).max().unwrap_or_default();
        let (ticket, unfilled) = self.append(at, &slot, 0, (last, false));
        assert!(unfilled.is_none(), "a slot of tombstones is short");
        ticket
    }

    fn append_tombstones(
        &mut self,
        all_owed: &[OwedTombstone],
        now: Timestamp,
    ) -> Result<Ticket, NoRoom> {
        let tombstones: Vec<Tombstone> = all_owed.iter().map(|owed| owed.tombstone).collect();
        let in_two_logs =
            |owed: &&OwedTombstone| owed.for_purge && !planted::is(Bug::PurgeInOneRegion);
        let purges = all_owed.iter().filter(in_two_logs);
        let purges: Vec<Tombstone> = purges.map(|owed| owed.tombstone).collect();
        let at = self.reserve_tombstones(tombstones.len(), Appender::Removal, now)?;
        if !purges.is_empty() {
            // After the first copy, whose reservation may hand what waits to the device.
            self.reserve_purges((purges.len(), 0), Appender::Removal, now)?;
        }
        let mut ticket = self.fill_tombstones(at, &tombstones, now);
        if !purges.is_empty() {
            ticket = self.append_purges(&purges, &[]);
        }
        for owed in all_owed {
            self.removals.log(*owed, ticket);
        }
        Ok(ticket)
    }

    /// Notes a key without an index entry whose tombstone could not be appended. False if it is not
    /// remembered, because too many wait.
    pub fn removal_waits(&mut self, owed: OwedTombstone) -> bool {
        let is_remembered = self.removals.wait(owed);
        if !is_remembered {
            // Nobody remembers which region may hold older versions.
            self.note_all_unindexed();
        }
        is_remembered
    }

    /// Notes that a tombstone that no caller waits for was appended with this ticket.
    pub fn removal_logged(&mut self, tombstone: Tombstone, ticket: Ticket) {
        self.removals.log(OwedTombstone { tombstone, for_purge: false }, ticket);
    }

    /// All appends up to this ticket are durable.
    pub fn removals_flushed(&mut self, ticket: Ticket) {
        self.removals.flushed(ticket);
        self.owed_records.flushed(ticket);
    }

    /// What is known of the removal of a key.
    pub fn removal(&self, key_hash: u64) -> Removal {
        self.removals.of(key_hash)
    }

    /// Removals whose tombstones, and purges whose records, could not be appended yet.
    pub fn removals_waiting(&self) -> usize {
        self.removals.waiting_count() + self.owed_records.waiting_count()
    }

    /// Removals whose tombstones should be in the log before the store stops. If this run changed
    /// nothing, only those that a caller asked for: damage is found again by the next run.
    pub fn removals_owed(&self) -> usize {
        match self.has_epoch() {
            true => self.removals_waiting(),
            false => self.purges_waiting(),
        }
    }

    /// Whether a purge waits for the first epoch of this start.
    pub fn is_epoch_wanted(&self) -> bool {
        !self.has_epoch() && self.purges_waiting() > 0
    }

    fn purges_waiting(&self) -> usize {
        self.removals.purge_count() + self.owed_records.waiting_count()
    }

    /// Appends the waiting tombstone of a key hash, if there is one and room for it.
    pub fn record_removal(&mut self, key_hash: u64, now: Timestamp) {
        if let Some(owed) = self.removals.waiting(key_hash) {
            // Without room it keeps waiting.
            let _ = self.append_tombstones(&[owed], now);
        }
    }

    /// Appends some waiting tombstones; true if there are more, and room for them.
    pub fn record_removals(&mut self, now: Timestamp) -> bool {
        for _ in 0..SLOTS_AT_ONCE {
            let waiting: Vec<_> = self.removals.next_waiting(TOMBSTONES_PER_SLOT_MAX).collect();
            if waiting.is_empty() || self.append_tombstones(&waiting, now).is_err() {
                return false;
            }
        }
        self.removals.waiting_count() > 0
    }

    /// Makes room for so many more tombstones and purge records in the log of purges, valid until the append
    /// lock is released or something else is reserved.
    ///
    /// # Errors
    /// There is no free region, or none that `appender` may take.
    pub fn reserve_purges(
        &mut self,
        (tombstones, records): (usize, usize),
        appender: Appender,
        now: Timestamp,
    ) -> Result<(), NoRoom> {
        if self.purges.has_room(tombstones, records) {
            return Ok(());
        }
        if !self.has_region_for_purges(appender) {
            return Err(NoRoom::Purges);
        }
        self.seal_purges(now);
        let (region, generation) = self.begin_region(LogKind::Purges, now).ok_or(NoRoom::Purges)?;
        let seed = self.regions.seed_of(self.regions.generation_at(region, generation));
        self.purges.begin(region, generation, seed);
        Ok(())
    }

    /// Writes what room was reserved for to the log of purges with the next group commit; gives the ticket
    /// with which it is durable.
    pub fn append_purges(&mut self, tombstones: &[Tombstone], records: &[PurgeRecord]) -> Ticket {
        self.purges.queue(tombstones, records);
        if let Some(region) = self.purges.region() {
            let row = self.regions.on_device(region);
            row.add_tombstones(tombstones.len() + records.len());
            row.raise_purges_end(self.sequences.next().unwrap_or(Sequence(u64::MAX)));
        }
        self.appended += 1;
        self.appended
    }
}
