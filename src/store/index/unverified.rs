//! Changes of keys whose fingerprint matches more index entries than a change verifies. Owns which
//! older versions such a change killed unseen: their index entries stay, as their slots do.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::format::Sequence;

/// Most index entries of one fingerprint that are verified: each may cost a read.
pub const LOOKS_MAX: usize = 16;
/// Most changes that are kept; beyond them a change verifies every index entry.
const CHANGES_MAX: usize = 64 << 10;

/// For each key hash the sequence of the last unverified change.
#[derive(Default)]
pub struct Unverified {
    /// Spares readers the lock while there is no such change.
    any: AtomicBool,
    changes: Mutex<HashMap<u64, Sequence>>,
}

impl Unverified {
    /// Notes that the change with this sequence did not verify all entries that may be the key's.
    /// Called under the key's bucket lock, so that whoever sees the change sees the note too.
    pub fn note(&self, key_hash: u64, sequence: Sequence) {
        let mut changes = self.changes.lock();
        let last = changes.entry(key_hash).or_default();
        *last = sequence.max(*last);
        self.any.store(true, Ordering::Release);
    }

    /// The sequence of the last unverified change of a key; `Sequence(0)` if there is none. Entries
    /// with a lower sequence are dead. If another key has the same hash, its entries count as dead too,
    /// as with a tombstone.
    pub fn last(&self, key_hash: u64) -> Sequence {
        if self.is_empty() {
            return Sequence(0);
        }
        self.changes.lock().get(&key_hash).copied().unwrap_or_default()
    }

    /// Whether one more change may go unverified. Forgets changes older than every entry first: no
    /// entry has a sequence at or below `oldest`.
    pub fn has_room(&self, oldest: impl FnOnce() -> Option<Sequence>) -> bool {
        let mut changes = self.changes.lock();
        if changes.len() >= CHANGES_MAX {
            let oldest = oldest().unwrap_or(Sequence(u64::MAX));
            changes.retain(|_, change| *change > oldest);
            self.any.store(!changes.is_empty(), Ordering::Release);
        }
        changes.len() < CHANGES_MAX
    }

    /// Forgets a change after all entries that may be the key's were verified, unless a later one was
    /// noted. Called under the key's bucket lock.
    pub fn forget(&self, key_hash: u64, sequence: Sequence) {
        let mut changes = self.changes.lock();
        if changes.get(&key_hash) == Some(&sequence) {
            changes.remove(&key_hash);
        }
        self.any.store(!changes.is_empty(), Ordering::Release);
    }

    /// Whether no change is kept.
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(unverified: &Unverified, key_hash: u64, sequence: Sequence) -> bool {
        sequence < unverified.last(key_hash)
    }

    #[test]
    fn what_is_older_than_a_change_is_dead() {
        let unverified = Unverified::default();
        assert!(unverified.is_empty() && !covers(&unverified, 1, Sequence(0)));
        unverified.note(1, Sequence(20));
        unverified.note(1, Sequence(10));
        assert!(covers(&unverified, 1, Sequence(19)) && !covers(&unverified, 1, Sequence(20)));
        assert!(!covers(&unverified, 2, Sequence(1)) && !unverified.is_empty());
        unverified.forget(1, Sequence(10));
        assert!(covers(&unverified, 1, Sequence(19)), "there was a later one");
        unverified.forget(1, Sequence(20));
        assert!(!covers(&unverified, 1, Sequence(19)) && unverified.is_empty());
    }

    #[test]
    fn changes_older_than_every_entry_make_room() {
        let unverified = Unverified::default();
        for n in 1..=CHANGES_MAX as u64 {
            assert!(unverified.has_room(|| panic!("not full yet")));
            unverified.note(n, Sequence(n));
        }
        assert!(!unverified.has_room(|| Some(Sequence(0))));
        assert!(unverified.has_room(|| Some(Sequence(9))));
        assert!(covers(&unverified, 10, Sequence(5)) && !covers(&unverified, 9, Sequence(5)));
    }
}
