//! The background task that keeps regions free. Owns its state; the other files here have its work.

use crate::store::shared::Store;

/// Keeps regions of a store free.
pub(in crate::store) struct Reclaimer {
    pub(super) store: Store,
    /// Finds regions that are not in use.
    pub(super) hand: Hand,
}

/// Progress of the round through the regions, from oldest to newest.
#[derive(Debug, Default)]
pub(in crate::store) struct Hand {
    /// Victims found in this round.
    pub(in crate::store) found: usize,
}

impl Reclaimer {
    pub fn new(store: Store) -> Reclaimer {
        Reclaimer { store, hand: Hand::default() }
    }
}
