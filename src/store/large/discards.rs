//! The end of a large object. Owns that reclaim hears of slices that are to be dropped.

use crate::format::{ObjectHead, Sequence};
use crate::store::large::coverage::GRANULE_LEN_MAX;
use crate::store::shared::Store;

impl Store {
    /// Has the slices of a dead object dropped in the background.
    pub(in crate::store) fn discard(&self, head: ObjectHead) {
        let may_be_partial = head.slice_size <= GRANULE_LEN_MAX;
        self.shared.large.discard(head.object, head.slice_count(), may_be_partial);
        self.shared.signals.wake_reclaimer.notify_one();
    }

    /// Has the slices of a store that failed dropped in the background.
    pub(in crate::store) fn discard_slices(&self, object: Sequence, slice_count: u32) {
        self.shared.large.discard(object, slice_count, false);
        self.shared.signals.wake_reclaimer.notify_one();
    }
}
