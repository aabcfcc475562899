//! Purge records that are not durable yet. Owns which still have to be appended: those without room or
//! epoch, and those that a failed write lost. Used under the append lock; appends nothing itself.

use std::collections::BTreeSet;

use crate::format::PurgeRecord;
use crate::store::log::by_ticket::ByTicket;
use crate::store::log::removals::Removal;
use crate::store::log::write::Ticket;
use crate::store::purges::Floors;
use crate::store::purges::table::RECORDS_MAX;

/// Most records that are remembered, waiting or logged: as many as count of both kinds; some 20 MiB of memory.
const OWED_MAX: usize = 2 * RECORDS_MAX;

/// Purge records, each in one of two places.
#[derive(Default)]
pub struct OwedRecords {
    /// Records that are not in the log.
    waiting: BTreeSet<PurgeRecord>,
    /// Records that are not durable yet.
    logged: ByTicket<PurgeRecord, ()>,
}

impl OwedRecords {
    /// Whether one more may be owed.
    pub fn has_room(&self) -> bool {
        self.waiting.len() + self.logged.len() < OWED_MAX
    }

    /// Notes that a record is not in the log. Ask for room first.
    pub fn wait(&mut self, record: PurgeRecord) {
        self.waiting.insert(record);
    }

    /// Notes that a record is in the log, durable with `ticket`. Ask for room first, unless it waited.
    pub fn log(&mut self, record: PurgeRecord, ticket: Ticket) {
        self.waiting.remove(&record);
        self.logged.remove(&record);
        self.logged.insert(record, (ticket, ()));
    }

    /// Everything up to `ticket` is durable.
    pub fn flushed(&mut self, ticket: Ticket) {
        self.logged.flushed(ticket);
    }

    /// A write or flush failed: records that were not durable may be lost, and wait again.
    pub fn failed(&mut self) {
        self.waiting.extend(self.logged.take_all().map(|(record, ())| record));
    }

    /// These floors are durable: they say what records up to them say.
    pub fn floors_durable(&mut self, floors: Floors) {
        self.waiting.retain(|record| !is_below(record, floors));
    }

    /// Forgets the records that floors say, which the superblock is to have: who waits for one waits for that.
    pub fn leave_to_floors(&mut self, floors: Floors) {
        self.waiting.retain(|record| !is_below(record, floors));
        self.logged.retain(|record| !is_below(record, floors));
    }

    /// Up to `count` of the waiting records.
    pub fn next_waiting(&self, count: usize) -> Vec<PurgeRecord> {
        self.waiting.iter().take(count).copied().collect()
    }

    /// What is known of a record.
    pub fn of(&self, record: &PurgeRecord) -> Removal {
        match self.logged.get(record) {
            Some((ticket, ())) => Removal::Logged(*ticket),
            None if self.waiting.contains(record) => Removal::Waiting,
            None => Removal::Done,
        }
    }

    /// Number of records that wait.
    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }
}

/// Whether a floor of its kind says what a record says.
pub fn is_below(record: &PurgeRecord, floors: Floors) -> bool {
    record.sequence <= if record.is_soft { floors.soft } else { floors.hard }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Selector, Sequence};

    fn record(sequence: u64, is_soft: bool) -> PurgeRecord {
        PurgeRecord { sequence: Sequence(sequence), what: Selector::Tag(sequence), is_soft }
    }

    #[test]
    fn what_a_failed_write_took_waits_again_and_what_is_durable_does_not() {
        let mut owed = OwedRecords::default();
        owed.wait(record(1, false));
        for n in 1..5 {
            owed.log(record(n, n == 4), 10 + n);
        }
        assert_eq!(owed.waiting_count(), 0);
        owed.flushed(12);
        assert_eq!(owed.of(&record(2, false)), Removal::Done);
        assert_eq!(owed.of(&record(3, false)), Removal::Logged(13));
        owed.failed();
        assert_eq!(owed.next_waiting(9), [record(3, false), record(4, true)]);
        assert_eq!(owed.of(&record(3, false)), Removal::Waiting);
        owed.floors_durable(Floors { hard: Sequence(3), soft: Sequence(3) });
        assert_eq!(owed.next_waiting(9), [record(4, true)]);
        owed.log(record(4, true), 20);
        owed.log(record(4, true), 21);
        owed.flushed(20);
        assert_eq!(owed.of(&record(4, true)), Removal::Logged(21));
        owed.flushed(21);
        assert_eq!(owed.of(&record(4, true)), Removal::Done);
    }

    #[test]
    fn there_is_room_for_as_many_as_the_limit_wherever_they_are() {
        let mut owed = OwedRecords::default();
        for n in 0..OWED_MAX as u64 {
            assert!(owed.has_room());
            owed.wait(record(n, false));
        }
        assert!(!owed.has_room());
        owed.log(record(0, false), 1);
        assert!(!owed.has_room(), "those on their way count");
        owed.failed();
        assert!(!owed.has_room());
        owed.log(record(0, false), 2);
        owed.flushed(2);
        assert!(owed.has_room());
    }
}
