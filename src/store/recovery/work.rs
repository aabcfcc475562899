//! The background work that learns what is on a device. Owns its handle; what it does is in the other
//! files here.

use crate::store::shared::Store;

/// Learns what is on the device of a store.
pub(in crate::store) struct Recovery {
    pub(super) store: Store,
}

impl Recovery {
    pub fn new(store: Store) -> Recovery {
        Recovery { store }
    }
}
