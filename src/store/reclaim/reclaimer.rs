//! The background work that keeps regions free. Owns its state; what it does is in the other files here.

use crate::store::shared::Store;

/// Keeps regions of a store free.
pub(in crate::store) struct Reclaimer {
    pub(super) store: Store,
    /// Where it looks for regions that are not in use.
    pub(super) hand: Hand,
}

/// How far the round through the regions is, from older to newer ones.
#[derive(Debug, Default)]
pub(in crate::store) struct Hand {
    /// Regions found since the round began.
    pub(in crate::store) found: usize,
}

impl Reclaimer {
    pub fn new(store: Store) -> Reclaimer {
        Reclaimer { store, hand: Hand::default() }
    }
}
