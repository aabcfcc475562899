//! The keys that were changed since the device was opened, while recovery still has to know: what
//! it finds of them is older. Owns when that ends, part by part.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::store::recovery::versions::{PARTS, part_of};

/// Hashes of changed keys, in the parts that recovery settles one by one. A part whose recovered words are in the index needs
/// none: from then on a change finds the old word and takes it out. Takes at most 24 bytes a
/// changed key, as recovery does for each version: small sets, grown one by one.
pub(in crate::store) struct Changed {
    is_open: AtomicBool,
    parts: Box<[Mutex<Option<HashSet<u64>>>]>,
}

impl Changed {
    /// Nothing is changed yet.
    pub fn new() -> Changed {
        let parts = (0..PARTS).map(|_| Mutex::new(Some(HashSet::new()))).collect();
        Changed { is_open: AtomicBool::new(true), parts }
    }

    /// Notes that a key is about to be changed. Must come before the change looks at the key's
    /// words under the bucket lock: then either recovery sees the note, or the change its word.
    pub fn note(&self, key_hash: u64) {
        if self.is_open.load(Ordering::Acquire)
            && let Some(changed) = self.part(part_of(key_hash)).as_mut()
        {
            changed.insert(key_hash);
        }
    }

    /// The changed keys of a part, locked while words are put into it; `None` once all are.
    pub fn part(&self, part: usize) -> MutexGuard<'_, Option<HashSet<u64>>> {
        self.parts[part].lock()
    }

    /// All recovered words are in the index.
    pub fn close(&self) {
        self.is_open.store(false, Ordering::Release);
        for part in &self.parts {
            *part.lock() = None;
        }
    }
}
