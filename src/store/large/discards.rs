//! Slices of dead objects that wait to be dropped. Owns the queue; `reclaim` drops what is in it.

use crate::format::Sequence;
use crate::store::large::Discard;
use crate::store::shared::Store;

/// Deaths of large objects whose slices wait to be dropped; beyond it they stay until their region is reclaimed.
pub(in crate::store) const DISCARDS_MAX: usize = 1024;

impl Store {
    /// Queues the slices of a dead object to be dropped.
    pub(in crate::store) fn discard(&self, object: Sequence, slice_count: u32) {
        self.shared.large.objects.lock().forget(object);
        let mut discards = self.shared.large.discards.lock();
        if discards.len() < DISCARDS_MAX {
            discards.push_back(Discard { object, next: 0, slice_count });
        }
        drop(discards);
        self.shared.signals.wake_reclaimer.notify_one();
    }
}
