//! Removals whose tombstones are not durable yet. Owns which tombstones still have to be appended:
//! those without room or epoch, and those that a failed write lost. Used under the append lock; appends
//! nothing itself.
//!
//! A tombstone gets its sequence at the moment of the removal, however late it is written: it kills
//! what was stored before and nothing stored since.

use std::collections::BTreeMap;

use crate::format::Tombstone;
use crate::store::log::by_ticket::ByTicket;
use crate::store::log::write::Ticket;

/// Most removals that are remembered, waiting or logged: some 6 MiB of memory.
const REMOVALS_MAX: usize = 64 << 10;
/// How many of them may be removals that no caller asked for; the rest is kept for purges.
const OTHERS_MAX: usize = REMOVALS_MAX / 2;

/// What is known of the removal of a key hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Durable, or not remembered.
    Done,
    /// The tombstone is in the log, and durable with this ticket.
    Logged(Ticket),
    /// The tombstone is not in the log.
    Waiting,
}

/// A tombstone to be made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwedTombstone {
    /// The last removal of the key hash.
    pub tombstone: Tombstone,
    /// A caller asked for the removal and waits for it; the tombstone goes to both logs.
    pub for_purge: bool,
}

/// Removals by key hash, each in one of two places.
#[derive(Default)]
pub struct Removals {
    /// Removals without a tombstone in the log.
    waiting: BTreeMap<u64, OwedTombstone>,
    /// Removals with a tombstone that is not durable yet.
    logged: ByTicket<u64, OwedTombstone>,
}

impl Removals {
    /// Notes that a key hash has neither an index entry nor a tombstone. False if too many removals
    /// wait already: then this one is not remembered.
    #[must_use]
    pub fn wait(&mut self, owed: OwedTombstone) -> bool {
        let key_hash = owed.tombstone.key_hash;
        let before = self.take(key_hash);
        if before.is_none() && !self.has_room(owed.for_purge) {
            return false;
        }
        self.waiting.insert(key_hash, join(before, owed));
        true
    }

    /// Notes that a tombstone is in the log, durable with `ticket`.
    pub fn log(&mut self, owed: OwedTombstone, ticket: Ticket) {
        let OwedTombstone { tombstone, for_purge } = owed;
        let key_hash = tombstone.key_hash;
        if let Some(waiting) = self.waiting.get_mut(&key_hash)
            && (waiting.tombstone.sequence > tombstone.sequence
                || (waiting.for_purge && !for_purge))
        {
            // A later removal, or one that must be in both logs, still has to be written.
            *waiting = join(Some(*waiting), owed);
            return;
        }
        let logged = self.logged.get(&key_hash);
        if logged.is_some_and(|(_, logged)| logged.tombstone.sequence > tombstone.sequence) {
            return;
        }
        let before = self.take(key_hash);
        // Beyond the limit nothing is noted: the caller learns from its ticket whether it is durable.
        if before.is_some() || self.has_room(for_purge) {
            self.logged.insert(key_hash, (ticket, join(before, owed)));
        }
    }

    /// Everything up to `ticket` is durable.
    pub fn flushed(&mut self, ticket: Ticket) {
        self.logged.flushed(ticket);
    }

    /// A write or flush failed: tombstones that were not durable may be lost, and wait again.
    pub fn failed(&mut self) {
        self.waiting.extend(self.logged.take_all());
    }

    /// Up to `count` of the waiting tombstones.
    pub fn next_waiting(&self, count: usize) -> impl Iterator<Item = OwedTombstone> {
        self.waiting.values().take(count).copied()
    }

    /// The tombstone of a key hash, if it waits.
    pub fn waiting(&self, key_hash: u64) -> Option<OwedTombstone> {
        self.waiting.get(&key_hash).copied()
    }

    /// What is known of the removal of a key hash.
    pub fn of(&self, key_hash: u64) -> Removal {
        match self.logged.get(&key_hash) {
            Some((ticket, _)) => Removal::Logged(*ticket),
            None if self.waiting.contains_key(&key_hash) => Removal::Waiting,
            None => Removal::Done,
        }
    }

    /// Number of waiting removals.
    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Number of waiting removals that a caller asked for.
    pub fn purge_count(&self) -> usize {
        self.waiting.values().filter(|owed| owed.for_purge).count()
    }

