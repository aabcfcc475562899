//! The background task of recovery. Owns its handle; the other files here have its work.

use crate::store::shared::Store;

/// Recovers the contents of a store's device.
pub(in crate::store) struct Recovery {
    pub(super) store: Store,
}

impl Recovery {
    pub fn new(store: Store) -> Recovery {
        Recovery { store }
    }
}
