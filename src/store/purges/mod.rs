//! Purges by tag, by prefix and of everything, hard and soft: which entries they cover. Owns the records in
//! memory, and that a lookup pays for them only if there is one that is newer than the entry it found. What
//! is on the device the log says; this does no I/O.

pub(super) mod in_ram;
pub mod table;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use siphasher::sip::SipHasher13;

use crate::clock::Timestamp;
use crate::format::{PurgeRecord, Sequence};
use crate::store::purges::in_ram::InRam;
use crate::store::purges::table::{Folded, Known, Prefixes, Since, Subject, Table};

/// What purges say of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// No purge covers it.
    Live,
    /// A soft purge covers it: only who asks for stale entries gets it.
    Stale,
    /// A hard purge covers it.
    Dead,
}

/// Floors below which everything is covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    /// Entries with a lower sequence are dead: hard records went into it.
    pub hard: Sequence,
    /// Entries with a lower sequence are stale.
    pub soft: Sequence,
}

/// Records forgotten under one lock.
const COMPACTED_AT_ONCE: usize = 1024;

/// The purges of one device that still count.
pub struct Purges {
    /// No record, and neither floor, covers an entry with this sequence or a higher one.
    newest: AtomicU64,
    /// Number of the last record.
    number: AtomicU64,
    tables: RwLock<Tables>,
    in_ram: Mutex<InRam>,
    prefix_hasher: SipHasher13,
}

struct Tables {
    hard: Table,
    soft: Table,
}

impl Tables {
    fn of(&mut self, is_soft: bool) -> &mut Table {
        if is_soft { &mut self.soft } else { &mut self.hard }
    }
}

impl Purges {
    /// None but the floors of the superblock. Each kind has at most `records_max` records.
    pub fn new(floors: Floors, records_max: usize, prefix_hasher: SipHasher13) -> Purges {
        let tables = Tables {
            hard: Table::new(records_max, floors.hard),
            soft: Table::new(records_max, floors.soft),
        };
        Purges {
            newest: AtomicU64::new(floors.hard.max(floors.soft).0),
            number: AtomicU64::new(1),
            tables: RwLock::new(tables),
            in_ram: Mutex::default(),
            prefix_hasher,
        }
    }

    /// Whether any purge may cover an entry with this sequence: if not, nobody need ask.
    #[inline]
    pub fn may_cover(&self, sequence: Sequence) -> bool {
        sequence.0 < self.newest.load(Ordering::Acquire)
    }

    /// Number of the last record.
    #[inline]
    pub fn last_number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// What purges later than `since` say of an entry, and the number of the last that was asked.
    pub fn verdict<T>(&self, since: Since, of: Subject<'_, T>) -> (Verdict, u64)
    where
        T: Iterator<Item = u64> + Clone,
    {
        let tables = self.tables.read();
        let number = self.last_number();
        let mut prefixes = Prefixes::new(of.key, self.prefix_hasher);
        let verdict = if tables.hard.covers(since, of.tags.clone(), &mut prefixes) {
            Verdict::Dead
        } else if tables.soft.covers(since, of.tags, &mut prefixes) {
            Verdict::Stale
        } else {
            Verdict::Live
        };
        (verdict, number)
    }

    /// A purge of now. Call it under the append lock, under which its sequence was drawn. If there were too
    /// many of its kind, a floor covers the oldest from here on: it must be written.
    pub fn add(&self, record: &PurgeRecord) -> Option<Folded> {
        let mut tables = self.tables.write();
        let number = self.next_number();
        let known = Known { sequence: record.sequence, number };
        let folded = tables.of(record.is_soft).insert(record.what, known);
        self.publish(known);
        folded
    }

    /// A purge that was found on the device, at the start (`at_start`) or later.
    pub fn add_found(&self, record: &PurgeRecord, at_start: bool) -> Option<Folded> {
        let mut tables = self.tables.write();
        let last = tables.of(record.is_soft).last_of(record.what);
        if last.is_some_and(|last| last >= record.sequence) {
            return None;
        }
        let number = if at_start { 1 } else { self.next_number() };
        let known = Known { sequence: record.sequence, number };
        let folded = tables.of(record.is_soft).insert(record.what, known);
        self.publish(known);
        folded
    }

    /// Covers everything with a lower sequence than `floor`, under the append lock.
    pub fn raise_floor(&self, is_soft: bool, floor: Sequence) {
        let mut tables = self.tables.write();
        let known = Known { sequence: floor, number: self.next_number() };
        tables.of(is_soft).raise_floor(known);
        self.publish(known);
    }

    /// As [`Purges::raise_floor`], for purges of earlier starts: all stores in progress began after them.
    pub fn raise_found_floor(&self, is_soft: bool, floor: Sequence) {
        let mut tables = self.tables.write();
        let known = Known { sequence: floor, number: 1 };
        tables.of(is_soft).raise_floor(known);
        self.publish(known);
    }

    /// Forgets some of the records that nothing can need: all entries on the device have higher sequences than
    /// `oldest`, and all stores in progress began after number `seen`. True if there may be more.
    pub fn compact(&self, oldest: Sequence, seen: impl FnOnce() -> u64, now: Timestamp) -> bool {
        let first_in_ram = self.in_ram.lock().first(now);
        let oldest = first_in_ram.map_or(oldest, |first| first.min(oldest));
        let mut tables = self.tables.write();
        // Under the lock: stores that begin later have seen all.
        let seen = seen();
        let count = tables.hard.compact((oldest, seen), COMPACTED_AT_ONCE);
        let left = COMPACTED_AT_ONCE - count;
        tables.soft.compact((oldest, seen), left) == left
    }

    /// Notes an entry in RAM only, under the append lock.
    pub fn note_in_ram(&self, sequence: Sequence, end: Timestamp) {
        self.in_ram.lock().note(sequence, end);
    }

    /// Records that count, hard and soft.
    pub fn counts(&self) -> [usize; 2] {
        let tables = self.tables.read();
        [tables.hard.count(), tables.soft.count()]
    }

    /// All records that count, the oldest of each kind first.
    pub fn records(&self) -> Vec<PurgeRecord> {
        let tables = self.tables.read();
        tables.hard.records(false).chain(tables.soft.records(true)).collect()
    }

    /// A later record of the same selector and kind, which says what this one says.
    pub fn later(&self, record: &PurgeRecord) -> Option<PurgeRecord> {
        let tables = self.tables.read();
        let table = if record.is_soft { &tables.soft } else { &tables.hard };
        let last = table.last_of(record.what).filter(|last| *last > record.sequence);
        last.map(|sequence| PurgeRecord { sequence, ..*record })
    }

    /// The floors that hold now.
    pub fn floors(&self) -> Floors {
        let tables = self.tables.read();
        Floors { hard: tables.hard.floor(), soft: tables.soft.floor() }
    }

    fn next_number(&self) -> u64 {
        self.number.load(Ordering::Relaxed) + 1
    }

    /// Under the lock of the tables: who sees the number or the sequence finds the record.
    fn publish(&self, known: Known) {
        self.number.fetch_max(known.number, Ordering::Release);
        self.newest.fetch_max(known.sequence.0, Ordering::Release);
    }
}