    fn has_room(&self, for_purge: bool) -> bool {
        let limit = if for_purge { REMOVALS_MAX } else { OTHERS_MAX };
        self.waiting.len() + self.logged.len() < limit
    }

    fn take(&mut self, key_hash: u64) -> Option<OwedTombstone> {
        self.logged.remove(&key_hash).or_else(|| self.waiting.remove(&key_hash))
    }
}

/// The tombstone still to be written after two removals of one key hash.
fn join(before: Option<OwedTombstone>, next: OwedTombstone) -> OwedTombstone {
    let Some(before) = before else { return next };
    let sequence = before.tombstone.sequence.max(next.tombstone.sequence);
    let tombstone = Tombstone { sequence, ..next.tombstone };
    OwedTombstone { tombstone, for_purge: before.for_purge || next.for_purge }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Sequence;

    fn owed(key_hash: u64, sequence: u64, for_purge: bool) -> OwedTombstone {
        OwedTombstone { tombstone: Tombstone { key_hash, sequence: Sequence(sequence) }, for_purge }
    }

    fn waiting(removals: &Removals) -> Vec<OwedTombstone> {
        removals.next_waiting(usize::MAX).collect()
    }

    #[test]
    fn what_a_failed_write_took_waits_again_and_what_is_durable_does_not() {
        let mut removals = Removals::default();
        for (key_hash, ticket) in [(1, 10), (2, 11), (3, 12), (1, 13)] {
            removals.log(owed(key_hash, 100 + ticket, key_hash == 3), ticket);
        }
        removals.flushed(11);
        assert_eq!(removals.of(1), Removal::Logged(13), "its second record is not durable");
        assert_eq!(removals.of(2), Removal::Done);
        removals.failed();
        assert_eq!(waiting(&removals), [owed(1, 113, false), owed(3, 112, true)]);
        assert_eq!(removals.purge_count(), 1);
        removals.log(owed(1, 113, false), 20);
        removals.flushed(20);
        assert_eq!(waiting(&removals), [owed(3, 112, true)]);
        assert_eq!(removals.of(1), Removal::Done);
    }

    #[test]
    fn a_record_ends_the_wait_of_what_it_covers_only() {
        let mut removals = Removals::default();
        assert!(removals.wait(owed(1, 50, true)) && removals.wait(owed(2, 50, false)));
        removals.log(owed(1, 40, true), 1);
        removals.log(owed(2, 40, false), 1);
        assert_eq!(waiting(&removals), [owed(1, 50, true), owed(2, 50, false)]);
        // In one log only.
        removals.log(owed(1, 60, false), 2);
        removals.log(owed(2, 60, false), 2);
        assert_eq!(waiting(&removals), [owed(1, 60, true)]);
        removals.log(owed(1, 60, true), 3);
        removals.log(owed(1, 70, false), 4);
        assert_eq!(removals.of(1), Removal::Logged(4));
        removals.failed();
        assert_eq!(waiting(&removals), [owed(1, 70, true), owed(2, 60, false)]);
        // A removal of what was stored since.
        assert!(removals.wait(owed(1, 80, false)));
        assert_eq!(removals.waiting(1), Some(owed(1, 80, true)));
    }

    #[test]
    fn nothing_is_forgotten_but_at_the_limit_and_then_who_asks_is_told() {
        let mut removals = Removals::default();
        let (limit, unasked) = (REMOVALS_MAX as u64, OTHERS_MAX as u64);
        assert!((0..unasked).all(|n| removals.wait(owed(n, 1, false))));
        assert!(!removals.wait(owed(unasked, 1, false)), "the rest is for purges");
        for n in unasked..limit {
            removals.log(owed(n, 1, true), n);
        }
        assert!(!removals.wait(owed(limit, 1, true)), "those on their way count");
        removals.log(owed(limit, 1, true), limit);
        assert_eq!(removals.logged.len(), REMOVALS_MAX - OTHERS_MAX);
        removals.failed();
        assert_eq!(removals.waiting_count(), REMOVALS_MAX, "each waits again");
        assert_eq!(removals.purge_count(), REMOVALS_MAX - OTHERS_MAX);
        assert!(removals.wait(owed(0, 2, true)) && !removals.wait(owed(limit, 1, true)));
        for n in 0..2 * limit {
            removals.log(owed(n % 10, n, true), n);
        }
        assert_eq!(removals.logged.len(), 10);
        removals.flushed(2 * limit);
        assert_eq!(removals.logged.len(), 0);
    }
}
