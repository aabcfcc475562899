//! The RAM tier as the store sees it: an interface that the tier above implements.

use crate::store::entry::Entry;
use crate::store::place::Place;

/// Keeps copies of entries by their place. Lookups reach a copy only through the index, so the copy of
/// a dead entry is never found.
pub trait Resident: Send + Sync {
    /// Whether to keep a copy of an entry that takes `weight` bytes of memory and is on the device too.
    fn admits(&self, weight: u64) -> bool;

    /// The copy of the entry at `place`.
    fn get(&self, place: Place) -> Option<Entry>;

    /// Offers a copy. Returns the entries in RAM only that are lost by it: those that were evicted for
    /// it, and `entry` itself if it was refused. Their index entries must go.
    fn insert(&self, entry: Entry) -> Vec<Entry>;

    /// Drops the copy of a dead entry.
    fn remove(&self, place: Place);

    /// Whether the tier keeps anything at all; if not, every entry must go to the device.
    fn is_on(&self) -> bool;
}

/// No RAM tier.
pub struct NotResident;

impl Resident for NotResident {
    fn admits(&self, _: u64) -> bool {
        false
    }

    fn get(&self, _: Place) -> Option<Entry> {
        None
    }

    fn insert(&self, entry: Entry) -> Vec<Entry> {
        vec![entry]
    }

    fn remove(&self, _: Place) {}

    fn is_on(&self) -> bool {
        false
    }
}
