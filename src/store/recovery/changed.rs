//! The keys changed since the device was opened: recovery must not overwrite them with the older
//! versions it finds. Owns when that ends, part by part.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::store::recovery::versions::{PARTS, part_of};

/// Hashes of changed keys, divided like recovery's versions. A part that is merged needs none: later
/// changes find its entries in the index. At most 24 bytes a changed key, like a version in recovery:
/// the sets are small and grow one by one.
pub(in crate::store) struct Changed {
    is_open: AtomicBool,
    parts: Box<[Mutex<Option<HashSet<u64>>>]>,
}

impl Changed {
    /// No key is changed yet.
    pub fn new() -> Changed {
        let parts = (0..PARTS).map(|_| Mutex::new(Some(HashSet::new()))).collect();
        Changed { is_open: AtomicBool::new(true), parts }
    }

    /// Notes that a key is about to be changed. Call it before looking up the key's index entries under
    /// the bucket lock: then either recovery sees the note, or the change sees recovery's entry.
    pub fn note(&self, key_hash: u64) {
        if self.is_open.load(Ordering::Acquire)
            && let Some(changed) = self.part(part_of(key_hash)).as_mut()
        {
            changed.insert(key_hash);
        }
    }

    /// The changed keys of a part, locked while it is merged; `None` after that.
    pub fn part(&self, part: usize) -> MutexGuard<'_, Option<HashSet<u64>>> {
        self.parts[part].lock()
    }

    /// All parts are merged.
    pub fn close(&self) {
        self.is_open.store(false, Ordering::Release);
        for part in &self.parts {
            *part.lock() = None;
        }
    }
}
