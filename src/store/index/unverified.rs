//! Changes of keys that share their fingerprint with more words than are looked at. Owns which older
//! versions such a change killed without having seen them: their words stay in the index, because
//! their slots live on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::format::Sequence;

/// Words of one fingerprint that are looked at: each may cost a read.
pub const LOOKS_MAX: usize = 16;
/// Most changes that are kept; beyond it changes look at every word.
const CHANGES_MAX: usize = 64 << 10;

/// Hashes of keys, and the last unverified change of each.
#[derive(Default)]
pub struct Unverified {
    /// Spares everybody the lock as long as there is none.
    any: AtomicBool,
    changes: Mutex<HashMap<u64, Sequence>>,
}

impl Unverified {
    /// A change with this sequence did not look at all words that may be the key's. Noted under the
    /// key's bucket lock, so that who sees the change knows of it.
    pub fn note(&self, key_hash: u64, sequence: Sequence) {
        let mut changes = self.changes.lock();
        let last = changes.entry(key_hash).or_default();
        *last = sequence.max(*last);
        self.any.store(true, Ordering::Release);
    }

    /// The last change of a key that is kept, if one is; else what is below every sequence. Older entries
    /// were killed by it. That it may have been of another key with the same hash is a false kill, as a kill
    /// record's is.
    pub fn last(&self, key_hash: u64) -> Sequence {
        if self.is_empty() {
            return Sequence(0);
        }
        self.changes.lock().get(&key_hash).copied().unwrap_or_default()
    }

    /// Whether another change may go unverified, with those forgotten that are older than every
    /// entry: no entry has a sequence at or below `oldest`.
    pub fn has_room(&self, oldest: impl FnOnce() -> Option<Sequence>) -> bool {
        let mut changes = self.changes.lock();
        if changes.len() >= CHANGES_MAX {
            let oldest = oldest().unwrap_or(Sequence(u64::MAX));
            changes.retain(|_, change| *change > oldest);
        }
        changes.len() < CHANGES_MAX
    }

    /// A change is to be kept no longer: all words that may be the key's were looked at since. Under the
    /// key's bucket lock. Has no effect if it is not the last one.
    pub fn forget(&self, key_hash: u64, sequence: Sequence) {
        let mut changes = self.changes.lock();
        if changes.get(&key_hash) == Some(&sequence) {
            changes.remove(&key_hash);
        }
        self.any.store(!changes.is_empty(), Ordering::Release);
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kills(unverified: &Unverified, key_hash: u64, sequence: Sequence) -> bool {
        sequence < unverified.last(key_hash)
    }

    #[test]
    fn what_is_older_than_a_change_is_dead() {
        let unverified = Unverified::default();
        assert!(unverified.is_empty() && !kills(&unverified, 1, Sequence(0)));
        unverified.note(1, Sequence(20));
        unverified.note(1, Sequence(10));
        assert!(kills(&unverified, 1, Sequence(19)) && !kills(&unverified, 1, Sequence(20)));
        assert!(!kills(&unverified, 2, Sequence(1)) && !unverified.is_empty());
        unverified.forget(1, Sequence(10));
        assert!(kills(&unverified, 1, Sequence(19)), "there was a later one");
        unverified.forget(1, Sequence(20));
        assert!(!kills(&unverified, 1, Sequence(19)) && unverified.is_empty());
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
        assert!(kills(&unverified, 10, Sequence(5)) && !kills(&unverified, 9, Sequence(5)));
    }
}
