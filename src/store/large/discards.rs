//! The end of a large object. Owns that reclaim hears of slices that are to be dropped.

use crate::format::Sequence;
use crate::store::shared::Store;

impl Store {
    /// Has the slices of a dead object dropped in the background.
    pub(in crate::store) fn discard(&self, object: Sequence, slice_count: u32) {
        self.shared.large.discard(object, slice_count);
        self.shared.signals.wake_reclaimer.notify_one();
    }
}
