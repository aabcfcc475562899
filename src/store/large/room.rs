//! The room that one store in slices has set aside, on a device of which all such stores together may
//! take half. Given back when it is dropped.

use crate::store::mutation::request::StoreError;
use crate::store::shared::Store;

/// Room for one store under way.
pub struct Room {
    store: Store,
    bytes: u64,
}

impl Store {
    /// Room for a store that begins: none yet.
    #[must_use]
    pub fn room(&self) -> Room {
        Room { store: self.clone(), bytes: 0 }
    }
}

impl Room {
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
        let mut large = self.store.shared.large.objects.lock();
        if !large.reserve(more) {
            return Err(StoreError::Crowded { limit: large.limit() });
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.store.shared.large.objects.lock().release(self.bytes);
        }
    }
}
