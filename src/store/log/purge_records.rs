//! Purge records in the log, each in both logs. Owns when a record is appended; `owed_records` remembers which
//! are not durable.

use crate::clock::Timestamp;
use crate::format::PurgeRecord;
use crate::store::log::append::Reservation;
use crate::store::log::appender::{Appender, NoRoom};
use crate::store::log::core::Log;
use crate::store::log::owed_records::is_below;
use crate::store::log::removals::Removal;
use crate::store::log::slot::{PURGE_RECORDS_PER_SLOT_MAX, Slot, SlotSize};

impl Log {
    /// Appends records to both logs: those that wait, or are new and have room among those owed. At most
    /// [`PURGE_RECORDS_PER_SLOT_MAX`].
    ///
    /// # Errors
    /// There is no room right now.
    fn append_purge_records(
        &mut self,
        records: &[PurgeRecord],
        now: Timestamp,
    ) -> Result<(), NoRoom> {
        let at = self.reserve_purge_records(records, Appender::Removal, now)?;
        // After the first copy, whose reservation may hand what waits to the device.
        self.reserve_purges((0, records.len()), Appender::Removal, now)?;
        self.append_purge_slot(at, records, now);
        let ticket = self.append_purges(&[], records);
        for record in records {
            self.owed_records.log(*record, ticket);
        }
        Ok(())
    }

    /// Carries records on, each in the log that it was in.
    ///
    /// # Errors
    /// There is no room right now.
    pub fn carry_purge_records(
        &mut self,
        records: &[PurgeRecord],
        in_purges: bool,
        now: Timestamp,
    ) -> Result<(), NoRoom> {
        if in_purges {
            self.reserve_purges((0, records.len()), Appender::Reclaim, now)?;
            self.append_purges(&[], records);
        } else {
            let at = self.reserve_purge_records(records, Appender::Reclaim, now)?;
            self.append_purge_slot(at, records, now);
        }
        Ok(())
    }

    fn reserve_purge_records(
        &mut self,
        records: &[PurgeRecord],
        appender: Appender,
        now: Timestamp,
    ) -> Result<Reservation, NoRoom> {
        self.reserve(SlotSize::of_purge_records(records.len()), appender, now)
    }

    fn append_purge_slot(&mut self, at: Reservation, records: &[PurgeRecord], now: Timestamp) {
        let encoded = Slot::encode_purge_records(records);
        let slot = Slot::of_purge_records(&encoded, now);
        let last = records.iter().map(|record| record.sequence).max().unwrap_or_default();
        let (_, unfilled) = self.append(at, &slot, 0, (last, false));
        assert!(unfilled.is_none(), "a slot of purge records is short");
    }

    /// Appends a record if that can be now (`may_append`), else remembers it. False if too many are owed: then
    /// a floor must say what it says.
    #[must_use]
    pub fn record_purge(&mut self, record: PurgeRecord, may_append: bool, now: Timestamp) -> bool {
        if !self.owed_records.has_room() {
            self.owed_records.leave_to_floors(self.floors());
        }
        if !self.owed_records.has_room() {
            return false;
        }
        if !may_append || self.append_purge_records(&[record], now).is_err() {
            self.owed_records.wait(record);
        }
        true
    }

    /// Appends some waiting records; true if there are more, and room for them.
    pub fn record_purges(&mut self, now: Timestamp) -> bool {
        let waiting = self.owed_records.next_waiting(PURGE_RECORDS_PER_SLOT_MAX);
        if waiting.is_empty() || self.append_purge_records(&waiting, now).is_err() {
            return false;
        }
        self.owed_records.waiting_count() > 0
    }

    /// What is known of a record that was made.
    pub fn purge_record(&self, record: &PurgeRecord) -> Removal {
        match self.owed_records.of(record) {
            _ if self.is_below_floor(record) => Removal::Done,
            Removal::Done if is_below(record, self.floors()) => Removal::Waiting,
            known => known,
        }
    }

    /// Whether a record that was made is on the device for certain.
    pub fn is_record_durable(&self, record: &PurgeRecord) -> bool {
        self.purge_record(record) == Removal::Done
    }
}
