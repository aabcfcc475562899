//! The space that one store in slices has set aside, on a device of which all such stores together may
//! take half. Given back when it is dropped.

use crate::store::mutation::request::StoreError;
use crate::store::shared::Store;

/// Space for one store under way.
pub(super) struct SpaceReservation {
    store: Store,
    bytes: u64,
}

impl SpaceReservation {
    /// Space for a store that begins: none yet.
    pub fn new(store: &Store) -> SpaceReservation {
        SpaceReservation { store: store.clone(), bytes: 0 }
    }

    /// Sees to it that `bytes` are set aside.
    ///
    /// # Errors
    /// [`StoreError::Crowded`]: stores under way would take more than they may. What is set aside
    /// stays so.
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), StoreError> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let mut large = self.store.shared.large.claims.lock();
        if !large.reserve(more) {
            return Err(StoreError::Crowded { limit: large.limit() });
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for SpaceReservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.store.shared.large.claims.lock().release(self.bytes);
        }
    }
}
