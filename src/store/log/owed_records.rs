//! Purge records that are not durable yet. Owns which still have to be appended: those without room or
//! epoch, and those that a failed write lost. Used under the append lock; appends nothing itself.

use std::collections::BTreeSet;

use crate::format::PurgeRecord;
use crate::store::log::by_ticket::ByTicket;
use crate::store::log::removals::Removal;
use crate::store::log::write::Ticket;
use crate::store::purges::Floors;

/// Most records that are remembered, waiting or logged: some 10 MiB of memory.
const OWED_MAX: usize = 64 << 10;

/// Purge records, each in one of two places.
#[derive(Default)]
pub struct OwedRecords {
    /// Records that are not in the log.
    waiting: BTreeSet<PurgeRecord>,
    /// Records that are not durable yet.
    logged: ByTicket<PurgeRecord, ()>,
    /// Records up to this ticket are not remembered, because there were too many; 0 for none.
    forgotten: Ticket,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// It is remembered until it is durable.
    Yes,
    /// It is in the log, durable with the ticket, and not remembered: there are too many.
    No(Ticket),
}

impl OwedRecords {
    /// Notes that a record is not in the log. False if too many are remembered already.
    #[must_use]
    pub fn wait(&mut self, record: PurgeRecord) -> bool {
        let has_room = self.waiting.len() + self.logged.len() < OWED_MAX;
        if has_room {
            self.waiting.insert(record);
        }
        has_room
    }

    /// Notes that a record is in the log, durable with `ticket`.
    pub fn log(&mut self, record: PurgeRecord, ticket: Ticket) -> Noted {
        self.waiting.remove(&record);
        self.logged.remove(&record);
        if self.waiting.len() + self.logged.len() < OWED_MAX {
            self.logged.insert(record, (ticket, ()));
            return Noted::Yes;
        }
        self.forgotten = self.forgotten.max(ticket);
        Noted::No(ticket)
    }

    /// Whether a record of which nothing is known is durable: none was forgotten that may not be.
    pub fn knows_all(&self) -> bool {
        self.forgotten == 0
    }

    /// Everything up to `ticket` is durable.
    pub fn flushed(&mut self, ticket: Ticket) {
        if self.forgotten <= ticket {
            self.forgotten = 0;
        }
        self.logged.flushed(ticket);
    }

    /// A write or flush failed: records that were not durable may be lost, and wait again.
    pub fn failed(&mut self) {
        if self.forgotten > 0 {
            // Nobody writes it again: in this run it is not known any more.
            self.forgotten = Ticket::MAX;
        }
        self.waiting.extend(self.logged.take_all().map(|(record, ())| record));
    }

    /// These floors are durable: they say what records up to them say.
    pub fn floors_durable(&mut self, floors: Floors) {
        self.waiting.retain(|record| !is_below(record, floors));
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
        assert!(owed.wait(record(1, false)));
        for n in 1..5 {
            assert_eq!(owed.log(record(n, n == 4), 10 + n), Noted::Yes);
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
        assert_eq!(owed.log(record(4, true), 20), Noted::Yes);
        owed.log(record(4, true), 21);
        owed.flushed(20);
        assert_eq!(owed.of(&record(4, true)), Removal::Logged(21));
        owed.flushed(21);
        assert_eq!(owed.of(&record(4, true)), Removal::Done);
    }

    #[test]
    fn as_many_as_the_limit_are_remembered() {
        let mut owed = OwedRecords::default();
        assert!((0..OWED_MAX as u64).all(|n| owed.wait(record(n, false))));
        assert!(!owed.wait(record(u64::MAX, false)));
        owed.log(record(0, false), 1);
        assert!(!owed.wait(record(u64::MAX, false)), "those on their way count");
        owed.flushed(1);
        assert!(owed.wait(record(u64::MAX, false)));
    }

    #[test]
    fn whoever_logs_one_too_many_learns_its_ticket() {
        let mut owed = OwedRecords::default();
        for n in 0..OWED_MAX as u64 {
            assert_eq!(owed.log(record(n, false), 10), Noted::Yes);
        }
        assert!(!owed.wait(record(u64::MAX, false)) && owed.knows_all());
        assert_eq!(owed.log(record(u64::MAX, false), 11), Noted::No(11));
        owed.flushed(10);
        assert!(!owed.knows_all(), "it may not be durable");
        owed.flushed(11);
        assert!(owed.knows_all());
        assert_eq!(owed.log(record(u64::MAX, false), 12), Noted::Yes, "there is room again");
        for n in 0..OWED_MAX as u64 {
            owed.log(record(n, false), 13);
        }
        owed.failed();
        owed.flushed(1000);
        assert!(!owed.knows_all(), "what was lost is not written again");
    }
}
