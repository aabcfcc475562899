//! The store's view of entries that are in memory: a seam for the RAM tier above.

use crate::store::entry::Entry;
use crate::store::place::Place;

/// Keeps copies of entries by their place. Being reached only through the index, a copy
/// of a dead entry is never found.
pub trait Resident: Send + Sync {
    /// Whether a copy of an entry of `weight` bytes in memory, which is not in RAM only, is worth its room.
    fn admits(&self, weight: u64) -> bool;

    /// The copy of the entry at `place`.
    fn get(&self, place: Place) -> Option<Entry>;

    /// Offers a copy; it may be refused. Gives the entries without a place on the device that
    /// were put out for it: they are lost and their index words must go.
    fn insert(&self, entry: Entry) -> Vec<Entry>;

    /// Drops the copy of a dead entry.
    fn remove(&self, place: Place);

    /// Whether anything is ever kept; if not, every entry must go to the device.
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
