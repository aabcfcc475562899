//! The keys changed since the device was opened: recovery must not overwrite them with the older
//! versions it finds. Owns when that ends, part by part, and what becomes of changes for which there is
//! no memory.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::planted::{self, Bug};
use crate::store::recovery::memory::Shares;
use crate::store::recovery::versions::{PARTS, part_of};

/// Bytes of one key: the sets are small and grow one by one.
const KEY_BYTES: u64 = 24;
/// One part in this many of the memory is for the bits.
const BITS_SHARE: u64 = 4;

/// Whether a key was changed since the device was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Change {
    No,
    Yes,
    /// It, or another key with the same bit.
    Maybe,
}

/// Changed keys, divided like recovery's versions. A part that is merged needs none: later changes find its
/// entries in the index. Keys are noted one by one while there is memory for that, then as bits, which
/// several keys share: stores are refused by then, but removals count.
pub(in crate::store) struct Changed {
    is_open: AtomicBool,
    parts: Box<[Mutex<Option<Keys>>]>,
    /// Keys noted one by one.
    len: AtomicU64,
    len_max: u64,
    /// Words of bits for one part.
    words: usize,
}

/// The changed keys of one part.
#[derive(Debug, Default)]
pub(in crate::store) struct Keys {
    each: HashSet<u64>,
    /// Empty while `each` has all.
    bits: Box<[u64]>,
}

impl Keys {
    /// Whether a key of this part was changed.
    pub fn find(&self, key_hash: u64) -> Change {
        if self.each.contains(&key_hash) {
            Change::Yes
        } else if self.bits.is_empty() || planted::is(Bug::ForgetCoarseChanges) {
            Change::No
        } else {
            let (word, bit) = self.bit_of(key_hash);
            if self.bits[word] & bit != 0 { Change::Maybe } else { Change::No }
        }
    }

    /// The word and bit of a key; the low bits of the hash have chosen the part.
    fn bit_of(&self, key_hash: u64) -> (usize, u64) {
        let bit = key_hash / PARTS as u64 % (self.bits.len() as u64 * 64);
        (usize::try_from(bit / 64).unwrap_or(0), 1 << (bit % 64))
    }
}

impl Changed {
    /// No key is changed yet. Takes at most `bytes` of memory.
    pub fn new(bytes: u64) -> Changed {
        let bytes = Shares::of(bytes).changed;
        let bits = bytes / BITS_SHARE;
        let words = usize::try_from(bits / 8 / PARTS as u64).unwrap_or(usize::MAX).max(1);
        Changed {
            is_open: AtomicBool::new(true),
            parts: (0..PARTS).map(|_| Mutex::new(Some(Keys::default()))).collect(),
            len: AtomicU64::new(0),
            len_max: (bytes - bits) / KEY_BYTES,
            words,
        }
    }

    /// Whether recovery goes on and there is no memory for one more key: stores have to wait for its end.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.is_open.load(Ordering::Acquire) && self.len.load(Ordering::Relaxed) >= self.len_max
    }

    /// Notes that a key is about to be changed. Call it before looking up the key's index entries under
    /// the bucket lock: then either recovery sees the note, or the change sees recovery's entry.
    pub fn note(&self, key_hash: u64) {
        if self.is_open.load(Ordering::Acquire)
            && let Some(keys) = self.part(part_of(key_hash)).as_mut()
        {
            if self.len.load(Ordering::Relaxed) < self.len_max {
                self.len.fetch_add(u64::from(keys.each.insert(key_hash)), Ordering::Relaxed);
            } else if !keys.each.contains(&key_hash) {
                if keys.bits.is_empty() {
                    keys.bits = vec![0; self.words].into();
                }
                let (word, bit) = keys.bit_of(key_hash);
                keys.bits[word] |= bit;
            }
        }
    }

    /// The changed keys of a part, locked while it is merged; `None` after that.
    pub fn part(&self, part: usize) -> MutexGuard<'_, Option<Keys>> {
        self.parts[part].lock()
    }

    /// A part is merged: later changes find its entries in the index.
    pub fn forget(&self, part: usize) {
        if let Some(keys) = self.part(part).take() {
            self.len.fetch_sub(keys.each.len() as u64, Ordering::Relaxed);
        }
    }

    /// All parts are merged.
    pub fn close(&self) {
        self.is_open.store(false, Ordering::Release);
        (0..PARTS).for_each(|part| self.forget(part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(changed: &Changed, key_hash: u64) -> Change {
        changed.part(part_of(key_hash)).as_ref().map_or(Change::No, |keys| keys.find(key_hash))
    }

    #[test]
    fn no_change_is_forgotten_however_many_there_are() {
        let changed = Changed::new(64 << 10);
        let mut random = fastrand::Rng::with_seed(3);
        let keys: Vec<u64> = (0..20_000).map(|_| random.u64(..)).collect();
        assert!(!changed.is_full());
        keys.iter().for_each(|key| changed.note(*key));
        assert!(changed.is_full());
        assert!(keys.iter().all(|key| find(&changed, *key) != Change::No));
        let each = keys.iter().filter(|key| find(&changed, **key) == Change::Yes).count() as u64;
        assert_eq!(each, changed.len_max);
        assert!(each * KEY_BYTES <= Shares::of(64 << 10).changed);
        changed.forget(part_of(keys[0]));
        assert_eq!(find(&changed, keys[0]), Change::No);
        assert!(!changed.is_full(), "a merged part gives its memory back");
        changed.close();
        assert!(!changed.is_full() && keys.iter().all(|key| find(&changed, *key) == Change::No));
    }

    #[test]
    fn with_memory_each_key_is_told_from_others() {
        let changed = Changed::new(64 << 20);
        (0..10_000).for_each(|key| changed.note(key * 7));
        assert!((0..70_000).all(|key| {
            find(&changed, key) == if key % 7 == 0 { Change::Yes } else { Change::No }
        }));
    }
}
