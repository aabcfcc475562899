//! Purge records in the log, each in both logs. Owns when a record is appended; `owed_records` remembers which
//! are not durable.

use crate::clock::Timestamp;
use crate::format::PurgeRecord;
use crate::store::log::appender::{Appender, NoRoom};
use crate::store::log::core::Log;
use crate::store::log::owed_records::Noted;
use crate::store::log::removals::Removal;
use crate::store::log::slot::{PURGE_RECORDS_PER_SLOT_MAX, Slot, SlotSize};

impl Log {
    /// Appends records to both logs; tells whether they are remembered until they are durable. At most
    /// [`PURGE_RECORDS_PER_SLOT_MAX`].
    ///
    /// # Errors
    /// There is no room right now.
    pub fn append_purge_records(
        &mut self,
        records: &[PurgeRecord],
        now: Timestamp,
    ) -> Result<Noted, NoRoom> {
        let size = SlotSize::of_purge_records(records.len());
        let at = self.reserve(size, Appender::Removal, now)?;
        // After the first copy, whose reservation may hand what waits to the device.
        self.reserve_purges((0, records.len()), Appender::Removal, now)?;
        let encoded = Slot::encode_purge_records(records);
        let slot = Slot::of_purge_records(&encoded, now);
        let last = records.iter().map(|record| record.sequence).max().unwrap_or_default();
        let (_, unfilled) = self.append(at, &slot, 0, (last, false));
        assert!(unfilled.is_none(), "a slot of purge records is short");
        let ticket = self.append_purges(&[], records);
        let mut noted = Noted::Yes;
        for record in records {
            if let unnoted @ Noted::No(_) = self.owed_records.log(*record, ticket) {
                noted = unnoted;
            }
        }
        Ok(noted)
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
            return Ok(());
        }
        let size = SlotSize::of_purge_records(records.len());
        let at = self.reserve(size, Appender::Reclaim, now)?;
        let encoded = Slot::encode_purge_records(records);
        let slot = Slot::of_purge_records(&encoded, now);
        let last = records.iter().map(|record| record.sequence).max().unwrap_or_default();
        let (_, unfilled) = self.append(at, &slot, 0, (last, false));
        assert!(unfilled.is_none(), "a slot of purge records is short");
        Ok(())
    }

    /// Appends a record if that can be now (`may_append`), else remembers it; `None` if neither: then a floor
    /// must say what it says.
    pub fn record_purge(
        &mut self,
        record: PurgeRecord,
        may_append: bool,
        now: Timestamp,
    ) -> Option<Noted> {
        if may_append && let Ok(noted) = self.append_purge_records(&[record], now) {
            return Some(noted);
        }
        self.owed_records.wait(record).then_some(Noted::Yes)
    }

    /// Appends some waiting records; true if there are more, and room for them.
    pub fn record_purges(&mut self, now: Timestamp) -> bool {
        let waiting = self.owed_records.next_waiting(PURGE_RECORDS_PER_SLOT_MAX);
        if waiting.is_empty() || self.append_purge_records(&waiting, now).is_err() {
            return false;
        }
        self.owed_records.waiting_count() > 0
    }

    /// What is known of a record that was noted.
    pub fn purge_record(&self, record: &PurgeRecord) -> Removal {
        self.owed_records.of(record)
    }

    /// Whether a record that was made, noted or not, is on the device for certain.
    pub fn is_record_durable(&self, record: &PurgeRecord) -> bool {
        self.owed_records.knows_all() && self.owed_records.of(record) == Removal::Done
    }
}
